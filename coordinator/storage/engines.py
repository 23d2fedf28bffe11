"""How each of the two databases is connected to, begins a transaction, and says that it cannot.

Both give a writer the whole database for the length of a short transaction, and a reader one snapshot:

* SQLite runs in WAL mode with full synchronisation, so that a committed transaction survives a power cut, and with
  foreign keys on. A writer begins with BEGIN IMMEDIATE: it waits for its turn at the start and never fails half way
  because another came first.
* PostgreSQL lets writers take the same turns with an advisory lock that the transaction holds (docs/adr/0015). Under
  READ COMMITTED everything that a writer reads after that is what the writer before it committed, so a rule that is
  right on SQLite is right here. A session that stops in the middle of a transaction, a paused process say, is ended
  by the server, and with it its lock.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import URL, Connection, Engine, create_engine, event, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from nightshift.protocol.errors import NightshiftError, OverloadedError, ResourceError, UnavailableError, UsageError

BUSY_TIMEOUT_S = 30
CONNECT_TIMEOUT_S = 5
IDLE_IN_TRANSACTION_S = 15
"""A writer that says nothing for so long has stopped: its transaction is rolled back and the next one's turn comes."""
STATEMENT_TIMEOUT_S = 120
POOL_CONNECTIONS = 16
POOL_TIMEOUT_S = 30
RETRY_AFTER_OUTAGE_S = 30
_WRITES = "nightshift_writes"
_WRITERS_TURN = 0x6E696768  # the advisory lock of writers: "nigh"; advisory locks are of one database
_SQLITE_NO_ROOM = ("disk is full", "readonly database", "disk i/o error")
_POSTGRESQL_NO_ROOM = "53100"
_POSTGRESQL_LOCK_TIMEOUT = "55P03"
# Classes of SQLSTATE (PostgreSQL's appendix A) that say: not now. Connections, resources, an operator's shutdown, the
# system's own trouble, transactions that lost a race, and transactions that a stand-by refuses or the server gave up.
_POSTGRESQL_NOT_NOW = ("08", "25", "40", "53", "57", "58")


def database_url(text: str) -> URL:
    """A URL as an operator writes it: `sqlite:////absolute/path` or `postgresql://user@host/name`.

    Raises:
        UsageError: no URL, or one of another database. The password is not repeated.
    """
    try:
        url = make_url(text)
    except ArgumentError as error:
        raise UsageError(
            "storage.database is not a URL; write for example postgresql://user@host/nightshift"
        ) from error
    if url.get_backend_name() == "postgresql":
        return url.set(drivername="postgresql+psycopg")
    if url.get_backend_name() != "sqlite":
        raise UsageError(f"storage.database names {url.get_backend_name()}; SQLite and PostgreSQL are supported")
    return url


def make_engine(url: str) -> Engine:
    """An engine whose connections are set up as the module says.

    Raises:
        UsageError: see `database_url`.
    """
    address = database_url(url)
    if address.get_backend_name() == "sqlite":
        engine = create_engine(address, pool_size=POOL_CONNECTIONS, max_overflow=POOL_CONNECTIONS)
        _prepare_sqlite(engine)
    else:
        engine = _postgresql(address)
    return engine


def writing(engine: Engine) -> Engine:
    """The same engine, sharing its connections, whose transactions take a writer's turn."""
    return engine.execution_options(**{_WRITES: True})


def readable_error(error: DBAPIError | PoolTimeoutError) -> NightshiftError | None:
    """What a database's failure means to a caller; None for one that is a mistake of this program."""
    if isinstance(error, PoolTimeoutError):
        return OverloadedError("all connections to the database are in use; try again in a minute")
    text = str(error.orig).strip()
    state = getattr(error.orig, "sqlstate", None)
    if state == _POSTGRESQL_NO_ROOM or any(words in text.lower() for words in _SQLITE_NO_ROOM):
        return ResourceError(f"the database cannot be written: {text}; free space or mend the disk, then try again")
    if state == _POSTGRESQL_LOCK_TIMEOUT or "database is locked" in text:
        return OverloadedError("the database is busy; try again in a minute")
    if error.connection_invalidated or _is_outage(error, state):
        return _unavailable()
    return None


def _is_outage(error: DBAPIError, state: str | None) -> bool:
    if state is not None:
        return state[:2] in _POSTGRESQL_NOT_NOW
    # psycopg raises an OperationalError without a state where no server answered.
    return type(error.orig).__module__.startswith("psycopg") and type(error.orig).__name__ == "OperationalError"


def _unavailable() -> UnavailableError:
    # What the driver says can hold addresses and names of the inside: it is the cause, for the log.
    error = UnavailableError(
        "the coordinator's database does not answer; nothing was acknowledged that is not kept, try again later"
    )
    error.retry_after_s = RETRY_AFTER_OUTAGE_S
    return error


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
        connection.exec_driver_sql("BEGIN IMMEDIATE" if _writes(connection) else "BEGIN")


def _postgresql(url: URL) -> Engine:
    settings = {
        "idle_in_transaction_session_timeout": IDLE_IN_TRANSACTION_S * 1000,
        "lock_timeout": BUSY_TIMEOUT_S * 1000,
        "statement_timeout": STATEMENT_TIMEOUT_S * 1000,
        "synchronous_commit": "on",  # a commit that returns is durable, whatever the server's default
        "application_name": "nightshift-coordinator",
    }
    engine = create_engine(
        url,
        pool_size=POOL_CONNECTIONS,
        max_overflow=POOL_CONNECTIONS,
        pool_timeout=POOL_TIMEOUT_S,
        pool_pre_ping=True,  # after a restart or a fail-over old connections are replaced unnoticed
        connect_args={
            "connect_timeout": CONNECT_TIMEOUT_S,
            "options": " ".join(f"-c {name}={value}" for name, value in settings.items()),
            "keepalives_idle": 30,
            "keepalives_interval": 10,
            "keepalives_count": 3,
        },
    )

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        if _writes(connection):
            connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_WRITERS_TURN})")
        else:
            connection.exec_driver_sql("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")

    return engine


def _writes(connection: Connection) -> bool:
    return bool(connection.get_execution_options().get(_WRITES, False))
