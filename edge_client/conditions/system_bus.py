"""Properties of system services over D-Bus, asked through systemd's own `busctl`.

A process of its own, five milliseconds long: no library is loaded into the
agent, nothing has to be installed beside systemd, and where there is no bus the answer is None.
docs/adr/0017 compares the ways. Services are never started by asking.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

ANSWER_WITHIN_S = 2
_ANSWER_LIMIT_BYTES = 2**20


@dataclass(frozen=True, slots=True)
class SystemBus:
    """The machine's system bus.

    Attributes:
        command: how `busctl` is called; another address or program in tests.
    """

    command: Sequence[str] = ("busctl", "--system")

    def properties(self, service: str, path: str, interface: str) -> Mapping[str, Any] | None:
        """All properties of an object, by name.

        Returns:
            None where there is no bus, no such service running, or no answer within two seconds.
        """
        if shutil.which(self.command[0]) is None:
            return None
        call = ("call", service, path, "org.freedesktop.DBus.Properties", "GetAll", "s", interface)
        options = ("--json=short", "--auto-start=no", f"--timeout={ANSWER_WITHIN_S}")
        try:
            finished = subprocess.run(  # noqa: S603 - a fixed command line, no shell
                [*self.command, *options, *call],
                capture_output=True,
                timeout=2 * ANSWER_WITHIN_S,
                check=False,
                stdin=subprocess.DEVNULL,
            )
        except (OSError, subprocess.SubprocessError):
            return None
        return parse_properties(finished.stdout) if finished.returncode == 0 else None


def parse_properties(answer: bytes) -> Mapping[str, Any] | None:
    """Read what `busctl --json=short call ... GetAll` prints.

    Returns:
        Name -> value, or None if it is anything else.
    """
    if len(answer) > _ANSWER_LIMIT_BYTES:
        return None
    try:
        (values,) = json.loads(answer)["data"]
        return {str(name): variant["data"] for name, variant in values.items()}
    except (ValueError, KeyError, TypeError, AttributeError):
        return None
