"""The database, the objects, and the disk below them."""

from __future__ import annotations

import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path

from obstore.exceptions import BaseError
from sqlalchemy.exc import SQLAlchemyError

from coordinator.admin import admins
from coordinator.configuration import Configuration
from coordinator.deployment import open_database, open_objects, require_own, require_restored
from coordinator.doctor.release_metadata import check_release_metadata
from coordinator.enrolment.authority import Authority
from coordinator.home import Home, is_serving
from coordinator.metrics import overdue_s
from coordinator.storage.database import Database
from coordinator.storage.migration import inspect_schema, require_current
from nightshift.host.clock import now_unix_s
from nightshift.host.findings import Finding
from nightshift.host.wording import number_of
from nightshift.protocol.errors import ExitCode, NightshiftError

LITTLE_BYTES = 2 * 1024**3
TOO_LITTLE_BYTES = 256 * 1024**2
OVERDUE_S = 60
_GIB = 1024**3


def check_disk(directory: Path) -> Finding:
    """Room for uploads and releases."""
    free = shutil.disk_usage(directory).free
    value = f"{free / _GIB:.1f} GiB free below {directory}"
    fix = "free space, or move storage.objects to another store"
    if free < TOO_LITTLE_BYTES:
        return Finding.problem("disk", value, fix, ExitCode.NO_SPACE)
    return Finding.warning("disk", value, fix) if free < LITTLE_BYTES else Finding.ok("disk", value)


def check_database(home: Home, configuration: Configuration, authority: Authority) -> Iterator[Finding]:
    """Whether the rows are this coordinator's, in the schema of this build, and whether anybody works on them."""
    database = open_database(home, configuration.storage)
    try:
        schema = inspect_schema(database)
        require_current(schema)
        with database.reading() as session:
            require_own(session, authority)
            require_restored(session)
        yield Finding.ok("database", f"schema version {schema.version}")
        yield _progress(home, database)
        yield _operators(configuration, database)
        yield from check_release_metadata(home, database)
    except NightshiftError as error:
        yield Finding.of_error("database", error)
    except SQLAlchemyError as error:
        yield Finding.problem(
            "database",
            f"cannot be used: {type(error).__name__}",
            "start it, or correct storage.database in coordinator.toml",
            ExitCode.UNREACHABLE,
        )
    finally:
        database.close()


def check_objects(home: Home, configuration: Configuration) -> Finding:
    """Whether an object can be written, read and deleted."""
    key, data = f"doctor/{secrets.token_hex(8)}", secrets.token_bytes(32)
    try:
        objects = open_objects(home, configuration.storage)
        objects.put(key, data)
        same = objects.get(key) == data
        objects.delete(key)
    except NightshiftError as error:
        return Finding.of_error("objects", error)
    except (BaseError, OSError) as error:
        return Finding.problem(
            "objects", f"cannot be used: {error}", "let the service's user write there", ExitCode.NO_SPACE
        )
    where = configuration.storage.objects or str(home.objects_directory)
    if not same:
        return Finding.problem(
            "objects", f"{where} gives back other bytes than it was given", "mend the store", ExitCode.INTERNAL
        )
    return Finding.ok("objects", f"{where} takes and gives")


def _progress(home: Home, database: Database) -> Finding:
    with database.reading() as session:
        late_s = overdue_s(session, now_unix_s())
    if late_s <= OVERDUE_S:
        return Finding.ok("deadlines", "none is overdue")
    fix = "look at its log" if is_serving(home) else "start it: coordinator serve"
    return Finding.warning("deadlines", f"a cohort's step is {late_s} s overdue: nothing advances it", fix)


def _operators(configuration: Configuration, database: Database) -> Finding:
    if not configuration.listen.admin_port:
        return Finding.ok("operators", "no admin listener; commands work in this directory")
    now = now_unix_s()
    with database.reading() as session:
        valid = [row.name for row in admins.list_admins(session) if admins.state_of(row, now) == "valid"]
    if not valid:
        return Finding.warning(
            "operators", "an admin listener, and no valid certificate", "coordinator admin issue NAME -o FILE"
        )
    return Finding.ok("operators", f"{number_of(len(valid), 'valid certificate')}: {', '.join(valid[:5])}")
