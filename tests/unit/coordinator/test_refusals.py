"""Members' refusals: whose, of whom, kept once beside no answer; and when they end a cohort."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from sqlalchemy import select

from coordinator.deployment import Deployment
from coordinator.rounds.plans import open_round
from coordinator.rounds.seats import words
from coordinator.rounds.transitions import counted
from coordinator.storage.rows import Cohort, CohortState, RefusalRow, Task
from nightshift.host.clock import now_unix_s
from nightshift.protocol.errors import MalformedError, NotFoundError, SignatureInvalidError, StateConflictError
from nightshift.protocol.secagg.erasure import sign_erasure
from nightshift.protocol.secagg.refusal import ShareFault, UnusableShare, sign_refusal
from nightshift.v1 import device_pb2
from tests.support.coordinators import TASK, make_task
from tests.support.hostile_device import Innards, random_values
from tests.support.scripted_device import ScriptedDevice

Join = Callable[[], ScriptedDevice]
GARBAGE = b"\xff" * 8192


@pytest.fixture
def members(served: Deployment, join: Join, package: Path) -> list[ScriptedDevice]:
    """Six members, in the order of the committee, of a frozen cohort of three; five answers open it.

    The first contributor's shares for the members 1 and 2 are signed garbage.
    """
    make_task(served, package, cohort={"n_max": 3, "n_min": 3, "pool_min": 6})
    devices = [join() for _ in range(6)]
    for device in devices:
        device.check_in(new_prekeys=2)
    with served.database.transaction() as session:
        open_round(session, served, session.get_one(Task, TASK), now_unix_s())
    for device in devices[:3]:
        plan = device.check_in().plan
        assert plan is not None
        if device is devices[0]:
            innards = Innards.of(device, plan, random_values(plan))
            innards.seal_bytes(1, GARBAGE)
            innards.seal_bytes(2, GARBAGE)
            device.upload(innards.body())
        else:
            device.upload(device.prepare(plan, np.full(plan.document.vector.delta_length, 0.25, dtype=np.float32)))
    assert only_cohort(served).state is CohortState.FROZEN
    by_id = {device.device_id: device for device in devices}
    return [by_id[member.prekey.device_id] for member in plan.document.committee] + [devices[0]]


def only_cohort(served: Deployment) -> Cohort:
    with served.database.reading() as session:
        return session.scalars(select(Cohort)).one()


def refusal(
    served: Deployment, member: ScriptedDevice, *contributors: bytes, fault: ShareFault = ShareFault.NOT_IN_FIELD
) -> device_pb2.RefuseRequest:
    cohort = only_cohort(served)
    made = sign_refusal(
        plan_hash=cohort.plan_hash,
        set_hash=cohort.set_hash,
        shares=[UnusableShare(contributor, fault) for contributor in contributors],
        sign=member.sign,
    )
    erasure = sign_erasure(
        plan_hash=cohort.plan_hash, cohort_id=cohort.cohort_id, member=member.device_id, sign=member.sign
    )
    return device_pb2.RefuseRequest(
        cohort_id=cohort.cohort_id,
        set_hash=cohort.set_hash,
        shares=[device_pb2.UnusableShare(contributor=each.contributor, fault=each.fault) for each in made.shares],
        signature=made.signature,
        erasure=erasure.signature,
    )


def refusals(served: Deployment) -> list[tuple[int, bytes]]:
    with served.database.reading() as session:
        rows = session.scalars(select(RefusalRow).order_by(RefusalRow.member_index)).all()
    return [(row.member_index, row.contributor) for row in rows]


def contributors(served: Deployment) -> list[bytes]:
    with served.database.reading() as session:
        return [row.device_id for row in counted(session, session.scalars(select(Cohort)).one())]


def answer(*members: ScriptedDevice) -> None:
    for member in members:
        (cohort_id,) = member.check_in(no_plan=True).duties
        member.send_answer(member.make_answer(cohort_id))


def test_one_refusal_weighs_as_much_as_one_silent_member(served: Deployment, members: list[ScriptedDevice]) -> None:
    *committee, culprit = members
    request = refusal(served, committee[0], culprit.device_id)
    committee[0].refuse(request)
    committee[0].refuse(request)
    assert refusals(served) == [(1, culprit.device_id)]
    assert committee[0].check_in(no_plan=True).duties == []
    assert only_cohort(served).state is CohortState.FROZEN
    # Member 2 got garbage as well, but says nothing yet: the sum waits for it, and for nobody else.
    answer(*committee[2:])
    assert only_cohort(served).state is CohortState.FROZEN


def test_a_single_liar_ends_nothing(served: Deployment, members: list[ScriptedDevice]) -> None:
    """It names an honest contributor and everybody else; the five others would answer all the same."""
    *committee, _ = members
    committee[5].refuse(refusal(served, committee[5], *contributors(served)))
    assert only_cohort(served).state is CohortState.FROZEN
    assert len(refusals(served)) == 3


def test_when_T_answers_cannot_come_any_more_the_cohort_ends_at_once(
    served: Deployment, members: list[ScriptedDevice]
) -> None:
    *committee, culprit = members
    for member in committee[:2]:
        member.refuse(refusal(served, member, culprit.device_id))
    cohort = only_cohort(served)
    assert cohort.state is CohortState.VOID
    assert "2 of 6 committee members could not use a contributor's share" in cohort.reason
    # Their refusals lay it to rest as statements do; one more is needed (6 - 5 + 1 + 1 = 3).
    (void,) = culprit.check_in().reply.voids
    assert {statement.member for statement in void.erasures} == {member.device_id for member in committee[:2]}
    assert committee[0].check_in(no_plan=True).reply.erasures == []
    assert len(committee[2].check_in(no_plan=True).reply.erasures) == 1


def test_a_refusal_that_comes_late_is_kept(served: Deployment, members: list[ScriptedDevice]) -> None:
    *committee, culprit = members
    late = refusal(served, committee[2], culprit.device_id)
    for member in committee[:2]:
        member.refuse(refusal(served, member, culprit.device_id))
    committee[2].refuse(late)
    assert [index for index, _ in refusals(served)] == [1, 2, 3]


def test_a_member_answers_or_refuses_never_both(served: Deployment, members: list[ScriptedDevice]) -> None:
    *committee, culprit = members
    answer(committee[2])
    with pytest.raises(StateConflictError, match="answered the cohort before"):
        committee[2].refuse(refusal(served, committee[2], culprit.device_id))
    (cohort_id,) = committee[3].check_in(no_plan=True).duties
    made = committee[3].make_answer(cohort_id)
    committee[3].refuse(refusal(served, committee[3], culprit.device_id))
    with pytest.raises(StateConflictError, match="old copy"):
        committee[3].send_answer(made)
    with pytest.raises(StateConflictError, match="something else"):
        committee[3].refuse(refusal(served, committee[3], culprit.device_id, fault=ShareFault.DOES_NOT_OPEN))
    assert len(refusals(served)) == 1


def test_of_an_answer_and_a_refusal_that_race_one_is_kept(served: Deployment, members: list[ScriptedDevice]) -> None:
    *committee, culprit = members
    raced = []
    for index, member in enumerate(committee[2:5], start=3):
        duties = member.check_in(no_plan=True).duties
        if not duties:
            break  # two refusals won: T answers cannot come any more, and the cohort is void
        (cohort_id,) = duties
        raced.append(index)
        given, word = member.make_answer(cohort_id), refusal(served, member, culprit.device_id)
        start = threading.Barrier(2)

        def say(call: Callable[[], None], start: threading.Barrier = start) -> None:
            start.wait()
            call()

        with ThreadPoolExecutor(2) as pool:
            said = [
                pool.submit(say, partial(member.send_answer, given)),
                pool.submit(say, partial(member.refuse, word)),
            ]
        failed = [type(each.exception()) for each in said if each.exception() is not None]
        assert failed == [StateConflictError]
    with served.database.reading() as session:
        kept = words(session, only_cohort(served).cohort_id)
    assert sorted(kept) == raced
    assert len(raced) >= 2
    assert len(refusals(served)) == list(kept.values()).count("refusal")


def test_what_is_not_a_members_word_is_refused(served: Deployment, members: list[ScriptedDevice], join: Join) -> None:
    *committee, culprit = members
    stranger = join()
    stranger.check_in()
    good = refusal(served, committee[0], culprit.device_id)
    with pytest.raises(SignatureInvalidError):
        committee[1].refuse(good)
    with pytest.raises(NotFoundError):
        stranger.refuse(good)

    def altered(**changes: object) -> device_pb2.RefuseRequest:
        request = device_pb2.RefuseRequest()
        request.CopyFrom(good)
        for name, value in changes.items():
            setattr(request, name, value)
        return request

    for request, error in (
        (altered(set_hash=bytes(32)), MalformedError),
        (altered(erasure=bytes(64)), SignatureInvalidError),
        (altered(signature=bytes(64)), SignatureInvalidError),
        (refusal(served, committee[0], stranger.device_id), MalformedError),
    ):
        with pytest.raises(error):
            committee[0].refuse(request)
    nobody, unknown, crowd = altered(), altered(), altered()
    del nobody.shares[:]
    unknown.shares[0].fault = 77
    crowd.shares.extend([good.shares[0]] * 4)
    for request in (nobody, unknown, crowd):
        with pytest.raises(MalformedError):
            committee[0].refuse(request)
    assert refusals(served) == []
