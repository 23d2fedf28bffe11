"""Reading what the kernel shows under /proc and /sys, without hanging and without filling the memory.

Only regular files are read, and of each at most `READ_LIMIT_BYTES`; of a
directory at most `ENTRY_LIMIT` entries. What cannot be read is empty, never an error:
a sensor that is absent is a fact that is unknown.
"""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

READ_LIMIT_BYTES = 2**20  # /proc/cpuinfo of a 512-processor server takes some 750 KiB
ENTRY_LIMIT = 256


@dataclass(frozen=True, slots=True)
class MachineFiles:
    """The machine's files under a root.

    Attributes:
        root: where proc/ and sys/ lie; another one than "/" is a recorded machine.
    """

    root: Path = Path("/")

    def text(self, name: str) -> str:
        """The beginning of a file; empty when it cannot be read."""
        return read_bounded(self.root / name).decode("utf-8", "replace")

    def word(self, name: str) -> str:
        """The content of a sysfs attribute, without its line end."""
        return self.text(name).strip()

    def number(self, name: str) -> int | None:
        """The content of a sysfs attribute that holds one whole number; None if it does not."""
        word = self.word(name)
        return int(word) if len(word) <= 12 and word.removeprefix("-").isdecimal() else None

    def entries(self, name: str) -> list[str] | None:
        """Names in a directory, sorted; None if it cannot be listed."""
        try:
            with os.scandir(self.root / name) as found:
                return sorted(entry.name for entry in islice(found, ENTRY_LIMIT))
        except OSError:
            return None


def read_bounded(path: Path) -> bytes:
    """At most `READ_LIMIT_BYTES` of a regular file; nothing of anything else."""
    try:
        # Not blocking: a FIFO in a file's place must not hold the agent up.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except (OSError, ValueError):
        return b""
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            return b""
        parts: list[bytes] = []
        left = READ_LIMIT_BYTES
        while left and (part := os.read(descriptor, min(left, 65536))):  # proc gives one page at a time
            parts.append(part)
            left -= len(part)
        return b"".join(parts)
    except OSError:  # reading a sensor can fail although opening it did not
        return b""
    finally:
        os.close(descriptor)
