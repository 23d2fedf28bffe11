"""One coordinator, opened from its directory: the parts that every command and servicer needs."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from sqlalchemy import exists, select
from sqlalchemy.orm import Session

from coordinator import audit
from coordinator.admin.authority import AdminAuthority
from coordinator.compute.backend import Backend, backend
from coordinator.configuration import Configuration, Listen, Storage, configuration_text, read_configuration
from coordinator.enrolment.authority import Authority
from coordinator.home import Home
from coordinator.leases import Leadership, replica_name
from coordinator.locks import KeyedLocks
from coordinator.log import TransparencyLog
from coordinator.storage.bucket import BucketObjects
from coordinator.storage.database import Database
from coordinator.storage.migration import Schema, inspect_schema, migrate, require_current
from coordinator.storage.objects import DirectoryObjects, Objects
from coordinator.storage.rows import LogEntryRow, Setting
from coordinator.together import Together
from nightshift.host.clock import now_unix_s
from nightshift.host.files import make_private_directory, write_atomic
from nightshift.protocol.errors import UsageError
from nightshift.protocol.identity import device_id
from nightshift.protocol.trust import Trust

LOG_ORIGIN = "log_origin"
ROOT_SHA256 = "root_sha256"
RESTORING = "restoring"
"""Of which backup the rows are, until its restore is done (`coordinator.backups.restoring`)."""
COUNTED_TOGETHER = 8
SUMS_IN_MEMORY = 2
"""Cohorts whose sum one process folds or opens at a time: each holds a few times a contribution's size."""


@dataclass(frozen=True, slots=True)
class Deployment:
    """The opened parts; every operation of the core takes what it needs from here.

    Attributes:
        counting: contributions that are complete, by cohort.
        sums: held by whoever folds or opens a cohort's sum.
    """

    home: Home
    configuration: Configuration
    database: Database
    objects: Objects
    authority: Authority
    log: TransparencyLog
    leadership: Leadership
    compute: Backend
    locks: KeyedLocks = field(default_factory=KeyedLocks)
    counting: Together[bytes] = field(default_factory=partial(Together, COUNTED_TOGETHER))
    sums: threading.Semaphore = field(default_factory=partial(threading.BoundedSemaphore, SUMS_IN_MEMORY))

    @property
    def trust(self) -> Trust:
        """What a device of this coordinator believes."""
        return Trust(self.authority.root, self.authority.signing_public_key, self.log.origin)


def initialise(home: Home, listen: Listen, storage: Storage | None = None) -> None:
    """Make keys, certificates, the database and, last of all, the configuration file.

    Args:
        home: the directory.
        listen: where the service will listen.
        storage: where rows and objects shall lie; inside the directory if absent.

    Raises:
        UsageError: the directory or the database already holds a coordinator, or an address is none.
    """
    from coordinator.releases.release_keys import ReleaseKeys
    from coordinator.releases.repository import begin

    storage = storage or Storage()
    if home.configuration_file.exists():
        raise UsageError(
            f"{home.directory} already holds a coordinator; nothing was changed. "
            "Choose another directory with --data, or move this one away"
        )
    make_private_directory(home.directory)
    make_private_directory(home.keys_directory)
    now = now_unix_s()
    authority = Authority.create(home.keys_directory, now)
    authority.server_credentials(listen.addresses, now)
    AdminAuthority.create(home.keys_directory, now)
    database = open_database(home, storage)
    try:
        migrate(database)
        with database.transaction() as session:
            _claim(session, authority)
            begin(session, ReleaseKeys(home.keys_directory), now)
    finally:
        database.close()
    open_objects(home, storage)
    # A database's URL may hold a password.
    mode = 0o600 if storage.database else 0o644
    write_atomic(home.configuration_file, configuration_text(listen, storage).encode(), mode=mode)


@contextmanager
def opened(directory: Path, *, half_restored: bool = False) -> Iterator[Deployment]:
    """Open an initialised coordinator for the length of a block.

    Args:
        directory: its home.
        half_restored: also where a backup was copied and what it must forget is still in it.

    Raises:
        UsageError: not initialised, half restored, or its configuration or keys cannot be used.
    """
    home = Home(directory)
    configuration = read_configuration(home)
    authority = Authority.load(home.keys_directory)
    database = open_database(home, configuration.storage)
    leadership = Leadership(database, replica_name(home.directory))
    try:
        require_current(inspect_schema(database))
        with database.reading() as session:
            require_own(session, authority)
            if not half_restored:
                require_restored(session)
            origin = _setting(session, LOG_ORIGIN)
        yield Deployment(
            home=home,
            configuration=configuration,
            database=database,
            objects=open_objects(home, configuration.storage),
            authority=authority,
            log=TransparencyLog(origin, authority.sign),
            leadership=leadership,
            compute=backend(configuration.compute),
        )
    finally:
        leadership.release()
        database.close()


def bring_up_to_date(home: Home) -> Schema:
    """Migrate the database of an initialised coordinator; returns how its schema was before.

    Raises:
        UsageError: not initialised, or the database is not this coordinator's.
    """
    database = open_database(home, read_configuration(home).storage)
    try:
        before = migrate(database)
        if not before.current:
            with database.transaction() as session:
                audit.record(session, "migrate", before.newest, before=before.version)
        return before
    finally:
        database.close()


def open_database(home: Home, storage: Storage) -> Database:
    """The rows of a coordinator, whatever their schema."""
    return Database(storage.database or f"sqlite:///{home.database_file}")


def open_objects(home: Home, storage: Storage) -> Objects:
    """The objects of a coordinator."""
    if storage.objects:
        return BucketObjects(storage.objects, endpoint=storage.objects_endpoint, region=storage.objects_region)
    return DirectoryObjects(home.objects_directory)


def require_own(session: Session, authority: Authority) -> None:
    """Refuse the rows of another coordinator.

    Raises:
        UsageError: they belong to other keys.
    """
    if _setting(session, ROOT_SHA256) != root_sha256(authority):
        raise UsageError(
            f"the database is that of another coordinator than the keys in {authority.directory}; nothing was changed. "
            "Correct storage.database, or bring back the keys that belong to it"
        )


def require_restored(session: Session) -> None:
    """Refuse rows that still hold what a restore must forget.

    Raises:
        UsageError: a restore was cut off.
    """
    if session.get(Setting, RESTORING) is not None:
        raise UsageError(
            "the restore of a backup was cut off before it was done; run the same `coordinator restore` again"
        )


def _claim(session: Session, authority: Authority) -> None:
    """Say whose the database is. An init that was cut short is simply done again: nothing was served yet.

    Raises:
        UsageError: another coordinator works with it.
    """
    present = session.get(Setting, ROOT_SHA256)
    if present is not None and present.value != root_sha256(authority) and in_use(session):
        raise UsageError(
            "the database holds a coordinator with enrolled devices; nothing was changed. For another process on the "
            "same database copy that coordinator's directory; for a new coordinator name an empty database"
        )
    session.merge(Setting(key=ROOT_SHA256, value=root_sha256(authority)))
    session.merge(Setting(key=LOG_ORIGIN, value=f"nightshift/{device_id(authority.signing_public_key).hex()[:16]}"))


def in_use(session: Session) -> bool:
    """Whether a coordinator has logged anything in this database."""
    return bool(session.scalar(select(exists().where(LogEntryRow.position >= 0))))


def root_sha256(authority: Authority) -> str:
    """Whose database or backup it is, in hex."""
    return hashlib.sha256(authority.root_der).hexdigest()


def _setting(session: Session, key: str) -> str:
    row = session.get(Setting, key)
    if row is None:
        raise UsageError(f"the database lacks the setting {key!r}; restore it from a backup")
    return row.value
