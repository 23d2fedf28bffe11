"""Rows: one database, short transactions, every one durable when it returns.

SQLite runs in WAL mode with full synchronisation, so that a committed
transaction survives a power cut, and with foreign keys on. A writing
transaction begins with BEGIN IMMEDIATE: it waits for its turn at the start
and never fails half way because another writer came first.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from alembic import command
from alembic.config import Config
from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

from nightshift.protocol.errors import OverloadedError, ResourceError

BUSY_TIMEOUT_S = 30
POOL_CONNECTIONS = 16
_MIGRATIONS = Path(__file__).parent / "migrations"
_NO_ROOM = ("disk is full", "readonly database", "disk i/o error")


class Database:
    """The coordinator's rows.

    Args:
        url: SQLAlchemy URL, `sqlite:////absolute/path`; the schema also suits PostgreSQL.
    """

    def __init__(self, url: str) -> None:
        self._engine = create_engine(url, pool_size=POOL_CONNECTIONS, max_overflow=POOL_CONNECTIONS)
        if self._engine.dialect.name == "sqlite":
            _prepare_sqlite(self._engine)
        # Shares the pool; marks its transactions as writing ones.
        self._writer = self._engine.execution_options(nightshift_writes=True)

    @contextmanager
    def transaction(self) -> Iterator[Session]:
        """A block that reads and writes; committed, durably, if it ends without an exception.

        Objects stay readable after the block.

        Raises:
            OverloadedError: the database stayed locked for 30 s.
            ResourceError: the disk is full, read-only or failing.
        """
        with _readable_errors(), Session(self._writer, expire_on_commit=False) as session, session.begin():
            yield session

    @contextmanager
    def reading(self) -> Iterator[Session]:
        """A block that only reads, all of it from one snapshot."""
        with _readable_errors(), Session(self._engine, expire_on_commit=False) as session:
            yield session

    def migrate(self) -> None:
        """Bring the schema to the newest version (Alembic), creating it in an empty database."""
        config = Config()
        config.set_main_option("script_location", str(_MIGRATIONS))
        with self._writer.begin() as connection:
            config.attributes["connection"] = connection
            command.upgrade(config, "head")

    def close(self) -> None:
        """Close all connections."""
        self._engine.dispose()

    @property
    def engine(self) -> Engine:
        """For schema inspection in tests."""
        return self._engine


def _prepare_sqlite(engine: Engine) -> None:
    @event.listens_for(engine, "connect")
    def configure(connection: Any, _record: object) -> None:
        connection.isolation_level = None  # the driver must not begin transactions of its own
        for pragma in (
            f"busy_timeout = {BUSY_TIMEOUT_S * 1000}",
            "journal_mode = WAL",
            "synchronous = FULL",
            "foreign_keys = ON",
        ):
            connection.execute(f"PRAGMA {pragma}")

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        writes = connection.get_execution_options().get("nightshift_writes", False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


@contextmanager
def _readable_errors() -> Iterator[None]:
    try:
        yield
    except OperationalError as error:
        text = str(error.orig).lower()
        if any(words in text for words in _NO_ROOM):
            raise ResourceError(
                f"the database cannot be written: {error.orig}; free space or mend the disk, then try again"
            ) from error
        if "locked" in text:
            raise OverloadedError("the database is busy; try again in a minute") from error
        raise
