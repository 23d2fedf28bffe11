"""Release metadata in the rows of each database."""

from __future__ import annotations

from pathlib import Path

from sqlalchemy.orm import Session
from tuf.api.metadata import Targets

from coordinator.releases import repository
from coordinator.releases.release_keys import ReleaseKeys
from coordinator.releases.repository import KEPT_VERSIONS, latest
from coordinator.storage.database import Database
from nightshift.protocol.errors import NotFoundError
from nightshift.protocol.targets import Role

NOW_UNIX_S = 1_800_000_000


def test_metadata_is_kept_found_and_forgotten_by_role_and_version(database: Database, tmp_path: Path) -> None:
    keys = ReleaseKeys(tmp_path)
    with database.transaction() as session:
        repository.begin(session, keys, NOW_UNIX_S)
    with database.reading() as session:
        first = repository.announcement(session)
        assert first.version == NOW_UNIX_S
        root, targets = (repository.document(session, role, 1) for role in ("root", "targets"))
    for place in range(KEPT_VERSIONS + 2):
        with database.transaction() as session:
            changed = latest(session, Role.PACKAGES, Targets)
            repository._publish(session, keys, {Role.PACKAGES: changed}, NOW_UNIX_S + place // 2)
    with database.reading() as session:
        newest = repository.announcement(session)
        # The clock stood still every other time: then the version is the last one plus one.
        assert newest.version == NOW_UNIX_S + KEPT_VERSIONS + 2
        assert newest.sha256 != first.sha256
        kept = {
            role: [version for version in range(NOW_UNIX_S, newest.version + 1) if _is_there(session, role, version)]
            for role in ("packages", "snapshot", "timestamp")
        }
        assert {role: len(versions) for role, versions in kept.items()} == dict.fromkeys(kept, KEPT_VERSIONS)
        assert repository.document(session, "root", 1) == root
        assert repository.document(session, "targets", 1) == targets


def _is_there(session: Session, role: str, version: int) -> bool:
    try:
        repository.document(session, role, version)
    except NotFoundError:
        return False
    return True
