"""Named places where a test may kill the process.

`NIGHTSHIFT_FAILPOINT=name` ends the process with SIGKILL when it reaches the
failpoint of that name (`name:3` the third time), as a power cut would: no
`finally`, no flush, no goodbye. Unset, a failpoint costs one comparison.
"""

from __future__ import annotations

import os
import signal

ENVIRONMENT_VARIABLE = "NIGHTSHIFT_FAILPOINT"


def _armed() -> tuple[str, int]:
    name, _, count = os.environ.get(ENVIRONMENT_VARIABLE, "").partition(":")
    return name, int(count) if count.isdigit() else 1


_name, _passes_left = _armed()


def failpoint(name: str) -> None:
    """Die here if the environment says so."""
    if not _name or name != _name:
        return
    global _passes_left  # noqa: PLW0603 - counts the passes of this one process
    _passes_left -= 1
    if _passes_left <= 0:
        os.kill(os.getpid(), signal.SIGKILL)
