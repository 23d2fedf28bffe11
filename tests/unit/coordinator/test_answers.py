"""Committee members' answers: whose, for which set, kept once, and what wrong ones can and cannot do."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from sqlalchemy import func, select

from coordinator.deployment import Deployment
from coordinator.rounds.advance import advance
from coordinator.rounds.plans import open_round
from coordinator.storage.rows import AnswerRow, Cohort, CohortState, Task
from nightshift.host.clock import now_unix_s
from nightshift.protocol.errors import (
    MalformedError,
    NotFoundError,
    RevokedError,
    SignatureInvalidError,
    StateConflictError,
)
from nightshift.protocol.secagg.encoding import VectorLayout
from nightshift.protocol.secagg.member import answer_message
from nightshift.v1 import device_pb2
from tests.support.coordinators import TASK, make_task
from tests.support.scripted_device import ScriptedDevice

Join = Callable[[], ScriptedDevice]
Clock = Callable[[float], None]


@pytest.fixture
def members(served: Deployment, join: Join, package: Path) -> list[ScriptedDevice]:
    """Six members of a frozen cohort to which three of them contributed; five answers open it."""
    make_task(served, package, cohort={"n_max": 3, "n_min": 3, "pool_min": 6})
    devices = [join() for _ in range(6)]
    for device in devices:
        device.check_in(new_prekeys=2)
    with served.database.transaction() as session:
        open_round(session, served, session.get_one(Task, TASK), now_unix_s())
    for device in devices[:3]:
        plan = device.check_in().plan
        assert plan is not None
        delta = np.full(plan.document.vector.delta_length, 0.25, dtype=np.float32)
        device.upload(device.prepare(plan, delta))
    assert only_cohort(served).state is CohortState.FROZEN
    return devices


def only_cohort(deployment: Deployment) -> Cohort:
    with deployment.database.reading() as session:
        return session.scalars(select(Cohort)).one()


def answers(deployment: Deployment) -> int:
    with deployment.database.reading() as session:
        return session.scalar(select(func.count()).select_from(AnswerRow)) or 0


def duty(member: ScriptedDevice) -> bytes:
    (cohort_id,) = member.check_in().duties
    return cohort_id


def forged(member: ScriptedDevice, plan_hash: bytes, request: device_pb2.AnswerRequest) -> device_pb2.AnswerRequest:
    """The same answer with some elements changed, signed by the member itself.

    Each liar errs by amounts of its own: equal errors of two members can cancel in the interpolation
    (weights such as 5 and -5), and the sum that opens is then right.
    """
    vector = np.frombuffer(request.vector, dtype="<u2").copy()
    vector[:8] = np.random.default_rng(request.index).integers(0, 65521, 8)
    changed = device_pb2.AnswerRequest()
    changed.CopyFrom(request)
    changed.vector = vector.tobytes()
    changed.signature = member.sign(answer_message(plan_hash, request.set_hash, request.index, changed.vector))
    return changed


def test_the_same_answer_again_is_acknowledged_also_after_the_end(
    served: Deployment, members: list[ScriptedDevice]
) -> None:
    requests = [member.make_answer(duty(member)) for member in members[:5]]
    for member, request in zip(members, requests, strict=False):
        member.send_answer(request)
        member.send_answer(request)
    assert only_cohort(served).state is CohortState.OPENED
    assert answers(served) == 5
    members[0].send_answer(requests[0])


def test_a_member_has_no_duty_left_once_it_answered(members: list[ScriptedDevice]) -> None:
    members[0].send_answer(members[0].make_answer(duty(members[0])))
    assert members[0].check_in().duties == []
    assert len(members[1].check_in().duties) == 1


def test_another_answer_of_the_same_member_is_refused(served: Deployment, members: list[ScriptedDevice]) -> None:
    request = members[0].make_answer(duty(members[0]))
    members[0].send_answer(request)
    with pytest.raises(StateConflictError, match="never changes"):
        members[0].send_answer(forged(members[0], only_cohort(served).plan_hash, request))
    assert answers(served) == 1


def test_a_right_answer_after_the_sum_opened_is_acknowledged_and_not_kept(
    served: Deployment, members: list[ScriptedDevice]
) -> None:
    late = members[5].make_answer(duty(members[5]))
    for member in members[:5]:
        member.send_answer(member.make_answer(duty(member)))
    members[5].send_answer(late)
    assert answers(served) == 5
    late.signature = bytes(64)
    with pytest.raises(SignatureInvalidError):
        members[5].send_answer(late)


def test_an_answer_after_the_cohort_was_void_is_refused(
    served: Deployment, members: list[ScriptedDevice], clock: Clock
) -> None:
    late = members[5].make_answer(duty(members[5]))
    clock(1300)
    with pytest.raises(StateConflictError, match="void"):
        members[5].send_answer(late)
    assert answers(served) == 0


def test_another_members_answer_is_refused(served: Deployment, members: list[ScriptedDevice]) -> None:
    request = members[0].make_answer(duty(members[0]))
    with pytest.raises(MalformedError, match="member"):
        members[1].send_answer(request)
    request.index = members[1].make_answer(duty(members[1])).index
    with pytest.raises(SignatureInvalidError):
        members[1].send_answer(request)
    assert answers(served) == 0


@pytest.mark.parametrize("length", [0, 8191, 8193, 1_000_000])
def test_an_answer_of_another_length_is_refused(members: list[ScriptedDevice], length: int) -> None:
    request = members[0].make_answer(duty(members[0]))
    request.vector = bytes(length)
    with pytest.raises(MalformedError):
        members[0].send_answer(request)


def test_an_element_outside_the_field_is_refused(served: Deployment, members: list[ScriptedDevice]) -> None:
    request = members[0].make_answer(duty(members[0]))
    request.vector = b"\xff" * len(request.vector)
    cohort = only_cohort(served)
    request.signature = members[0].sign(
        answer_message(cohort.plan_hash, request.set_hash, request.index, request.vector)
    )
    with pytest.raises(MalformedError):
        members[0].send_answer(request)


def test_an_answer_for_another_set_is_refused(members: list[ScriptedDevice]) -> None:
    request = members[0].make_answer(duty(members[0]))
    request.set_hash = bytes(32)
    with pytest.raises(MalformedError, match="set"):
        members[0].send_answer(request)


def test_who_is_no_member_gets_no_bundle(served: Deployment, members: list[ScriptedDevice], join: Join) -> None:
    stranger = join()
    stranger.check_in()
    cohort_id = only_cohort(served).cohort_id
    with pytest.raises(NotFoundError):
        stranger.bundle(cohort_id)
    with pytest.raises(NotFoundError):
        members[0].bundle(bytes(32))
    with pytest.raises(NotFoundError):
        stranger.send_answer(device_pb2.AnswerRequest(cohort_id=cohort_id, index=1))


def test_a_revoked_member_gets_no_bundle(served: Deployment, members: list[ScriptedDevice]) -> None:
    from coordinator.enrolment.devices import find_device, revoke

    cohort_id = duty(members[0])
    with served.database.transaction() as session:
        row = find_device(session, members[0].device_id.hex())
        revoke(session, served.log, row, reason="", now_unix_s=now_unix_s())
    with pytest.raises(RevokedError):
        members[0].bundle(cohort_id)


def test_a_wrong_answer_delays_the_sum_but_never_changes_it(served: Deployment, members: list[ScriptedDevice]) -> None:
    cohort = only_cohort(served)
    wrong = forged(members[0], cohort.plan_hash, members[0].make_answer(duty(members[0])))
    members[0].send_answer(wrong)
    for member in members[1:5]:
        member.send_answer(member.make_answer(duty(member)))
    cohort = only_cohort(served)
    assert (cohort.state, cohort.answers_tried) == (CohortState.FROZEN, 5), "five answers, but one does not fit"
    members[5].send_answer(members[5].make_answer(duty(members[5])))
    cohort = only_cohort(served)
    assert cohort.state is CohortState.OPENED


def test_two_wrong_answers_void_the_cohort_and_nobody_is_blamed(
    served: Deployment, members: list[ScriptedDevice], clock: Clock
) -> None:
    plan_hash = only_cohort(served).plan_hash
    for member in members[:2]:
        member.send_answer(forged(member, plan_hash, member.make_answer(duty(member))))
    for member in members[2:]:
        member.send_answer(member.make_answer(duty(member)))
    assert only_cohort(served).state is CohortState.FROZEN
    clock(1300)
    advance(served)
    cohort = only_cohort(served)
    assert cohort.state is CohortState.VOID
    assert cohort.reason == "6 committee members answered, but no 5 of their answers fit together"


_encode = VectorLayout.encode


def without_weight(layout: VectorLayout, delta: NDArray[np.float32], *rest: object) -> NDArray[np.uint64]:
    values = _encode(layout, delta, *rest)
    values[len(delta) :] = 0
    return values


def test_a_sum_that_honest_devices_cannot_make_is_refused(
    served: Deployment, join: Join, package: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A contributor that encodes a weight of zero: the sum opens, but is none of honest devices."""
    make_task(served, package, cohort={"n_max": 3, "n_min": 3})
    devices = [join() for _ in range(3)]
    for device in devices:
        device.check_in(new_prekeys=1)
    with served.database.transaction() as session:
        open_round(session, served, session.get_one(Task, TASK), now_unix_s())
    for device in devices:
        plan = device.check_in().plan
        assert plan is not None
        delta = np.zeros(plan.document.vector.delta_length, dtype=np.float32)
        with monkeypatch.context() as patch:
            patch.setattr(VectorLayout, "encode", without_weight)
            prepared = device.prepare(plan, delta)
        device.upload(prepared)
    for device in devices:
        device.send_answer(device.make_answer(duty(device)))
    cohort = only_cohort(served)
    assert cohort.state is CohortState.VOID
    assert "outside what 3 contributors can add up to" in cohort.reason
    advance(served)
    assert list(served.objects.list("cohorts")) == []
