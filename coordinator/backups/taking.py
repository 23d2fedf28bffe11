"""A backup of rows and objects while the service goes on.

The rows are one snapshot. Objects are copied after it, and one that the snapshot names may be gone by then: a
running sum lasts until the next contribution is counted. Then the rows are read again, and only what is new is copied.
Private keys are not part of it (`coordinator.backups.key_archive`).
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

from coordinator import audit, orphans
from coordinator.backups.manifest import CONFIGURATION, MANIFEST, OBJECTS, ROWS, Manifest
from coordinator.backups.rows import copy_rows
from coordinator.deployment import Deployment, root_sha256
from coordinator.log import verify_rows
from coordinator.storage.artefacts import artefact_key
from coordinator.storage.database import Database
from coordinator.storage.migration import inspect_schema, migrate
from coordinator.storage.objects import DirectoryObjects, Objects
from nightshift.host.clock import now_unix_s
from nightshift.host.files import make_private_directory, write_atomic
from nightshift.protocol.errors import HashMismatchError, NotFoundError, OverloadedError, UsageError

ATTEMPTS = 20
PIECE_BYTES = 4 << 20


def take(deployment: Deployment, directory: Path) -> Manifest:
    """Make a backup.

    Args:
        deployment: of which; another process may serve it.
        directory: to be made; a backup that was cut may be there and is made anew.

    Raises:
        UsageError: the directory holds something else.
        OverloadedError: objects changed faster than they were copied, every time.
        HashMismatchError: a stored file does not have its hash; the backup is not complete.
        LogInconsistentError: the log's rows are damaged; the backup is not complete.
    """
    _make_room(directory)
    objects = DirectoryObjects(directory / OBJECTS)
    for _ in range(ATTEMPTS):
        made_unix_s = now_unix_s()
        rows = _snapshot(deployment, directory / ROWS)
        with opened_copy(directory / ROWS) as copied, copied.reading() as session:
            named = set(orphans.referenced(session))
            log_size, log_root = verify_rows(session)
            version = inspect_schema(copied).version
        if copy_objects(deployment.objects, objects, named) == 0:
            break
    else:
        raise OverloadedError("the coordinator is too busy for a backup: its objects change while they are copied")
    _forget_others(objects, named)
    if deployment.home.configuration_file.exists():
        write_atomic(directory / CONFIGURATION, deployment.home.configuration_file.read_bytes(), mode=0o600)
    manifest = Manifest(
        made_unix_s=made_unix_s,
        schema_version=version,
        root_sha256=root_sha256(deployment.authority),
        log_size=log_size,
        log_root=log_root.hex(),
        rows=rows,
        objects=len(named),
        objects_bytes=sum(each.size_bytes for prefix in orphans.PREFIXES for each in objects.listed(prefix)),
    )
    with deployment.database.transaction() as session:
        audit.record(session, "backup", str(directory), log_size=log_size, objects=len(named))
    manifest.write(directory)
    return manifest


@contextmanager
def opened_copy(file: Path) -> Iterator[Database]:
    """The rows of a backup."""
    database = Database(f"sqlite:///{file}")
    try:
        yield database
    finally:
        database.close()


def copy_objects(source: Objects, target: Objects, keys: Collection[str]) -> int:
    """Copy the objects that are not there yet; returns how many were not to be found.

    Raises:
        HashMismatchError: a file that devices fetch by its hash has another one.
    """
    present = {each.key for prefix in orphans.PREFIXES for each in target.listed(prefix)}
    missing = 0
    with tempfile.TemporaryDirectory() as scratch:
        for key in sorted(set(keys) - present):
            try:
                target.put(key, _fetched(source, key, Path(scratch) / "object"))
            except NotFoundError:
                missing += 1
    return missing


def _fetched(source: Objects, key: str, file: Path) -> Path:
    digest, offset_bytes = hashlib.sha256(), 0
    with file.open("wb") as opened:
        while piece := source.get_range(key, offset_bytes, PIECE_BYTES):
            opened.write(piece)
            digest.update(piece)
            offset_bytes += len(piece)
    if key.startswith("artefacts/") and key != artefact_key(digest.digest()):
        raise HashMismatchError(f"the stored object {key} does not have its hash; look what befell the object store")
    return file


def _snapshot(deployment: Deployment, file: Path) -> int:
    for leftover in (file, file.with_name(f"{file.name}-wal"), file.with_name(f"{file.name}-shm")):
        leftover.unlink(missing_ok=True)
    with opened_copy(file) as copied:
        migrate(copied)
        with deployment.database.reading() as session, copied.writer.begin() as connection:
            return copy_rows(session, connection)


def _forget_others(objects: DirectoryObjects, named: Collection[str]) -> None:
    for prefix in orphans.PREFIXES:
        for key in set(objects.list(prefix)) - set(named):
            objects.delete(key)


def _make_room(directory: Path) -> None:
    known = {MANIFEST, ROWS, f"{ROWS}-wal", f"{ROWS}-shm", OBJECTS, CONFIGURATION}
    if directory.exists() and not {entry.name for entry in directory.iterdir()} <= known - {MANIFEST}:
        raise UsageError(f"{directory} is not empty; name a directory that does not exist yet")
    make_private_directory(directory)
