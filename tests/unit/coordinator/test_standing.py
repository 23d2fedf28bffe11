"""What ended cohorts say of devices: read from the rows, enforced at the next round, undone by the operator."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from sqlalchemy import select

from coordinator.aggregation.documents import document_of
from coordinator.deployment import Deployment
from coordinator.rounds import standing
from coordinator.rounds.advance import advance
from coordinator.rounds.plans import open_round
from coordinator.rounds.suspects import Suspicion
from coordinator.storage.rows import AuditRow, Cohort, CohortState, Device, Task
from nightshift.host.clock import now_unix_s
from nightshift.protocol.secagg.erasure import sign_erasure
from nightshift.protocol.secagg.member import answer_message
from nightshift.protocol.secagg.refusal import ShareFault, UnusableShare, sign_refusal
from nightshift.v1 import device_pb2
from tests.support.coordinators import TASK, make_task
from tests.support.scripted_device import ScriptedDevice

Join = Callable[[], ScriptedDevice]
Clock = Callable[[float], None]


@dataclass(frozen=True)
class Night:
    """Six devices, all on the committee; the first three contribute to round 1 and its set is frozen."""

    served: Deployment
    devices: list[ScriptedDevice]

    def open(self) -> None:
        advance(self.served)  # the round before ends when its last cohort has
        with self.served.database.transaction() as session:
            open_round(session, self.served, session.get_one(Task, TASK), now_unix_s())

    def contribute(self, *devices: ScriptedDevice) -> None:
        for device in devices:
            plan = device.check_in(new_prekeys=1).plan
            assert plan is not None
            delta = np.full(plan.document.vector.delta_length, 0.25, dtype=np.float32)
            device.upload(device.prepare(plan, delta))

    def cohort(self, number: int = 1) -> Cohort:
        with self.served.database.reading() as session:
            return session.scalars(select(Cohort).where(Cohort.round_number == number)).one()

    def refuse(self, member: ScriptedDevice, *contributors: ScriptedDevice) -> None:
        cohort = self.cohort()
        shares = [UnusableShare(device.device_id, ShareFault.DOES_NOT_OPEN) for device in contributors]
        made = sign_refusal(plan_hash=cohort.plan_hash, set_hash=cohort.set_hash, shares=shares, sign=member.sign)
        erasure = sign_erasure(
            plan_hash=cohort.plan_hash, cohort_id=cohort.cohort_id, member=member.device_id, sign=member.sign
        )
        member.refuse(
            device_pb2.RefuseRequest(
                cohort_id=cohort.cohort_id,
                set_hash=cohort.set_hash,
                shares=[device_pb2.UnusableShare(contributor=s.contributor, fault=s.fault) for s in made.shares],
                signature=made.signature,
                erasure=erasure.signature,
            )
        )

    def answer(self, member: ScriptedDevice, *, wrongly: bool = False) -> None:
        cohort = self.cohort()
        request = member.make_answer(cohort.cohort_id)
        if wrongly:
            vector = np.frombuffer(request.vector, dtype="<u2").copy()
            vector[:8] = np.random.default_rng(request.index).integers(0, 65521, 8)
            request.vector = vector.tobytes()
            request.signature = member.sign(
                answer_message(cohort.plan_hash, request.set_hash, request.index, request.vector)
            )
        member.send_answer(request)

    def lay_to_rest(self, *members: ScriptedDevice) -> None:
        for member in members:
            member.state_erasure(member.make_erasure(self.cohort().cohort_id))

    def suspicion(self) -> Suspicion:
        with self.served.database.reading() as session:
            return standing.suspicion(session, now_unix_s())

    def row(self, device: ScriptedDevice) -> Device:
        with self.served.database.reading() as session:
            return session.get_one(Device, device.device_id)

    def record(self, device: ScriptedDevice) -> standing.Record:
        with self.served.database.reading() as session:
            found = standing.suspicion(session, now_unix_s())
            return standing.record_of(session, found, session.get_one(Device, device.device_id))


@pytest.fixture
def night(served: Deployment, join: Join, package: Path) -> Night:
    make_task(served, package, cohort={"n_max": 3, "n_min": 3, "pool_min": 4})
    made = Night(served, [join() for _ in range(6)])
    for device in made.devices:
        device.check_in(new_prekeys=3)
    made.open()
    made.contribute(*made.devices[:3])
    assert made.cohort().state is CohortState.FROZEN
    return made


def test_a_device_that_two_members_name_is_quarantined_with_the_round_until_it_is_acquitted(night: Night) -> None:
    culprit, *others = night.devices
    night.refuse(others[2], culprit)
    night.refuse(others[3], culprit)
    assert night.cohort().state is CohortState.VOID
    night.lay_to_rest(others[4])
    advance(night.served)
    assert night.row(culprit).quarantined_unix_s is not None
    night.open()
    assert culprit.check_in().plan is None
    with night.served.database.reading() as session:
        verbs = session.scalars(select(AuditRow.verb).where(AuditRow.subject == culprit.device_id.hex())).all()
    assert "device quarantine" in verbs
    night.contribute(*others[:3])
    assert culprit.device_id not in {member.prekey.device_id for member in document_of(night.cohort(2)).committee}
    shown = night.record(culprit)
    assert (shown.verdict, shown.named_by) == ("quarantined", 2)

    with night.served.database.transaction() as session:
        standing.clear(session.get_one(Device, culprit.device_id), now_unix_s())
    assert night.suspicion() == Suspicion(reliable=night.suspicion().reliable)
    assert night.record(culprit).verdict == "clear"


def test_one_members_word_makes_a_suspect_that_is_offered_plans(night: Night, clock: Clock) -> None:
    culprit, *others = night.devices
    night.refuse(others[2], culprit)
    clock(2000)
    advance(night.served)
    assert night.cohort().state is CohortState.VOID
    assert night.cohort().reason.endswith(
        "0 committee members answered before the deadline, 5 are needed; 1 could not use a contributor's share"
    )
    assert night.suspicion().groups == (frozenset({culprit.device_id}),)
    night.lay_to_rest(culprit, *others[:2])
    night.open()
    assert night.record(culprit).verdict == "suspect, alone"
    assert culprit.check_in().plan is not None


def test_answers_that_do_not_fit_make_all_contributors_suspects(night: Night, clock: Clock) -> None:
    for number, member in enumerate(night.devices):
        night.answer(member, wrongly=number < 2)
    clock(2000)
    advance(night.served)
    assert night.suspicion().groups == (frozenset(device.device_id for device in night.devices[:3]),)
    shown = night.record(night.devices[0])
    assert (shown.verdict, shown.with_) == ("suspect", 2)


def test_to_clear_one_suspect_blames_no_others(night: Night, clock: Clock) -> None:
    for number, member in enumerate(night.devices):
        night.answer(member, wrongly=number < 2)
    clock(2000)
    advance(night.served)
    with night.served.database.transaction() as session:
        standing.clear(session.get_one(Device, night.devices[0].device_id), now_unix_s())
    assert night.suspicion().groups == ()


def test_silence_makes_no_suspects(night: Night, clock: Clock) -> None:
    night.answer(night.devices[0])
    clock(2000)
    advance(night.served)
    assert night.cohort().state is CohortState.VOID
    assert night.suspicion() == Suspicion()


def test_a_refusal_that_nobody_confirms_is_remembered_of_the_member(night: Night) -> None:
    liar = night.devices[5]
    night.refuse(liar, night.devices[0])
    for member in night.devices[:5]:
        night.answer(member)
    assert night.cohort().state is CohortState.OPENED
    assert night.record(night.devices[0]).verdict == "clear"
    assert night.record(liar).refused == 1
    assert not night.record(liar).doubtful
