"""Which packages are being used now, and when each was used last.

A process that opens a package holds a shared lock on a small file of its own name until it ends; the
kernel drops the lock however the process ends. Whoever wants to remove the package must get the lock alone.
The file's time is when the package was last opened.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from nightshift.protocol.errors import BusyError

_held: dict[Path, int] = {}
"""Lock file -> descriptor, for as long as this process lives."""


class PackageUse:
    """The lock files of one cache.

    Args:
        directory: of the cache.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory / "in-use"

    def hold(self, package_id: bytes) -> None:
        """Keep a package from being removed until this process ends, and note that it is used now.

        On a cache that cannot be written (a shared, read-only one) this does nothing: nothing can be
        removed from it either.
        """
        path = self._path(package_id)
        with contextlib.suppress(OSError):
            if path not in _held:
                self._directory.mkdir(mode=0o700, exist_ok=True)
                descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
                fcntl.flock(descriptor, fcntl.LOCK_SH)
                _held[path] = descriptor
            os.utime(path)

    def last_used_unix_s(self, package_id: bytes) -> float:
        """When it was opened last; 0.0 if never."""
        try:
            return self._path(package_id).stat().st_mtime
        except FileNotFoundError:
            return 0.0

    def is_held(self, package_id: bytes) -> bool:
        """Whether a process, this one included, uses it now."""
        try:
            with self.alone(package_id):
                return False
        except BusyError:
            return True

    @contextmanager
    def alone(self, package_id: bytes) -> Iterator[None]:
        """Hold the lock alone while the block runs.

        Raises:
            BusyError: a process uses the package.
        """
        path = self._path(package_id)
        if not path.exists():
            yield
            return
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise BusyError(
                    f"model {package_id.hex()[:16]} is in use by a running command; end it, then try again"
                ) from error
            yield
        finally:
            os.close(descriptor)

    def forget(self, package_id: bytes) -> None:
        """Remove the file of a package that is gone; call it inside `alone`."""
        self._path(package_id).unlink(missing_ok=True)

    def _path(self, package_id: bytes) -> Path:
        return self._directory / package_id.hex()
