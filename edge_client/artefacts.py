"""A cache of files addressed by their SHA-256, filled from the coordinator with resume.

A file appears under its hash only when every byte has been checked; until then it
grows in `partial/`, survives interruptions, and is continued from where it ends.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from edge_client.connection import STREAM_DEADLINE_S, Connection
from nightshift.host.failpoints import failpoint
from nightshift.host.files import make_private_directory, require_free_space, resource_error, sync_directory
from nightshift.protocol.errors import HashMismatchError, MalformedError

CHUNK_BYTES_MAX = 256 * 1024
_READ_BYTES = 1 << 20

Progress = Callable[[int, int], None]
"""Told (bytes so far, bytes in all)."""


def no_progress(done_bytes: int, total_bytes: int) -> None:
    """Tell nobody."""


class Artefacts:
    """The files of one cache directory.

    Args:
        directory: created where absent.
    """

    def __init__(self, directory: Path) -> None:
        self._complete = directory / "files"
        self._partial = directory / "partial"

    def find(self, sha256: bytes) -> Path | None:
        """The file with this hash, None if it is not here (yet)."""
        path = self._complete / sha256.hex()
        return path if path.is_file() else None

    def files(self) -> list[Path]:
        """All complete files."""
        return list(self._complete.iterdir()) if self._complete.is_dir() else []

    def size_bytes(self) -> int:
        """Bytes of all complete files."""
        return sum(path.stat().st_size for path in self.files())

    def put(self, path: Path, sha256: bytes) -> Path:
        """Move a checked file of the same disk in under its hash.

        Raises:
            ResourceError: the disk is full or failing.
        """
        make_private_directory(self._complete)
        complete = self._complete / sha256.hex()
        with _mapped(complete):
            with path.open("rb") as file:
                os.fsync(file.fileno())
            os.replace(path, complete)
            sync_directory(self._complete)
        return complete

    def forget(self, sha256: bytes) -> int:
        """Remove a file; returns how many bytes it had, 0 if it was not here."""
        path = self._complete / sha256.hex()
        try:
            size_bytes = path.stat().st_size
        except FileNotFoundError:
            return 0
        path.unlink(missing_ok=True)
        return size_bytes

    def fetch(
        self,
        connection: Connection,
        sha256: bytes,
        *,
        size_bytes: int | None,
        size_limit_bytes: int,
        progress: Progress = no_progress,
    ) -> Path:
        """Return the file with this hash, fetching what is missing of it.

        Args:
            connection: to the coordinator.
            sha256: 32 bytes.
            size_bytes: exact size where it is known.
            size_limit_bytes: largest size that is accepted where it is not.
            progress: told how far it is.

        Raises:
            HashMismatchError: the bytes are others than the hash promises; they were thrown away.
            MalformedError: another size, or chunks out of bounds.
            ResourceError: not enough disk.
            UnreachableError: interrupted; what came is kept.
        """
        found = self.find(sha256)
        if found is not None:
            return found
        for directory in (self._complete, self._partial):
            make_private_directory(directory)
        part = self._partial / sha256.hex()
        with _mapped(part):
            self._fill(connection, sha256, part, size_bytes=size_bytes, limit=size_limit_bytes, progress=progress)
            if file_sha256(part) != sha256:
                part.unlink()
                raise HashMismatchError(
                    f"the coordinator sent other bytes than the hash {sha256.hex()[:16]}… promises; they were deleted"
                )
            failpoint("device.artefact.checked")
            complete = self._complete / sha256.hex()
            os.replace(part, complete)
            sync_directory(self._complete)
        return complete

    def _fill(
        self,
        connection: Connection,
        sha256: bytes,
        part: Path,
        *,
        size_bytes: int | None,
        limit: int,
        progress: Progress,
    ) -> None:
        from nightshift.v1 import device_pb2

        offset = part.stat().st_size if part.exists() else 0
        if size_bytes is not None and offset > size_bytes:
            part.unlink()
            offset = 0
        if size_bytes is not None and offset == size_bytes:
            return
        request = device_pb2.FetchArtefactRequest(sha256=sha256, offset=offset)
        replies = connection.stream(lambda: connection.stub.FetchArtefact(request, timeout=STREAM_DEADLINE_S))
        total: int | None = None
        with part.open("ab") as file:
            try:
                for reply in replies:
                    if total is None:
                        total = _checked_size(reply.size_bytes, size_bytes, limit)
                        require_free_space(part.parent, total - offset)
                    offset += len(reply.data)
                    if len(reply.data) > CHUNK_BYTES_MAX or offset > total:
                        raise MalformedError(f"the coordinator sent more of a file than its {total} bytes")
                    file.write(reply.data)
                    progress(offset, total)
                    failpoint("device.artefact.partial")
            finally:
                file.flush()
                os.fsync(file.fileno())
        if total is None or offset != total:
            raise MalformedError(f"the coordinator ended a file after {offset} of {total or 0} bytes; run again")


def file_sha256(path: Path) -> bytes:
    """SHA-256 of a file, read in pieces."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_READ_BYTES):
            digest.update(chunk)
    return digest.digest()


def _checked_size(claimed: int, expected: int | None, limit: int) -> int:
    if expected is not None and claimed != expected:
        raise MalformedError(f"the coordinator's file has {claimed} bytes, {expected} were announced")
    if not 0 < claimed <= limit:
        raise MalformedError(f"the coordinator's file has {claimed} bytes, at most {limit} are accepted")
    return claimed


@contextmanager
def _mapped(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        known = resource_error(error, path)
        if known is None:
            raise
        raise known from error
