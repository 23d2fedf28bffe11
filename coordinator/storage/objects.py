"""Objects: whatever is too large for a row, under a key.

Keys are `/`-separated words of [a-z0-9-.]; an object is written whole or not
at all, is durable when `put` returns, and is never changed, only replaced or
deleted. Rows decide what exists: an object that no row names is rubbish.
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import obstore
from obstore.exceptions import BaseError
from obstore.store import LocalStore

from nightshift.host.files import make_private_directory, sync_directory
from nightshift.protocol.errors import NotFoundError, ResourceError

_KEY = re.compile(r"[a-z0-9][a-z0-9.-]*(/[a-z0-9][a-z0-9.-]*)*")
_MAX_KEY_CHARACTERS = 512


class Objects(Protocol):
    """What every object store can do."""

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


class DirectoryObjects:
    """Objects as files below one directory, through obstore's LocalStore.

    LocalStore renames a finished temporary file into place but does not fsync;
    `put` does so before it returns, for the file and every directory above it.
    """

    def __init__(self, directory: Path) -> None:
        make_private_directory(directory)
        self._directory = directory
        self._store = LocalStore(directory)

    def put(self, key: str, data: bytes | Path) -> None:
        """See `Objects.put`."""
        path = self._path(key)
        try:
            obstore.put(self._store, key, data, use_multipart=isinstance(data, Path))
            with path.open("rb") as file:
                os.fsync(file.fileno())
            for directory in path.parents:
                sync_directory(directory)
                if directory == self._directory:
                    break
        except (BaseError, OSError) as error:
            if isinstance(error, OSError) and error.errno not in (errno.ENOSPC, errno.EROFS, errno.EDQUOT, errno.EIO):
                raise
            raise ResourceError(
                f"cannot store {key} below {self._directory}: {error}; free space or mend the disk"
            ) from error

    def get(self, key: str) -> bytes:
        """See `Objects.get`."""
        self._path(key)
        try:
            return obstore.get(self._store, key).bytes().to_bytes()
        except FileNotFoundError as error:
            raise NotFoundError(f"object {key} is missing from {self._directory}") from error

    def get_range(self, key: str, offset_bytes: int, size_bytes: int) -> bytes:
        """See `Objects.get_range`."""
        self._path(key)
        try:
            total = obstore.head(self._store, key)["size"]
            end = min(total, offset_bytes + size_bytes)
            if offset_bytes >= end:
                return b""
            return obstore.get_range(self._store, key, start=offset_bytes, end=end).to_bytes()
        except FileNotFoundError as error:
            raise NotFoundError(f"object {key} is missing from {self._directory}") from error

    def delete(self, key: str) -> None:
        """See `Objects.delete`."""
        self._path(key)
        try:
            obstore.delete(self._store, key)
        except FileNotFoundError:
            return

    def list(self, prefix: str) -> Iterator[str]:
        """See `Objects.list`."""
        keys = [meta["path"] for batch in obstore.list(self._store, prefix) for meta in batch]
        yield from sorted(keys)

    def _path(self, key: str) -> Path:
        if len(key) > _MAX_KEY_CHARACTERS or not _KEY.fullmatch(key):
            raise ValueError(f"{key[:80]!r} is not an object key")
        return self._directory / key
