"""Rows: one database, short transactions, every one durable when it returns.

`coordinator.storage.engines` has what differs between SQLite and PostgreSQL.
"""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from sqlalchemy import Engine
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.orm import Session

from coordinator.storage.engines import BUSY_TIMEOUT_S, make_engine, readable_error, writing
from nightshift.host.failpoints import failpoint
from nightshift.protocol.errors import OverloadedError


class Database:
    """The coordinator's rows.

    Args:
        url: `sqlite:////absolute/path` or `postgresql://user@host/name`.

    Raises:
        UsageError: the URL is of another database, or none.
    """

    def __init__(self, url: str) -> None:
        self._engine = make_engine(url)
        self._writer = writing(self._engine)
        self._turn = threading.Lock() if self._engine.dialect.name == "sqlite" else None
        self._fence: Callable[[Session], None] | None = None

    @contextmanager
    def transaction(self) -> Iterator[Session]:
        """A block that reads and writes; committed, durably, if it ends without an exception.

        Writers take turns: what the block reads stays true until it is committed. Objects stay readable after the
        block.

        Raises:
            OverloadedError: the database stayed locked for 30 s.
            UnavailableError: the database does not answer. If that was at the commit, it may have happened: whoever
                repeats the block must find out from the rows.
            ResourceError: the disk is full, read-only or failing.
            LeadershipLostError: this database is fenced, and another process leads by now.
        """
        with (
            _readable_errors(),
            self._writers_turn(),
            Session(self._writer, expire_on_commit=False) as session,
            session.begin(),
        ):
            if self._fence is not None:
                self._fence(session)
            yield session
        failpoint("coordinator.rows.committed")

    @contextmanager
    def reading(self) -> Iterator[Session]:
        """A block that only reads, all of it from one snapshot.

        Raises:
            UnavailableError: the database does not answer.
        """
        with _readable_errors(), Session(self._engine, expire_on_commit=False) as session:
            yield session

    def fenced_by(self, fence: Callable[[Session], None]) -> Database:
        """The same database, each of whose transactions begins with a check that may end it (`coordinator.leases`)."""
        fenced = copy.copy(self)
        fenced._fence = fence
        return fenced

    @contextmanager
    def _writers_turn(self) -> Iterator[None]:
        """This process's threads take their turns before they ask SQLite for theirs.

        SQLite has no queue: whoever finds it locked sleeps, for up to 100 ms at a time, and looks again. Eight
        threads that check devices in spent most of their time so. PostgreSQL's advisory lock has a queue.
        """
        if self._turn is None:
            yield
            return
        if not self._turn.acquire(timeout=BUSY_TIMEOUT_S):
            raise OverloadedError("the database is busy; try again in a minute")
        try:
            yield
        finally:
            self._turn.release()

    def close(self) -> None:
        """Close all connections."""
        self._engine.dispose()

    @property
    def engine(self) -> Engine:
        """For schema inspection and copies of whole tables; its transactions only read."""
        return self._engine

    @property
    def writer(self) -> Engine:
        """The same for migrations and restored tables; its transactions take a writer's turn."""
        return self._writer


@contextmanager
def _readable_errors() -> Iterator[None]:
    try:
        yield
    except (DBAPIError, PoolTimeoutError) as error:
        known = readable_error(error)
        if known is None:
            raise
        raise known from error
