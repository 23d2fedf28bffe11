"""Artefacts: files that devices fetch by their SHA-256.

The object is put first and the row added after, so that a row always has its
object. Equal content is stored once.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

from sqlalchemy.orm import Session

from coordinator.storage.objects import Objects
from coordinator.storage.rows import Artefact
from nightshift.host.rpc import CHUNK_BYTES
from nightshift.protocol.errors import HashMismatchError, NotFoundError


def artefact_key(sha256: bytes) -> str:
    """The object key of an artefact."""
    return f"artefacts/{sha256.hex()}"


def put_bytes(objects: Objects, data: bytes) -> bytes:
    """Store content that has no row yet; returns its SHA-256."""
    digest = hashlib.sha256(data).digest()
    objects.put(artefact_key(digest), data)
    return digest


def put_file(objects: Objects, path: Path, expected_sha256: bytes) -> None:
    """Store a file's content that has no row yet.

    Raises:
        HashMismatchError: the file is not what its manifest says.
    """
    if sha256_file(path) != expected_sha256:
        raise HashMismatchError(f"{path} does not have the hash that its manifest states; make the package again")
    objects.put(artefact_key(expected_sha256), path)


def record(session: Session, *, sha256: bytes, size_bytes: int, kind: str) -> None:
    """Add the row of a stored artefact, unless it is there already."""
    if session.get(Artefact, sha256) is None:
        session.add(Artefact(sha256=sha256, size_bytes=size_bytes, object_key=artefact_key(sha256), kind=kind))
        session.flush()


def find(session: Session, sha256: bytes) -> Artefact:
    """The row of an artefact.

    Raises:
        NotFoundError: no such artefact here.
    """
    row = session.get(Artefact, sha256)
    if row is None:
        raise NotFoundError(
            f"this coordinator has no artefact {sha256.hex()[:16]}…; check in again for what is current"
        )
    return row


def chunks(objects: Objects, artefact: Artefact, offset_bytes: int) -> Iterator[bytes]:
    """The content from an offset on, in pieces of at most 256 KiB."""
    while offset_bytes < artefact.size_bytes:
        block = objects.get_range(artefact.object_key, offset_bytes, 4 * CHUNK_BYTES)
        if not block:
            raise NotFoundError(f"artefact {artefact.sha256.hex()[:16]}… is shorter here than it should be")
        for start in range(0, len(block), CHUNK_BYTES):
            yield block[start : start + CHUNK_BYTES]
        offset_bytes += len(block)


def sha256_file(path: Path) -> bytes:
    """SHA-256 of a file, read in pieces."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").digest()
