"""A backup brought back, into stores that hold nothing yet.

What happened after the backup is forgotten here, and remembered by devices. So that nothing contradicts it,

* rounds that were open end without a sum: their sets may have been frozen, and their sums opened, since;
* unspent prekeys are dropped: they may have been spent since. Devices publish new ones;
* nonces of check-ins are dropped, or every device that has checked in since would look like a clone;
* every task starts again from its newest adapter under a new number: devices may have contributed to it since, and
  contribute to a release once (docs/protocol.md, "Starting again").

A log that was longer than the backup's cannot be made good: devices that have seen more of it refuse this coordinator
until they join again (docs/operations.md).

The rows come in one transaction and are marked as half restored; another one forgets, and takes the mark away. Until
then nothing opens them but the same restore again. Where the old coordinator was stopped before the backup was made,
and never ran again, nothing was forgotten and none of this is needed: `nothing_happened_since`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from sqlalchemy import delete, insert, update
from sqlalchemy.orm import Session

from coordinator import audit, orphans
from coordinator.backups.manifest import CONFIGURATION, OBJECTS, ROWS, Manifest
from coordinator.backups.rows import copy_rows
from coordinator.backups.taking import copy_objects, opened_copy
from coordinator.configuration import read_configuration
from coordinator.deployment import RESTORING, Deployment, open_database, open_objects, opened, root_sha256
from coordinator.enrolment.authority import Authority
from coordinator.home import Home
from coordinator.log import verify_rows
from coordinator.releases.decisions import start_again
from coordinator.releases.publication import newest_release
from coordinator.rounds.states import Event
from coordinator.rounds.tasks import list_tasks
from coordinator.rounds.transitions import unfinished, void
from coordinator.storage.database import Database
from coordinator.storage.migration import inspect_schema, migrate, require_current
from coordinator.storage.objects import DirectoryObjects
from coordinator.storage.rows import Device, PrekeyRow, Setting
from nightshift.host.clock import now_unix_s
from nightshift.host.files import write_atomic
from nightshift.protocol.errors import HashMismatchError, NotFoundError, UsageError

REASON = "the coordinator was restored from a backup"


@dataclass(frozen=True, slots=True)
class Restored:
    """What became of a backup.

    Attributes:
        manifest: of the backup.
        ended: cohorts that were open in it and are void now.
        prekeys_dropped: unspent ones.
        tasks: that start again from their newest adapter.
    """

    manifest: Manifest
    ended: int = 0
    prekeys_dropped: int = 0
    tasks: tuple[str, ...] = ()


def restore(backup: Path, home: Home, *, nothing_happened_since: bool) -> Restored:
    """Bring a backup back.

    Args:
        backup: its directory.
        home: of the coordinator: with its keys; with `coordinator.toml`, or that of the backup is taken. The database
            and the object store that it names hold nothing.
        nothing_happened_since: go on with open rounds.

    Raises:
        UsageError: no complete backup, keys of another coordinator, or the database holds something.
        HashMismatchError, LogInconsistentError: the backup is damaged; nothing is served from it.
        NotFoundError: the backup lacks an object.
    """
    manifest = Manifest.read(backup)
    authority = Authority.load(home.keys_directory)
    if root_sha256(authority) != manifest.root_sha256:
        raise UsageError(f"{backup} is the backup of another coordinator than the keys in {home.keys_directory} are of")
    copied_configuration = not home.configuration_file.exists()
    if copied_configuration:
        write_atomic(home.configuration_file, (backup / CONFIGURATION).read_bytes(), mode=0o600)
    try:
        if not _is_copied(home, manifest):
            _copy_back(backup, home, manifest)
    except BaseException:
        if copied_configuration:
            home.configuration_file.unlink()
        raise
    with opened(home.directory, half_restored=True) as deployment, deployment.database.transaction() as session:
        session.delete(session.get_one(Setting, RESTORING))
        done = Restored(manifest)
        if not nothing_happened_since:
            done = _forget_what_may_have_changed(session, deployment, done)
        audit.record(
            session,
            "restore",
            str(backup),
            made_unix_s=manifest.made_unix_s,
            log_size=manifest.log_size,
            ended=done.ended,
            nothing_happened_since=nothing_happened_since,
        )
    return done


def _copy_back(backup: Path, home: Home, manifest: Manifest) -> None:
    storage = read_configuration(home).storage
    database = open_database(home, storage)
    try:
        _require_empty(database)
        with opened_copy(backup / ROWS) as rows:
            # A backup of an older build becomes one of this build; the file is the operator's copy, so it may change.
            migrate(rows)
            require_current(inspect_schema(rows))
            with rows.reading() as source:
                _require_whole(source, manifest)
                missing = copy_objects(
                    DirectoryObjects(backup / OBJECTS), open_objects(home, storage), set(orphans.referenced(source))
                )
                if missing:
                    raise NotFoundError(f"the backup lacks {missing} of its objects; take another one")
                migrate(database)
                # Last, and in one transaction: until it is committed there is no coordinator here.
                with database.writer.begin() as target:
                    copy_rows(source, target)
                    target.execute(insert(Setting).values(key=RESTORING, value=_name(manifest)))
    finally:
        database.close()


def _is_copied(home: Home, manifest: Manifest) -> bool:
    """Whether an earlier restore of this backup was cut off when its rows were there."""
    database = open_database(home, read_configuration(home).storage)
    try:
        if not inspect_schema(database).current:
            return False
        with database.reading() as session:
            found = session.get(Setting, RESTORING)
            return found is not None and found.value == _name(manifest)
    finally:
        database.close()


def _name(manifest: Manifest) -> str:
    """What one backup has and another has not."""
    return f"{manifest.made_unix_s}-{manifest.rows}-{manifest.objects}-{manifest.log_root}"


def _require_empty(database: Database) -> None:
    schema = inspect_schema(database)
    if schema.empty:
        return
    if not schema.current:
        require_current(schema)
    with database.reading() as session:
        if session.connection().exec_driver_sql("SELECT count(*) FROM settings").scalar() == 0:
            return  # a restore that was cut before its rows were there
    raise UsageError(
        "the database already holds a coordinator; nothing was changed. Name an empty one in storage.database, "
        "or move the old one away"
    )


def _require_whole(source: Session, manifest: Manifest) -> None:
    size, root = verify_rows(source)
    if (size, root.hex()) != (manifest.log_size, manifest.log_root):
        raise HashMismatchError("the backup's log is not the one that its manifest states; take another backup")


def _forget_what_may_have_changed(session: Session, deployment: Deployment, restored: Restored) -> Restored:
    now = now_unix_s()
    open_cohorts = unfinished(session)
    for cohort in open_cohorts:
        void(session, deployment, cohort, Event.ABORT, reason=REASON, now_unix_s=now)
    session.execute(update(Device).values(nonce=None, nonce_before=None))
    dropped = session.execute(delete(PrekeyRow).where(PrekeyRow.spent_on.is_(None)).returning(PrekeyRow.serial)).all()
    tasks = tuple(task.name for task in list_tasks(session))
    for task in tasks:
        parent = newest_release(session, task)
        start_again(session, deployment, parent, reason=f"{REASON}; later rounds are lost", now_unix_s=now)
    return replace(restored, ended=len(open_cohorts), prekeys_dropped=len(dropped), tasks=tasks)
