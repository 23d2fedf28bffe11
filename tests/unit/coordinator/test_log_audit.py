"""`coordinator log verify`: an altered entry or row is found, whichever it is, and said in words."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from sqlalchemy import select, text
from sqlalchemy.orm import Session

from coordinator.deployment import Deployment
from coordinator.enrolment.devices import find_device, revoke
from coordinator.log_audit import LogAudit, audit
from coordinator.rounds.advance import abort, advance
from coordinator.rounds.plans import open_round
from coordinator.rounds.rounds import find
from coordinator.storage.rows import LogEntryRow, Task
from nightshift.host.clock import now_unix_s
from nightshift.protocol.errors import LogInconsistentError, NightshiftError
from nightshift.protocol.log import LogHead, checkpoint_note, leaf_hash
from nightshift.protocol.log_heads import read_head, short_head
from nightshift.v1 import log_pb2
from tests.support.coordinators import TASK, make_task
from tests.support.scripted_device import ScriptedDevice

Join = Callable[[], ScriptedDevice]


class _Undo(Exception):
    """Ends a transaction without keeping it."""


@pytest.fixture
def nights(served: Deployment, join: Join, package: Path) -> Deployment:
    """One round with a sum and a release, one that was ended by hand, and a device that was revoked."""
    make_task(served, package, cohort={"n_max": 4, "n_min": 3})
    devices = [join() for _ in range(4)]
    for device in devices:
        device.check_in(new_prekeys=4)
    open_one(served)
    for device in devices:
        plan = device.check_in().plan
        assert plan is not None
        delta = np.full(plan.document.vector.delta_length, 0.01, np.float32)
        assert device.upload(device.prepare(plan, delta)).complete
    advance(served)
    for device in devices:
        for duty in device.check_in(no_plan=True).reply.duties:
            device.send_answer(device.make_answer(duty.cohort_id))
    advance(served)
    open_one(served)
    with served.database.transaction() as session:
        abort(session, served, find(session, f"{TASK}/2")[1], "a test")
        device_row = find_device(session, devices[0].device_id.hex())
        revoke(session, served.log, device_row, reason="a test", now_unix_s=now_unix_s())
    return served


def open_one(deployment: Deployment) -> None:
    with deployment.database.transaction() as session:
        open_round(session, deployment, session.get_one(Task, TASK), now_unix_s())


@contextmanager
def undone(deployment: Deployment) -> Iterator[Session]:
    """A transaction of which nothing stays."""
    try:
        with deployment.database.transaction() as session:
            yield session
            raise _Undo
    except _Undo:
        pass


def audited(deployment: Deployment, *heads: str) -> LogAudit:
    with deployment.database.reading() as session:
        return audit(session, deployment, [read_head(each, deployment.trust) for each in heads])


def test_an_honest_log_agrees_with_the_rows(nights: Deployment) -> None:
    found = audited(nights)
    with nights.database.reading() as session:
        entries = session.scalars(select(LogEntryRow)).all()
    assert found.head.size == len(entries)
    kinds = found.kinds
    assert (kinds["enrolment"], kinds["plan"], kinds["pool"], kinds["set"]) == (4, 2, 2, 1)
    assert (kinds["void"], kinds["release"], kinds["revocation"]) == (1, 2, 1)
    # Each object once: 2 plans and pools, a set, a void, releases, decisions, a revocation; and the certificates of
    # 4 devices, 4 contributions and 2 committees of 4.
    assert found.objects == 4 + 1 + 1 + 2 + kinds.get("decision", 0) + 1 + 4 + 4 + 8


TAMPERED = {
    "UPDATE cohorts SET plan = substr(plan, 1, length(plan) - 1)": "the plan of cohort",
    "UPDATE cohorts SET plan_hash = zeroblob(32) WHERE round_number = 1": "the plan of cohort",
    "UPDATE cohorts SET plan_position = plan_position - 1 WHERE round_number = 2": "the plan of cohort",
    "UPDATE cohorts SET plan_signature = zeroblob(64) WHERE round_number = 1": "its plan's signature",
    "UPDATE cohorts SET set_hash = zeroblob(32) WHERE round_number = 1": "the frozen set of cohort",
    "UPDATE cohorts SET set_hash = NULL WHERE round_number = 1": "the frozen set of cohort",
    "UPDATE contributions SET ciphertext_tag = zeroblob(16)": "is not that of its contributions",
    "DELETE FROM contributions WHERE rowid = 1": "is not that of its contributions",
    "UPDATE cohorts SET void_position = NULL WHERE round_number = 2": "the end of cohort",
    "UPDATE cohorts SET void_position = 1 WHERE round_number = 1": "the end of cohort",
    "UPDATE releases SET document = zeroblob(9) WHERE number = 1": "is not the one that is logged",
    "UPDATE releases SET log_position = 1 WHERE number = 1": "is not the one that is logged",
    "DELETE FROM releases WHERE number = 1": "the log knows release",
    "UPDATE devices SET certificate = zeroblob(9)": "the present certificate of device",
    "UPDATE devices SET certificate_position = 9": "the present certificate of device",
    "UPDATE contributions SET certificate = zeroblob(9)": "the contributor's certificate of device",
    "UPDATE committee_seats SET certificate_position = 99": "the member's certificate of device",
    "DELETE FROM devices WHERE state = 'revoked'": "the log knows device",
    "DELETE FROM revocations": "the log revokes device",
    "DELETE FROM log_entries WHERE position = 3": "log entry 3 is missing or altered",
    "UPDATE log_entries SET leaf_hash = zeroblob(32) WHERE position = 5": "log entry 5 is missing or altered",
    "UPDATE log_entries SET entry = zeroblob(9) WHERE position = 5": "log entry 5 is missing or altered",
    "DELETE FROM log_entries WHERE position > 9": "disagree in",
}


def test_whatever_is_altered_is_found_and_named(nights: Deployment) -> None:
    """One night for all of them, since it takes seconds; every change is taken back."""
    for statement, message in TAMPERED.items():
        with undone(nights) as session:
            session.execute(text("PRAGMA defer_foreign_keys = ON"))
            assert session.execute(text(statement)).rowcount > 0, statement  # type: ignore[attr-defined]  # of UPDATE and DELETE
            with pytest.raises(LogInconsistentError) as caught:
                audit(session, nights)
            assert message in str(caught.value), statement
            assert caught.value.exit_code == 14
    audited(nights)


def test_an_entry_that_was_replaced_together_with_its_hash_is_found(nights: Deployment) -> None:
    """Who holds the database can make the log agree with itself; it then no longer agrees with the rows."""
    with undone(nights) as session:
        row = session.scalars(select(LogEntryRow).where(LogEntryRow.position == 2)).one()
        entry = log_pb2.LogEntry.FromString(row.entry)
        entry.digest = bytes(32)
        row.entry = entry.SerializeToString(deterministic=True)
        row.leaf_hash = leaf_hash(row.entry)
        session.flush()
        with pytest.raises(NightshiftError) as caught:
            audit(session, nights)
        assert caught.value.exit_code == 14


def test_heads_that_were_kept_elsewhere_are_part_of_it(nights: Deployment) -> None:
    with nights.database.reading() as session:
        snapshot = nights.log.snapshot(session)
        note = checkpoint_note(snapshot.checkpoint(), nights.trust).decode()
        earlier = short_head(LogHead(5, snapshot.tree.root(5)), nights.log.origin)
        size = snapshot.size
    assert audited(nights, note, earlier).compared == (size, 5)
    with pytest.raises(LogInconsistentError, match="the log forked: at size 5"):
        audited(nights, short_head(LogHead(5, bytes(32)), nights.log.origin))
    with pytest.raises(LogInconsistentError, match="older than what devices know; restore a newer backup"):
        audited(nights, short_head(LogHead(size + 1, bytes(32)), nights.log.origin))
