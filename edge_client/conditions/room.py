"""Room on the disk and in the memory."""

from __future__ import annotations

import re
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

from edge_client.conditions.reading import Reading
from edge_client.machine_files import MachineFiles


@dataclass(frozen=True, slots=True)
class FreeDisk:
    """Room on the disk that takes models and training state."""

    directory: Path
    minimum_mb: int

    def read(self) -> Reading:
        """Free MiB on the file system of the directory."""
        source = f"disk of {self.directory}"
        try:
            free_mb = shutil.disk_usage(_existing(self.directory)).free // 2**20
        except OSError as error:
            return Reading.unknown("disk", f"{source}: {error.strerror}")
        reason = ""
        if free_mb < self.minimum_mb:
            reason = f"only {free_mb} MiB are free, {self.minimum_mb} are wanted (conditions.minimum_free_disk_mb)"
        return Reading.judged("disk", f"{free_mb} MiB free", source, reason=reason)


@dataclass(frozen=True, slots=True)
class FreeMemory:
    """Memory that is free, or could be without swapping.

    Never watched during training, which has a ceiling of its own.
    """

    files: MachineFiles
    minimum_mb: int

    def read(self) -> Reading:
        """MemAvailable of /proc/meminfo (proc(5)), or what psutil makes of macOS's counters."""
        source = "psutil.virtual_memory" if sys.platform == "darwin" else "/proc/meminfo MemAvailable"
        free_mb = _available_mb(self.files)
        if free_mb is None:
            return Reading.unknown("memory", source)
        reason = ""
        if free_mb < self.minimum_mb:
            reason = f"only {free_mb} MiB are free, {self.minimum_mb} are wanted (conditions.minimum_free_memory_mb)"
        return Reading.judged("memory", f"{free_mb} MiB free", source, reason=reason)


def _available_mb(files: MachineFiles) -> int | None:
    if sys.platform == "darwin":
        import psutil

        return int(psutil.virtual_memory().available) // 2**20
    match = re.search(r"^MemAvailable:\s+([0-9]{1,15}) kB$", files.text("proc/meminfo"), re.MULTILINE)
    return int(match[1]) // 1024 if match else None


def _existing(directory: Path) -> Path:
    while not directory.exists() and directory != directory.parent:
        directory = directory.parent
    return directory
