"""The database goes away, at every moment that matters: UNAVAILABLE with RetryInfo, and afterwards the same night."""

from __future__ import annotations

import resource
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from sqlalchemy import Connection, event, text
from sqlalchemy.orm import Session

from coordinator.configuration import Storage
from coordinator.storage import engines
from coordinator.storage.database import Database
from coordinator.storage.migration import migrate
from coordinator.storage.rows import Setting
from nightshift.protocol.errors import UnavailableError
from nightshift.v1 import device_pb2
from tests.support.fleets import Snapshots, wait_until
from tests.support.nights import night
from tests.support.outages import assert_unavailable
from tests.support.stores import PostgreSql, postgresql

pytestmark = pytest.mark.slow


@pytest.fixture
def own_server() -> Iterator[PostgreSql]:
    """A server that the test may stop."""
    with postgresql() as server:
        yield server


def no_clock(seconds: float) -> None:
    """Time is not moved here."""


def test_a_database_that_stops_and_comes_back(own_server: PostgreSql, tmp_path: Path, snapshots: Snapshots) -> None:
    """Tries: the power of the database is cut between two uploads and again before the answers, while devices call.

    What stops a lost count: a contribution is acknowledged after its transaction (coordinator/aggregation/folding.py);
    what was acknowledged is there afterwards. The coordinator goes on by itself: its connections are made anew.
    """
    storage = Storage(database=own_server.new_database())
    with night(tmp_path / "coordinator", snapshots.package(), no_clock, devices=3, storage=storage) as made:
        prepared = [made.prepare(device) for device in made.devices]
        assert made.devices[0].upload(prepared[0]).complete

        own_server.stop("immediate")
        assert_unavailable(
            lambda: made.devices[1].stub.CheckIn(device_pb2.CheckInRequest(next_nonce=bytes(32)), timeout=20)
        )
        with pytest.raises(UnavailableError, match="database does not answer"):
            made.devices[1].upload(prepared[1])
        own_server.start()
        assert made.counted() == {made.devices[0].device_id}
        for device, one in zip(made.devices[1:], prepared[1:], strict=True):
            assert device.upload(one).complete
        frozen = made.cohort().set_hash
        assert frozen is not None

        own_server.stop("immediate")
        with pytest.raises(UnavailableError):
            made.devices[0].check_in()
        own_server.start()
        made.answer(*made.members())
        wait_until(lambda: bool(made.cohort().ended_unix_s))
        made.require_exact_sum(prepared)
        assert made.cohort().set_hash == frozen


class CommitInDoubt:
    """Ends one connection right after the server has committed, so that nobody hears of it.

    Args:
        database: whose next commit on a row of `contributions` that was counted is lost.
    """

    def __init__(self, database: Database) -> None:
        self.happened = 0
        event.listen(database.writer, "commit", self._commit)

    def _commit(self, connection: Connection) -> None:
        counting = connection.exec_driver_sql(
            "SELECT count(*) FROM contributions WHERE state = 'counted' AND xmin::text = pg_current_xact_id()::text"
        ).scalar()
        if not counting or self.happened:
            return
        self.happened += 1
        (process,) = connection.exec_driver_sql("SELECT pg_backend_pid()").one()
        connection.exec_driver_sql("COMMIT")
        with connection.engine.connect() as other:
            other.execute(text("SELECT pg_terminate_backend(:process)"), {"process": process})
        connection.exec_driver_sql("SELECT 1")  # the driver finds out here: for it, COMMIT was answered


def test_a_commit_whose_answer_is_lost(postgresql_server: PostgreSql, tmp_path: Path, snapshots: Snapshots) -> None:
    """Tries: the server commits the count of a contribution, and the connection ends before the coordinator hears so.

    What stops a sum without its object: after a commit in doubt nothing is deleted
    (coordinator/aggregation/folding.py).
    What stops a second count: the device asks again, and the rows say that it is counted.
    """
    storage = Storage(database=postgresql_server.new_database())
    with night(tmp_path / "coordinator", snapshots.package(), no_clock, devices=3, storage=storage) as made:
        prepared = [made.prepare(device) for device in made.devices]
        doubt = CommitInDoubt(made.deployment.database)
        with pytest.raises(UnavailableError):
            made.devices[0].upload(prepared[0])
        assert doubt.happened == 1
        assert made.counted() == {made.devices[0].device_id}
        assert made.devices[0].open_upload(prepared[0]).complete
        for device, one in zip(made.devices[1:], prepared[1:], strict=True):
            assert device.upload(one).complete
        made.answer(*made.members())
        made.require_exact_sum(prepared)


def test_a_writer_that_stops_in_the_middle_loses_its_turn(
    postgresql_server: PostgreSql, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tries: a process is suspended inside a transaction, with the turn that all writers wait for.

    What stops it from holding up the others: the server ends a session that is silent inside a transaction
    (coordinator/storage/engines.py), and with it the turn; what it wrote is gone, and it hears so.
    """
    monkeypatch.setattr(engines, "IDLE_IN_TRANSACTION_S", 1)
    url = postgresql_server.new_database()
    slow, other = Database(url), Database(url)
    migrate(slow)
    began, wake = threading.Event(), threading.Event()
    ends: list[BaseException | None] = []

    def suspended() -> None:
        try:
            with slow.transaction() as session:
                session.add(Setting(key="a", value="of the one that slept"))
                session.flush()
                began.set()
                wake.wait(30)
        except UnavailableError as error:
            ends.append(error)
        else:
            ends.append(None)

    thread = threading.Thread(target=suspended)
    thread.start()
    assert began.wait(10)
    before = time.monotonic()
    with other.transaction() as session:
        session.add(Setting(key="a", value="of the other"))
    assert time.monotonic() - before < 10
    wake.set()
    thread.join(20)
    assert isinstance(ends[0], UnavailableError)
    with other.reading() as session:
        assert session.get_one(Setting, "a").value == "of the other"
    slow.close()
    other.close()


@pytest.mark.parametrize("state", ["40001", "40P01", "57P01"])
def test_a_transaction_that_the_server_gives_up_is_to_be_repeated(postgresql_server: PostgreSql, state: str) -> None:
    """Tries: a serialisation failure, a deadlock, an operator's shutdown; the server itself raises them."""
    database = Database(postgresql_server.new_database())
    migrate(database)

    def fail(session: Session) -> None:
        session.add(Setting(key="a", value="1"))
        session.flush()
        session.execute(text(f"DO $$ BEGIN RAISE EXCEPTION 'now' USING ERRCODE = '{state}'; END $$"))

    with pytest.raises(UnavailableError) as raised, database.transaction() as session:
        fail(session)
    assert raised.value.retry_after_s > 0
    with database.reading() as session:
        assert session.get(Setting, "a") is None
    database.close()


@contextmanager
def no_room() -> Iterator[None]:
    """The kernel refuses this process every write behind a file's first 4 KiB, as it would on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_disk_that_is_full_and_has_room_again(tmp_path: Path, snapshots: Snapshots) -> None:
    """Tries: the coordinator's disk is full when a device checks in, when an upload comes, and when a member answers.

    What stops a loss: nothing is acknowledged that is not durable (coordinator/aggregation/uploads.py). What a device
    hears is when to return, and neither that a disk is full, which it would take for its own, nor where
    (coordinator/service/errors.py).
    """
    with night(tmp_path / "coordinator", snapshots.package(), no_clock, devices=3) as made:
        prepared = [made.prepare(device) for device in made.devices]
        made.devices[0].open_upload(prepared[0])
        with no_room():
            for refused in (
                lambda: made.devices[0].send(prepared[0]),
                made.devices[1].check_in,
                lambda: made.devices[1].open_upload(prepared[1]),
            ):
                with pytest.raises(UnavailableError, match="no room") as told:
                    refused()
                assert told.value.retry_after_s > 0
                assert str(tmp_path) not in str(told.value)
        assert made.received(made.devices[0]) == made.received(made.devices[1]) == 0
        for device, one in zip(made.devices, prepared, strict=True):
            assert device.upload(one).complete
        answer = made.make_answer(made.members()[0])
        with no_room(), pytest.raises(UnavailableError, match="no room"):
            made.members()[0].send_answer(answer)
        assert made.answers_kept() == []
        made.members()[0].send_answer(answer)
        made.answer(*made.members()[1:])
        made.require_exact_sum(prepared)
