"""From every released schema to this one, with rows in every table; and a migration that fails leaves the old one."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Boolean, Column, Enum, Integer, LargeBinary, MetaData, Table, func, insert, inspect, select

from coordinator.storage import migration
from coordinator.storage.database import Database
from coordinator.storage.migration import inspect_schema, migrate, require_current
from coordinator.storage.rows import Base
from nightshift.protocol.errors import UsageError

VERSIONS = [script.revision for script in ScriptDirectory.from_config(migration._config()).walk_revisions()]


@pytest.fixture
def empty(url: str) -> Database:
    return Database(url)


def upgrade(database: Database, version: str) -> None:
    config = migration._config()
    with database.writer.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, version)


def some_value(column: Column[Any]) -> Any:
    if isinstance(column.type, Boolean):
        return False
    if isinstance(column.type, Integer):
        return 1
    if isinstance(column.type, LargeBinary):
        return b"1" * 32
    # A state's word, where only some are allowed, is found among those of today.
    present = Base.metadata.tables[column.table.name].columns.get(column.name)
    return present.type.enums[0] if present is not None and isinstance(present.type, Enum) else "1"


def fill(database: Database) -> dict[str, int]:
    """One row in every table as it is there; returns how many each has."""
    tables = MetaData()
    with database.engine.connect() as connection:
        tables.reflect(connection)
    with database.writer.begin() as connection:
        for table in tables.sorted_tables:
            if table.name != "alembic_version":
                connection.execute(insert(table).values({column.name: some_value(column) for column in table.columns}))
    return {table.name: 1 for table in tables.sorted_tables if table.name != "alembic_version"}


def count(database: Database, table: Table) -> int:
    with database.engine.connect() as connection:
        return connection.scalar(select(func.count()).select_from(table)) or 0


@pytest.mark.parametrize("version", VERSIONS)
def test_every_released_schema_comes_up_to_this_one_with_its_rows(empty: Database, version: str) -> None:
    upgrade(empty, version)
    before = fill(empty)
    assert migrate(empty).version == version
    require_current(inspect_schema(empty))
    with empty.engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), Base.metadata) == []
    for name, rows in before.items():
        assert count(empty, Base.metadata.tables[name]) == rows, name
    empty.close()


def test_a_migration_that_fails_half_way_leaves_the_schema_that_was_there(
    empty: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    migrate(empty)
    shutil.copytree(migration._MIGRATIONS, tmp_path / "migrations")
    (tmp_path / "migrations" / "versions" / "v9999.py").write_text(
        f"""from alembic import op
import sqlalchemy as sa
revision = "9999"
down_revision = "{VERSIONS[0]}"
def upgrade():
    op.create_table("half_done", sa.Column("number", sa.Integer()))
    op.drop_table("refusals")
    raise RuntimeError("the power is cut here")
""",
        "utf-8",
    )
    monkeypatch.setattr(migration, "_MIGRATIONS", tmp_path / "migrations")
    with pytest.raises(UsageError, match="run: coordinator migrate"):
        require_current(inspect_schema(empty))
    with pytest.raises(RuntimeError, match="power"):
        migrate(empty)
    monkeypatch.undo()
    require_current(inspect_schema(empty))
    with empty.engine.connect() as connection:
        assert "half_done" not in inspect(connection).get_table_names()
    empty.close()
