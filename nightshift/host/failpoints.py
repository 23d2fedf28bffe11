"""Named places where a test may kill the process, or stop it for a while.

`NIGHTSHIFT_FAILPOINT=name` ends the process with SIGKILL when it reaches the
failpoint of that name (`name:3` the third time), as a power cut would: no
`finally`, no flush, no goodbye. `name:3:pause` stops it there instead, with SIGSTOP
until somebody sends SIGCONT, as if its machine was suspended. Unset, a failpoint
costs one comparison.
"""

from __future__ import annotations

import os
import signal

ENVIRONMENT_VARIABLE = "NIGHTSHIFT_FAILPOINT"


def _armed() -> tuple[str, int, signal.Signals]:
    name, _, rest = os.environ.get(ENVIRONMENT_VARIABLE, "").partition(":")
    count, _, action = rest.partition(":")
    return name, int(count) if count.isdigit() else 1, signal.SIGSTOP if action == "pause" else signal.SIGKILL


_name, _passes_left, _signal = _armed()


def failpoint(name: str) -> None:
    """Die here, or pause once, if the environment says so."""
    if not _name or name != _name:
        return
    global _passes_left  # noqa: PLW0603 - counts the passes of this one process
    _passes_left -= 1
    if _passes_left == 0:
        os.kill(os.getpid(), _signal)
