"""Power cuts during a file write: what a disk may then show is the old content or the new, whichever moment it was.

No power is cut here. What `write_atomic` asks of the kernel is recorded, and after each step every state is made that
POSIX allows after a crash: what was not fsynced may be there in part, zeroed or not at all, and a name may or may not
lead where the directory said last, unless the directory was fsynced since (Pillai et al., "All File Systems Are Not
Created Equal", OSDI 2014, section 2). The model must find the mistakes that are usual, so it is tried on two of them.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from nightshift.host import files
from nightshift.host.files import write_atomic

OLD, NEW = b"the old content", b"the new content, which is longer than the old one"


@dataclass
class Disk:
    """What was asked of one directory, and what of it is certain."""

    names: dict[str, int]  # as the running system sees them: name -> file
    contents: dict[int, bytes]
    durable_names: dict[str, int] = field(default_factory=dict)
    durable_contents: dict[int, bytes] = field(default_factory=dict)
    crashes: set[bytes | None] = field(default_factory=set)

    def sync_names(self) -> None:
        self.durable_names = dict(self.names)

    def sync_content(self, file: int) -> None:
        self.durable_contents[file] = self.contents[file]

    def crash_now(self, name: str) -> None:
        """Add every content that the name may have if the power goes at this moment."""
        for names in (self.durable_names, self.names):
            file = names.get(name)
            self.crashes |= {None} if file is None else set(self._after_a_crash(file))

    def _after_a_crash(self, file: int) -> Iterator[bytes]:
        certain, asked = self.durable_contents.get(file), self.contents[file]
        if certain == asked:
            yield asked
            return
        for length, zeroed in product((0, len(asked) // 2, len(asked)), (False, True)):
            yield bytes(length) if zeroed else asked[:length]
        if certain is not None:
            yield certain


class Recorder:
    """Stands between `nightshift.host.files` and `os`, does what is asked, and lets the power go after each step."""

    def __init__(self, disk: Disk, directory: Path, name: str) -> None:
        self._disk, self._directory, self._name = disk, directory, name
        self._open: dict[int, int] = {}
        self.skipped: set[str] = set()

    def __getattr__(self, attribute: str) -> Any:
        return getattr(os, attribute)

    def open(self, path: Any, flags: int, mode: int = 0o777) -> int:
        descriptor = os.open(path, flags, mode)
        self._open.pop(descriptor, None)  # the number of a file that was closed
        if Path(path) != self._directory:
            file = max(self._disk.contents) + 1
            self._disk.contents[file] = b""
            self._disk.names[Path(path).name] = file
            self._open[descriptor] = file
        self._crash()
        return descriptor

    def fsync(self, descriptor: int) -> None:
        os.fsync(descriptor)
        file = self._open.get(descriptor)
        if file is not None:
            self._disk.contents[file] = Path(f"/proc/self/fd/{descriptor}").read_bytes()
            self._crash()  # before it is durable
            if "content" not in self.skipped:
                self._disk.sync_content(file)
        elif "directory" not in self.skipped:
            self._disk.sync_names()
        self._crash()

    def replace(self, source: Any, target: Any) -> None:
        os.replace(source, target)
        self._disk.names[Path(target).name] = self._disk.names.pop(Path(source).name)
        self._crash()

    def _crash(self) -> None:
        self._disk.crash_now(self._name)


@pytest.fixture
def crashing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Disk]:
    def write(*skipped: str) -> Disk:
        target = tmp_path / "state"
        target.write_bytes(OLD)
        disk = Disk({"state": 1}, {1: OLD})
        disk.sync_names()
        disk.sync_content(1)
        recorder = Recorder(disk, tmp_path, "state")
        recorder.skipped = set(skipped)
        monkeypatch.setattr(files, "os", recorder)
        write_atomic(target, NEW)
        monkeypatch.setattr(files, "os", os)
        assert target.read_bytes() == NEW
        return disk

    return write


def test_every_power_cut_leaves_the_old_content_or_the_new(crashing: Callable[..., Disk]) -> None:
    assert crashing().crashes == {OLD, NEW}


def test_when_it_returns_the_new_content_stays(crashing: Callable[..., Disk]) -> None:
    disk = crashing()
    disk.crashes.clear()
    disk.crash_now("state")
    assert disk.crashes == {NEW}


def test_the_model_finds_a_file_that_was_not_synced_before_it_was_renamed(crashing: Callable[..., Disk]) -> None:
    assert not crashing("content").crashes <= {OLD, NEW}


def test_the_model_finds_a_rename_that_was_not_made_to_last(crashing: Callable[..., Disk]) -> None:
    disk = crashing("directory")
    disk.crashes.clear()
    disk.crash_now("state")
    assert OLD in disk.crashes, "write_atomic returned, and the old content may come back"
