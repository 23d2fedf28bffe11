"""Files that survive a power cut, keys that only their owner reads, one run at a time.

A reader of a file written here sees the old content or the new, never a torn
one: a temporary file in the same directory is written, fsynced and renamed
over the target, and the directory is fsynced so that the rename itself lasts.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import secrets
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from nightshift.protocol.errors import BusyError, ResourceError, UsageError

_TEMPORARY = re.compile(r"\..+\.[0-9a-f]{16}\.tmp")
_NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.EFBIG}


def resource_error(error: OSError, path: Path) -> ResourceError | None:
    """The error to raise when a disk is full, read-only or broken; None for any other failure."""
    if error.errno not in _NO_ROOM:
        return None
    return ResourceError(
        f"cannot write {path}: {error.strerror}; nothing was lost. Free space or mend the disk, then run again"
    )


def sync_directory(directory: Path) -> None:
    """Make renames and new names in a directory durable."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_atomic(path: Path, data: bytes, *, mode: int = 0o600) -> None:
    """Replace a file's content; a crash leaves the old content or the new.

    Raises:
        ResourceError: the disk is full, read-only or failing. The old content stays.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}.tmp")
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
            sync_directory(path.parent)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
    except OSError as error:
        known = resource_error(error, path)
        if known is not None:
            raise known from error
        raise


def remove_temporaries(directory: Path) -> int:
    """Delete what a killed `write_atomic` left in a directory; returns how many files.

    Only for the holder of the directory's lock: another process's write would lose its file.
    """
    stale = [entry for entry in directory.iterdir() if _TEMPORARY.fullmatch(entry.name)]
    for entry in stale:
        entry.unlink(missing_ok=True)
    return len(stale)


def read_private(path: Path) -> bytes:
    """Read a key file, refusing one that others can read.

    Raises:
        UsageError: the file is absent or unreadable, or its mode lets group or others in.
    """
    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode & 0o777
            if mode & 0o077:
                raise UsageError(f"{path} has mode {mode:04o}, expected 0600; run: chmod 600 {path}")
            return file.read()
    except FileNotFoundError as error:
        raise UsageError(f"{path} is missing; it holds a private key and cannot be made again") from error
    except OSError as error:
        raise UsageError(f"{path} holds a private key and cannot be read: {error.strerror}") from error


def make_private_directory(path: Path) -> None:
    """Create a directory, and those above it, readable by its owner only."""
    try:
        # pathlib's `parents=True` would make the directories above with the default mode.
        for directory in reversed([path, *(above for above in path.parents if not above.exists())]):
            directory.mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        known = resource_error(error, path)
        raise known or UsageError(f"cannot create {path}: {error.strerror}") from error


@contextmanager
def exclusive_lock(path: Path) -> Iterator[None]:
    """Hold a lock file for the length of a block; the kernel drops it if the process dies.

    Raises:
        BusyError: another process holds it.
        ResourceError: the disk is full, read-only or failing.
        UsageError: the file cannot be opened.
    """
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise resource_error(error, path) or UsageError(f"cannot lock {path}: {error.strerror}") from error
    try:
        if not _locked_exclusively(descriptor):
            raise BusyError(f"another run holds {path}; wait for it to end, or stop it")
        yield
    finally:
        os.close(descriptor)


def _locked_exclusively(descriptor: int) -> bool:
    # More than once, for somebody may be looking (`is_locked`) in this very instant.
    for pause_s in (0.02, 0.1, 0.0):
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(pause_s)
        else:
            return True
    return False


def is_locked(path: Path) -> bool:
    """Whether a process is in a block of `exclusive_lock` now; for showing only, a moment later it may be otherwise."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        # Shared and given back at once: several may look, and a run that begins in this instant tries again.
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def require_free_space(directory: Path, size_bytes: int, *, reserve_bytes: int = 16 * 2**20) -> None:
    """Check before a download or a training run that the disk has room.

    Args:
        directory: an existing directory on the disk in question.
        size_bytes: what will be written.
        reserve_bytes: what must stay free for the rest of the machine.

    Raises:
        ResourceError: less is free than both together.
    """
    free = shutil.disk_usage(directory).free
    if free < size_bytes + reserve_bytes:
        raise ResourceError(
            f"{directory} has {free / 2**20:.0f} MiB free, {(size_bytes + reserve_bytes) / 2**20:.0f} MiB are "
            "needed; free some space or point the cache to another disk"
        )
