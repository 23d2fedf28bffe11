"""Who leads: of several processes on one database, the one that holds a lease does what time makes due.

Any process answers devices. Deadlines, openings, releases and automatic rounds are the leader's, so that no two do
the same work. A lease is a row: a holder, the moment until which it holds, and a number, the *fencing token*, that
grows whenever the lease changes hands. The holder renews it from a thread of its own, however long its other work
takes.

A lease alone cannot stop a leader that was paused past its end and does not know it. So every transaction of
the leader's work begins by comparing the token with which the work was begun with the row (`fenced`). Writers take
turns (`coordinator.storage.engines`), so the row cannot change until that transaction has ended: what an outdated
leader began is refused, whenever it wakes up. (Leases: Gray and Cheriton 1989; the token is the sequencer of Chubby,
Burrows 2006, section 2.4.)

The times are the database's, not the replicas': PostgreSQL's clock, or on SQLite this machine's.
"""

from __future__ import annotations

import contextlib
import hashlib
import socket
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from coordinator.diagnostics import log
from coordinator.storage.database import Database
from coordinator.storage.rows import Lease
from nightshift.host.failpoints import failpoint
from nightshift.protocol.errors import NightshiftError, UnavailableError

LEADER = "leader"
TERM_S = 10.0
RENEW_EVERY_S = TERM_S / 4


class LeadershipLostError(UnavailableError):  # its reason is its parent's: no device ever hears of it
    """Another process leads by now: what this one began as leader was not done."""


def replica_name(directory: Path) -> str:
    """What a process on a data directory is called; the same after a restart, so that it finds its own lease."""
    place = f"{socket.gethostname()}:{directory.absolute()}"
    return f"{socket.gethostname()[:40]}-{hashlib.sha256(place.encode()).hexdigest()[:12]}"


class Leadership:
    """This process's part in the lease.

    Args:
        database: where the lease is a row.
        holder: this process's name.
        monotonic: seconds that only grow; for tests.
    """

    def __init__(self, database: Database, holder: str, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._database = database
        self._holder = holder
        self._monotonic = monotonic
        self._trying = threading.Lock()
        self._token: int | None = None
        self._asked_s = -RENEW_EVERY_S
        self._began = False

    def token(self) -> int | None:
        """The token of this process's lease, taken or renewed if it is time to; None while another process leads.

        Asks the database at most once in `RENEW_EVERY_S`; what it returns in between may be outdated, which
        `fenced` finds out.

        Raises:
            UnavailableError: the database does not answer; until it does, nobody leads.
        """
        with self._trying:
            now_s = self._monotonic()
            if now_s - self._asked_s >= RENEW_EVERY_S:
                self._ask()
                self._asked_s = now_s
            return self._token

    def _ask(self) -> None:
        before, self._token = self._token, None
        with self._database.transaction() as session:
            token = take(session, self._holder, before, after_a_restart=not self._began)
        failpoint("coordinator.lease.taken")
        self._began = True
        self._token = token
        if token != before:
            log.info("leading" if token is not None else "another process leads", token=token)

    def fenced(self, token: int) -> Database:
        """The database for the leader's work under a token."""
        return self._database.fenced_by(partial(require, token=token))

    def release(self) -> None:
        """Let another process lead at once."""
        with self._trying:
            token, self._token = self._token, None
            self._asked_s = self._monotonic()
        if token is None:
            return
        # Not worth failing for: it runs out by itself.
        with contextlib.suppress(NightshiftError), self._database.transaction() as session:
            row = session.get(Lease, LEADER)
            if row is not None and row.token == token:
                row.until_unix_ms = 0


class Keeper:
    """Renews the lease until it is stopped, whatever else the process is busy with.

    Args:
        leadership: of this process.
    """

    def __init__(self, leadership: Leadership) -> None:
        self._leadership = leadership
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="lease", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End, and let another process lead."""
        self._stop.set()
        self._thread.join()
        self._leadership.release()

    def _run(self) -> None:
        while not self._stop.wait(RENEW_EVERY_S / 2):
            try:
                self._leadership.token()
            except NightshiftError as error:
                log.warning("the lease could not be renewed", reason=error.reason, message=str(error))
            except Exception:  # noqa: BLE001 - the thread must outlive it; the log says what
                log.exception("the lease could not be renewed")


def take(session: Session, holder: str, token: int | None, *, after_a_restart: bool) -> int | None:
    """Renew the lease, or take it if nobody holds it; in the session's transaction.

    Args:
        session: a transaction.
        holder: who asks.
        token: with which it holds the lease, as far as it knows.
        after_a_restart: it has not asked before: a lease in its name is that of a process which is dead.

    Returns:
        The token, or None if another process holds the lease.
    """
    now_ms = _now_unix_ms(session)
    row = session.get(Lease, LEADER)
    if row is None:
        row = Lease(name=LEADER, holder="", token=0, until_unix_ms=0)
        session.add(row)
    mine = token is not None and row.token == token
    if not mine:
        own = after_a_restart and row.holder == holder
        if now_ms < row.until_unix_ms and not own:
            return None
        row.holder, row.token = holder, row.token + 1
    row.until_unix_ms = now_ms + int(TERM_S * 1000)
    return row.token


def require(session: Session, *, token: int) -> None:
    """Refuse a transaction of a leader whose lease another process has taken.

    Raises:
        LeadershipLostError: it has.
    """
    present = session.scalar(select(Lease.token).where(Lease.name == LEADER))
    if present != token:
        raise LeadershipLostError(
            f"another process leads: the lease has token {present}, this work began under {token}"
        )


def _now_unix_ms(session: Session) -> int:
    if session.get_bind().dialect.name == "postgresql":
        seconds = session.scalar(select(func.extract("epoch", func.clock_timestamp())))
        assert seconds is not None, "the server has a clock"
        return int(seconds * 1000)
    return int(time.time() * 1000)
