"""What every database must do."""

from __future__ import annotations

import threading

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import bindparam, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from coordinator.storage.database import Database
from coordinator.storage.migration import migrate
from coordinator.storage.plain import plain_rows
from coordinator.storage.rows import (
    Artefact,
    AuditRow,
    Base,
    Device,
    DeviceState,
    Model,
    PrekeyRow,
    Setting,
    Task,
    TaskState,
)


def test_the_migrations_make_the_schema_of_the_rows(database: Database) -> None:
    with database.engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), Base.metadata) == []


def test_migrating_again_changes_nothing(database: Database) -> None:
    with database.transaction() as session:
        session.add(Setting(key="a", value="1"))
    migrate(database)
    with database.reading() as session:
        assert session.get_one(Setting, "a").value == "1"


def test_a_transaction_that_fails_leaves_nothing(database: Database) -> None:
    def fail(session: Session) -> None:
        session.add(Setting(key="a", value="1"))
        session.flush()
        raise RuntimeError

    with pytest.raises(RuntimeError), database.transaction() as session:
        fail(session)
    with database.reading() as session:
        assert session.get(Setting, "a") is None


def test_a_committed_row_is_there_for_another_process(database: Database, url: str) -> None:
    with database.transaction() as session:
        session.add(Setting(key="a", value="1"))
    other = Database(url)
    with other.reading() as session:
        assert session.get_one(Setting, "a").value == "1"
    other.close()


def test_rows_stay_readable_after_their_transaction(database: Database) -> None:
    with database.transaction() as session:
        row = Setting(key="a", value="1")
        session.add(row)
    assert row.value == "1"


def test_foreign_keys_hold(database: Database) -> None:
    with pytest.raises(IntegrityError), database.transaction() as session:
        session.add(
            PrekeyRow(device_id=bytes(32), epoch=1, serial=1, not_after_unix_s=1, public_key=b"", signature=b"")
        )


def test_plain_rows_are_those_that_the_session_would_find(database: Database) -> None:
    """With types read as the ORM reads them, and with what the session has changed and not yet written."""
    name = {"of": "a"}
    rows = select(Task.name, Task.state, Task.seed, Task.served_unix_s).where(Task.name == bindparam("of"))
    with database.transaction() as session:
        model = Artefact(sha256=bytes(32), size_bytes=1, object_key="k", kind="manifest")
        session.add(model)
        session.flush()
        session.add(Model(package_id=bytes(32), alias="m", manifest=b"", added_unix_s=0))
        session.flush()
        task = Task(name="a", state=TaskState.ACTIVE, package_id=bytes(32), settings="", seed=b"s", created_unix_s=0)
        session.add(task)
        assert plain_rows(session, rows, name) == [("a", TaskState.ACTIVE, b"s", None)]
        task.served_unix_s = 7
        assert plain_rows(session, rows, name) == [("a", TaskState.ACTIVE, b"s", 7)]
    with database.reading() as session:
        assert plain_rows(session, rows, name) == session.execute(rows, name).all()


def test_a_writer_that_fails_leaves_its_turn_to_the_next(database: Database) -> None:
    """Also to another thread, which would wait for it for half a minute."""

    def fail() -> None:
        with database.transaction():
            raise RuntimeError

    def write() -> None:
        with database.transaction() as session:
            session.add(Setting(key="a", value="1"))

    with pytest.raises(RuntimeError):
        fail()
    other = threading.Thread(target=write)
    other.start()
    other.join(timeout=10)
    assert not other.is_alive()
    with database.reading() as session:
        assert session.get_one(Setting, "a").value == "1"


def test_states_are_stored_as_their_words(database: Database) -> None:
    with database.transaction() as session:
        session.add(
            Device(
                device_id=bytes(32),
                state=DeviceState.REVOKED,
                name="x",
                certificate=b"",
                certificate_not_after_unix_s=0,
                enrolled_unix_s=0,
            )
        )
    with database.engine.connect() as connection:
        assert connection.exec_driver_sql("SELECT state FROM devices").scalar() == "revoked"


def test_audit_rows_number_themselves(database: Database) -> None:
    for verb in ("one", "two"):
        with database.transaction() as session:
            session.add(AuditRow(time_unix_s=0, actor="a", verb=verb, subject="s", detail="{}"))
    with database.reading() as session:
        assert session.scalars(select(AuditRow.verb).order_by(AuditRow.audit_id)).all() == ["one", "two"]


def test_writers_take_turns_and_none_is_lost(database: Database) -> None:
    with database.transaction() as session:
        session.add(Setting(key="n", value="0"))
    failures: list[BaseException] = []

    def count() -> None:
        try:
            for _ in range(20):
                with database.transaction() as session:
                    row = session.get_one(Setting, "n")
                    row.value = str(int(row.value) + 1)
        except BaseException as error:  # noqa: BLE001 - shown by the test
            failures.append(error)

    threads = [threading.Thread(target=count) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    with database.reading() as session:
        assert session.get_one(Setting, "n").value == "80"


def test_a_reader_sees_one_snapshot(database: Database) -> None:
    with database.transaction() as session:
        session.add(Setting(key="a", value="1"))
    with database.reading() as reader:
        assert reader.get_one(Setting, "a").value == "1"
        with database.transaction() as writer:
            writer.get_one(Setting, "a").value = "2"
        reader.expire_all()
        assert reader.get_one(Setting, "a").value == "1"
