"""Objects: whatever is too large for a row, under a key.

Keys are `/`-separated words of [a-z0-9-.]; an object is written whole or not
at all, is durable when `put` returns, and is never changed, only replaced or
deleted. Rows decide what exists: an object that no row names is rubbish
(`coordinator.orphans`). Two stores do this through obstore: a directory of this
machine, and a bucket of S3 (`coordinator.storage.bucket`).
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import obstore
from obstore.exceptions import BaseError
from obstore.store import LocalStore, ObjectStore

from nightshift.host.failpoints import failpoint
from nightshift.host.files import make_private_directory, sync_directory
from nightshift.protocol.errors import NotFoundError, ResourceError, UnavailableError

_KEY = re.compile(r"[a-z0-9][a-z0-9.-]*(/[a-z0-9][a-z0-9.-]*)*")
_MAX_KEY_CHARACTERS = 512
_NO_ROOM = (errno.ENOSPC, errno.EROFS, errno.EDQUOT, errno.EIO)


@dataclass(frozen=True, slots=True)
class Listed:
    """An object as a listing shows it; the time is the store's own clock."""

    key: str
    size_bytes: int
    modified_unix_s: float


class Objects(Protocol):
    """What every object store can do.

    Each call raises `UnavailableError` where the store does not answer, after it was tried several times.
    """

    def put(self, key: str, data: bytes | Path) -> None:
        """Store bytes, or a file's content, durably, replacing what was there.

        Raises:
            ResourceError: the store cannot take it.
        """

    def get(self, key: str) -> bytes:
        """The whole object.

        Raises:
            NotFoundError: no such object.
        """

    def get_range(self, key: str, offset_bytes: int, size_bytes: int) -> bytes:
        """At most `size_bytes` from `offset_bytes` on; fewer where the object ends.

        Raises:
            NotFoundError: no such object.
        """

    def delete(self, key: str) -> None:
        """Remove an object; one that is absent is no error."""

    def list(self, prefix: str) -> Iterator[str]:
        """Keys below `prefix/`, in order."""

    def listed(self, prefix: str) -> Iterator[Listed]:
        """The objects below `prefix/`, in no order and a page at a time: for more than memory should hold."""


class ObstoreObjects:
    """What both stores have in common; how an object becomes durable is each one's own.

    Args:
        store: of obstore.
        place: names the store in messages.
    """

    def __init__(self, store: ObjectStore, place: str) -> None:
        self._store = store
        self._place = place

    def get(self, key: str) -> bytes:
        """See `Objects.get`."""
        require_key(key)
        with self._readable_errors(key):
            return obstore.get(self._store, key).bytes().to_bytes()

    def get_range(self, key: str, offset_bytes: int, size_bytes: int) -> bytes:
        """See `Objects.get_range`."""
        require_key(key)
        with self._readable_errors(key):
            total = obstore.head(self._store, key)["size"]
            end = min(total, offset_bytes + size_bytes)
            if offset_bytes >= end:
                return b""
            return obstore.get_range(self._store, key, start=offset_bytes, end=end).to_bytes()

    def delete(self, key: str) -> None:
        """See `Objects.delete`."""
        require_key(key)
        try:
            with self._readable_errors(key):
                obstore.delete(self._store, key)
        except NotFoundError:
            return
        failpoint("coordinator.object.deleted")

    def list(self, prefix: str) -> Iterator[str]:
        """See `Objects.list`."""
        yield from sorted(each.key for each in self.listed(prefix))

    def listed(self, prefix: str) -> Iterator[Listed]:
        """See `Objects.listed`."""
        with self._readable_errors(prefix):
            for page in obstore.list(self._store, prefix):
                for meta in page:
                    yield Listed(meta["path"], meta["size"], meta["last_modified"].timestamp())

    @contextmanager
    def _readable_errors(self, key: str) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError as error:
            raise NotFoundError(f"object {key} is missing from {self._place}") from error
        except BaseError as error:
            # What the store says can hold addresses of the inside: it is the cause, for the log.
            raise UnavailableError(
                "the coordinator's object store does not answer; nothing was acknowledged that is not kept, "
                "try again later"
            ) from error


class DirectoryObjects(ObstoreObjects):
    """Objects as files below one directory, through obstore's LocalStore.

    LocalStore renames a finished temporary file into place but does not fsync;
    `put` does so before it returns, for the file and every directory above it.
    """

    def __init__(self, directory: Path) -> None:
        make_private_directory(directory)
        self._directory = directory
        super().__init__(LocalStore(directory), str(directory))

    def put(self, key: str, data: bytes | Path) -> None:
        """See `Objects.put`."""
        require_key(key)
        path = self._directory / key
        try:
            obstore.put(self._store, key, data, use_multipart=isinstance(data, Path))
            with path.open("rb") as file:
                os.fsync(file.fileno())
            for directory in path.parents:
                sync_directory(directory)
                if directory == self._directory:
                    break
        except (BaseError, OSError) as error:
            if isinstance(error, OSError) and error.errno not in _NO_ROOM:
                raise
            raise ResourceError(
                f"cannot store {key} below {self._directory}: {error}; free space or mend the disk"
            ) from error
        failpoint("coordinator.object.put")


def require_key(key: str) -> None:
    """Refuse a key that could leave the store.

    Raises:
        ValueError: it is not what the module says.
    """
    if len(key) > _MAX_KEY_CHARACTERS or not _KEY.fullmatch(key):
        raise ValueError(f"{key[:80]!r} is not an object key")
