"""The schema's versions: brought up to date on the operator's word, and looked at before anything is served.

Nothing but `coordinator init` and `coordinator migrate` changes a schema, so that several processes on one database
are brought up to date when the operator decides, and a program never alters a database that is not its own.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import inspect

from coordinator.storage.database import Database
from coordinator.storage.rows import Base
from nightshift.protocol.errors import UsageError

_MIGRATIONS = Path(__file__).parent / "migrations"
_VERSION_TABLE = "alembic_version"


@dataclass(frozen=True, slots=True)
class Schema:
    """What a database holds beside what this build needs.

    Attributes:
        version: that the database says it has; empty for none.
        newest: that this build needs.
        known: this build knows the way from `version` to `newest`.
        foreign: other tables are there, and no version.
        missing: tables and `table.column`s of this build that are not there though the version says so.
    """

    version: str
    newest: str
    known: bool
    foreign: bool
    missing: tuple[str, ...]

    @property
    def empty(self) -> bool:
        """Nothing is there yet."""
        return not self.version and not self.foreign

    @property
    def current(self) -> bool:
        """This build can work with it."""
        return self.version == self.newest and not self.missing


def migrate(database: Database) -> Schema:
    """Bring the schema to the newest version in one transaction, creating it in an empty database.

    Returns:
        How it was before.

    Raises:
        UsageError: the database is of something else, or of a newer build.
    """
    before = inspect_schema(database)
    if not before.empty and (before.foreign or not before.known or before.missing):
        require_current(before)
    config = _config()
    with database.writer.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
    return before


def inspect_schema(database: Database) -> Schema:
    """Look; changes nothing."""
    scripts = ScriptDirectory.from_config(_config())
    newest = scripts.get_current_head()
    assert newest is not None, "there is a first version"
    with database.reading() as session:
        connection = session.connection()
        present = inspect(connection)
        tables = set(present.get_table_names())
        version = MigrationContext.configure(connection).get_current_revision() or ""
        missing: list[str] = []
        if version == newest:
            for table in Base.metadata.sorted_tables:
                if table.name not in tables:
                    missing.append(table.name)
                    continue
                columns = {column["name"] for column in present.get_columns(table.name)}
                missing += [f"{table.name}.{column.name}" for column in table.columns if column.name not in columns]
    return Schema(
        version=version,
        newest=newest,
        known=version in {script.revision for script in scripts.walk_revisions()},
        foreign=not version and bool(tables - {_VERSION_TABLE}),
        missing=tuple(missing),
    )


def require_current(schema: Schema) -> None:
    """Refuse a database that this build cannot work with.

    Raises:
        UsageError: empty, foreign, older, newer, or half of it is missing; each with its remedy.
    """
    if schema.foreign:
        raise UsageError(
            "the database holds tables that are no coordinator's; nothing was changed. "
            "Name an empty database in storage.database, or the coordinator's own"
        )
    if not schema.version:
        raise UsageError("the database is empty; run: coordinator migrate, or restore it: coordinator restore --help")
    if not schema.known:
        raise UsageError(
            f"the database has schema version {schema.version}, this build knows versions up to {schema.newest}; "
            "install the newer build that made it"
        )
    if schema.version != schema.newest:
        raise UsageError(
            f"the database has schema version {schema.version}, this build needs {schema.newest}; "
            "make a backup (coordinator backup), then run: coordinator migrate"
        )
    if schema.missing:
        raise UsageError(
            f"the database says it has schema version {schema.version}, but lacks {', '.join(schema.missing[:5])}: "
            "a migration or a restore was cut; restore it from a backup (coordinator restore --help)"
        )


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS))
    return config
