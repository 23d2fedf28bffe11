"""Erasure statements: taken from members of void cohorts only, once, never beside an answer; and what they free."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from sqlalchemy import func, select

from coordinator.deployment import Deployment
from coordinator.rounds import advance
from coordinator.rounds.plans import open_round
from coordinator.rounds.pool import spent_parent
from coordinator.storage.rows import Cohort, CohortState, ErasureRow, Task
from nightshift.host.clock import now_unix_s
from nightshift.protocol.errors import DeclinedError, NotFoundError, SignatureInvalidError, StateConflictError
from nightshift.protocol.secagg.erasure import ErasureStatement, erasure_message, verify_void
from nightshift.v1 import device_pb2
from tests.support.coordinators import TASK, make_task
from tests.support.scripted_device import ScriptedDevice

Join = Callable[[], ScriptedDevice]
Clock = Callable[[float], None]
REQUIRED = 3
"""C - T + 1 + f for a committee of six: 6 - 5 + 1 + 1."""


@pytest.fixture
def devices(served: Deployment, join: Join, package: Path) -> list[ScriptedDevice]:
    """Six members of an open cohort to which three of them contributed."""
    make_task(served, package, cohort={"n_max": 6, "n_min": 3, "pool_min": 6})
    made = [join() for _ in range(6)]
    for device in made:
        device.check_in(new_prekeys=2)
    open_next(served)
    for device in made[:3]:
        contribute(device)
    return made


def open_next(served: Deployment) -> None:
    with served.database.transaction() as session:
        open_round(session, served, session.get_one(Task, TASK), now_unix_s())


def contribute(device: ScriptedDevice) -> None:
    plan = device.check_in().plan
    assert plan is not None
    delta = np.full(plan.document.vector.delta_length, 0.25, dtype=np.float32)
    assert device.upload(device.prepare(plan, delta)).complete


def abort(served: Deployment, cohort_id: bytes, reason: str) -> None:
    with served.database.transaction() as session:
        advance.abort(session, served, [session.get_one(Cohort, cohort_id)], reason)
    advance.conclude_rounds(served, now_unix_s())


def cohort_of(served: Deployment, number: int = 1) -> Cohort:
    with served.database.reading() as session:
        return session.scalars(select(Cohort).where(Cohort.round_number == number)).one()


def stated(served: Deployment) -> int:
    with served.database.reading() as session:
        return session.scalar(select(func.count()).select_from(ErasureRow)) or 0


def asked(member: ScriptedDevice) -> list[bytes]:
    return [duty.cohort_id for duty in member.check_in(no_plan=True).reply.erasures]


def state(member: ScriptedDevice) -> device_pb2.StateErasureRequest:
    (cohort_id,) = asked(member)
    request = member.make_erasure(cohort_id)
    member.state_erasure(request)
    return request


def is_spent(served: Deployment, device: ScriptedDevice) -> bool:
    with served.database.reading() as session:
        cohort = session.scalars(select(Cohort)).first()
        return spent_parent(session, device.device_id, cohort.parent_release, now_unix_s())


def test_every_member_of_a_void_cohort_is_asked_until_it_has_stated(
    served: Deployment, devices: list[ScriptedDevice]
) -> None:
    assert asked(devices[0]) == []
    abort(served, cohort_of(served).cohort_id, "wrong task file")
    assert all(asked(device) == [cohort_of(served).cohort_id] for device in devices)
    state(devices[0])
    assert asked(devices[0]) == []
    assert stated(served) == 1


def test_enough_statements_free_the_parent_and_reach_the_contributors(
    served: Deployment, devices: list[ScriptedDevice]
) -> None:
    cohort = cohort_of(served)
    abort(served, cohort.cohort_id, "wrong task file")
    for member in devices[3 : 2 + REQUIRED]:
        state(member)
    assert is_spent(served, devices[0])
    state(devices[5])
    assert not is_spent(served, devices[0])

    (void,) = devices[0].check_in().reply.voids
    verify_void(
        required=REQUIRED,
        plan_hash=cohort.plan_hash,
        cohort_id=cohort.cohort_id,
        committee={device.device_id: device.key.public_key() for device in devices},
        statements=[
            ErasureStatement(cohort.plan_hash, cohort.cohort_id, each.member, each.signature) for each in void.erasures
        ],
    )
    open_next(served)
    for device in devices[:3]:
        contribute(device)
    assert cohort_of(served, 2).counted == 3


def test_without_enough_statements_the_round_waits(served: Deployment, devices: list[ScriptedDevice]) -> None:
    for device in devices[3:5]:
        contribute(device)
    abort(served, cohort_of(served).cohort_id, "wrong task file")
    for member in devices[: REQUIRED - 1]:
        state(member)
    with pytest.raises(DeclinedError, match="only 1 may still contribute"):
        open_next(served)


def test_the_same_statement_again_is_acknowledged(served: Deployment, devices: list[ScriptedDevice]) -> None:
    abort(served, cohort_of(served).cohort_id, "")
    request = state(devices[0])
    devices[0].state_erasure(request)
    assert stated(served) == 1


def test_only_a_void_cohort_is_laid_to_rest(served: Deployment, devices: list[ScriptedDevice]) -> None:
    cohort = cohort_of(served)
    signature = devices[0].sign(erasure_message(cohort.plan_hash, cohort.cohort_id))
    request = device_pb2.StateErasureRequest(cohort_id=cohort.cohort_id, signature=signature)
    with pytest.raises(StateConflictError, match="only a void one"):
        devices[0].state_erasure(request)
    with pytest.raises(StateConflictError, match="only a void one"):
        devices[0].void_proof(cohort.cohort_id)
    assert stated(served) == 0


def test_statements_of_others_and_for_others_are_refused(
    served: Deployment, devices: list[ScriptedDevice], join: Join
) -> None:
    cohort = cohort_of(served)
    abort(served, cohort.cohort_id, "")
    good = devices[0].make_erasure(cohort.cohort_id)
    with pytest.raises(SignatureInvalidError):
        devices[1].state_erasure(good)
    good.signature = bytes(64)
    with pytest.raises(SignatureInvalidError):
        devices[0].state_erasure(good)
    stranger = join()
    stranger.check_in()
    for call in (lambda: stranger.state_erasure(good), lambda: stranger.void_proof(cohort.cohort_id)):
        with pytest.raises(NotFoundError):
            call()
    assert stated(served) == 0


def test_a_member_answers_or_states_never_both(served: Deployment, devices: list[ScriptedDevice], clock: Clock) -> None:
    """A device that was restored from an old image says the other thing, and is refused."""
    clock(700)
    cohort_id = cohort_of(served).cohort_id
    late = devices[1].make_answer(cohort_id)
    devices[0].send_answer(devices[0].make_answer(cohort_id))
    clock(2000)
    assert devices[0].check_in().reply.erasures == []
    assert cohort_of(served).state is CohortState.VOID
    with pytest.raises(StateConflictError, match="old copy"):
        devices[0].state_erasure(devices[0].make_erasure(cohort_id))
    state(devices[1])
    with pytest.raises(StateConflictError, match="old copy"):
        devices[1].send_answer(late)
    assert stated(served) == 1


def test_when_too_many_answered_no_statement_can_suffice(
    served: Deployment, devices: list[ScriptedDevice], clock: Clock
) -> None:
    """Four of six answered: one more answer would open the sum, so the two others' statements prove nothing."""
    clock(700)
    cohort_id = cohort_of(served).cohort_id
    for device in devices[:4]:
        device.send_answer(device.make_answer(cohort_id))
    clock(2000)
    for device in devices[4:]:
        state(device)
    assert is_spent(served, devices[0])


def test_once_the_prekeys_have_expired_nobody_is_asked(
    served: Deployment, devices: list[ScriptedDevice], clock: Clock
) -> None:
    abort(served, cohort_of(served).cohort_id, "")
    clock(15 * 86_400)
    assert asked(devices[0]) == []
    assert not is_spent(served, devices[0])


def test_a_cohort_without_contributions_needs_no_statement(served: Deployment, join: Join, package: Path) -> None:
    make_task(served, package, cohort={"n_max": 6, "n_min": 3})
    members = [join() for _ in range(3)]
    for member in members:
        member.check_in(new_prekeys=1)
    open_next(served)
    abort(served, cohort_of(served).cohort_id, "")
    assert asked(members[0]) == []
