"""Rounds of several cohorts: one place for each device, one release for all sums, and a cohort may fail alone."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from sqlalchemy import select

from coordinator.deployment import Deployment
from coordinator.releases.decisions import newest_decision
from coordinator.releases.publication import load_adapter, newest_release
from coordinator.rounds.advance import advance
from coordinator.rounds.plans import open_round
from coordinator.rounds.rounds import cohorts_of, find
from coordinator.storage.artefacts import artefact_key
from coordinator.storage.rows import AuditRow, Cohort, CohortState, ReleaseRow, Round, RoundState, Task
from nightshift.host.clock import now_unix_s
from nightshift.protocol.adapters.layout import Side
from nightshift.protocol.errors import StateConflictError
from nightshift.protocol.identity import DeviceId
from nightshift.protocol.release import ReleaseDocument
from nightshift.protocol.secagg.member import answer_message
from nightshift.v1 import device_pb2
from tests.support.coordinators import TASK, make_task
from tests.support.scripted_device import Prepared, ScriptedDevice

Join = Callable[[], ScriptedDevice]
Clock = Callable[[float], None]
WEIGHTS = (1.0, 0.5, 0.25, 1.0, 0.125, 0.75)


@dataclass
class Night:
    """Six devices in two cohorts of three."""

    deployment: Deployment
    devices: list[ScriptedDevice]

    def open(self, **more: object) -> list[Cohort]:
        """The cohorts of the next round."""
        with self.deployment.database.transaction() as session:
            opened = open_round(session, self.deployment, session.get_one(Task, TASK), now_unix_s(), **more)  # type: ignore[arg-type]  # `apart` alone
            return list(cohorts_of(session, opened))

    def contribute(self, number: int) -> Prepared:
        """What a device was offered and sent; its delta follows from its number, and its weight too."""
        plan = self.devices[number].check_in().plan
        assert plan is not None
        delta = delta_of(number, plan.document.vector.delta_length)
        prepared = self.devices[number].prepare(plan, delta, weight=WEIGHTS[number], metrics={"tokens": float(number)})
        assert self.devices[number].upload(prepared).complete
        return prepared

    def answer(self, devices: Sequence[ScriptedDevice] | None = None) -> None:
        """All duties of some devices."""
        for device in self.devices if devices is None else devices:
            for duty in device.check_in(no_plan=True).duties:
                device.send_answer(device.make_answer(duty))

    def round(self, number: int = 1) -> tuple[Round, list[Cohort]]:
        """A round and its cohorts as they are now."""
        with self.deployment.database.reading() as session:
            found, cohorts = find(session, f"{TASK}/{number}")
            return found, list(cohorts)

    def sum_of(self, cohort: Cohort) -> NDArray[np.uint64]:
        """The integers of an opened cohort."""
        values: NDArray[np.uint64] = np.load(
            io.BytesIO(self.deployment.objects.get(f"sums/{cohort.cohort_id.hex()}.npy"))
        )
        return values

    def release(self) -> tuple[ReleaseRow, ReleaseDocument]:
        """The newest release."""
        with self.deployment.database.reading() as session:
            row = newest_release(session, TASK)
        return row, ReleaseDocument.parse(row.document)


def delta_of(number: int, length: int) -> NDArray[np.float32]:
    return np.random.default_rng(number).uniform(-0.01, 0.01, length).astype(np.float32)


@pytest.fixture
def night(served: Deployment, join: Join, package: Path) -> Night:
    make_task(
        served,
        package,
        cohort={"n_max": 4, "n_min": 3},
        rounds={"upload_window_s": 600, "answer_window_s": 600},
        encoding={"clip_norm": 1.0},
    )
    devices = [join() for _ in WEIGHTS]
    for device in devices:
        device.check_in(new_prekeys=4)
    return Night(served, devices)


def test_a_round_opens_as_many_cohorts_as_its_devices_need_and_releases_one_adapter(night: Night, clock: Clock) -> None:
    cohorts = night.open()
    assert [cohort.round_number for cohort in cohorts] == [1, 1]
    prepared = [night.contribute(number) for number in range(6)]
    by_plan: dict[bytes, list[int]] = {}
    for number, one in enumerate(prepared):
        by_plan.setdefault(one.plan.plan_hash, []).append(number)
    assert set(by_plan) == {cohort.plan_hash for cohort in cohorts}
    assert [len(mine) for mine in by_plan.values()] == [3, 3]

    # Neither is full: they freeze at their deadline.
    clock(700)
    night.answer(night.devices[:4])
    found, cohorts = night.round()
    assert found.state is RoundState.RUNNING
    night.answer()
    found, cohorts = night.round()
    assert found.state is RoundState.PUBLISHED
    for cohort in cohorts:
        assert cohort.state is CohortState.OPENED
        mine = by_plan[cohort.plan_hash]
        np.testing.assert_array_equal(night.sum_of(cohort), sum(prepared[number].values for number in mine))

    row, document = night.release()
    assert (row.number, document.contributors, found.release_id) == (1, 6, row.release_id)
    assert document.plan_hashes == tuple(cohort.plan_hash for cohort in cohorts)
    layout, tensors = load_adapter(night.deployment.objects, row)
    length = prepared[0].plan.document.vector.delta_length
    deltas = [delta_of(number, length) for number in range(6)]
    expected = np.average(deltas, axis=0, weights=WEIGHTS)
    step = max(one.plan.document.vector.encoding.step for one in prepared)
    # The rounding of six contributions, whose weights add up to 3.6, has a standard deviation of at most
    # sqrt(6) / 2 / 3.6 = 0.34 steps in each value.
    assert np.abs(layout.to_vector(tensors, Side.B) - expected).max() < 3 * step
    assert np.abs(expected).max() > 100 * step


def test_a_cohort_may_fail_alone(night: Night, clock: Clock) -> None:
    night.open()
    plans = [device.check_in().plan for device in night.devices]
    whole = [number for number, plan in enumerate(plans) if plan and plan.plan_hash == plans[0].plan_hash]  # type: ignore[union-attr]  # all have one
    rest = [number for number in range(6) if number not in whole]
    prepared = [night.contribute(number) for number in whole]
    night.contribute(rest[0])
    clock(700)
    night.answer()
    found, cohorts = night.round()
    states = {cohort.plan_hash: cohort.state for cohort in cohorts}
    assert states.pop(prepared[0].plan.plan_hash) is CohortState.OPENED
    assert list(states.values()) == [CohortState.VOID]
    assert found.state is RoundState.PUBLISHED
    row, document = night.release()
    assert (row.number, document.contributors) == (1, 3)
    assert document.plan_hashes == (prepared[0].plan.plan_hash,)
    # The next round has a new parent, so that the void one holds nobody back.
    night.open()
    assert all(device.check_in().plan is not None for device in night.devices)


def test_a_round_whose_cohorts_are_all_void_is_void_and_says_why(night: Night, clock: Clock) -> None:
    night.open()
    clock(700)
    advance(night.deployment)
    found, cohorts = night.round()
    assert found.state is RoundState.VOID
    assert [cohort.state for cohort in cohorts] == [CohortState.VOID] * 2
    assert found.reason.startswith("each of 2 cohorts is void: 1: 0 contributions came")
    assert night.release()[0].number == 0
    night.open()
    assert night.round(2)[0].state is RoundState.RUNNING


def test_a_device_has_no_place_in_another_cohort(night: Night) -> None:
    night.open()
    first, *others = night.devices
    own = first.check_in().plan
    assert own is not None
    foreign = next(plan for other in others if (plan := other.check_in().plan) and plan.plan_hash != own.plan_hash)
    delta = delta_of(0, own.document.vector.delta_length)
    with pytest.raises(StateConflictError, match="another cohort of the round"):
        first.upload(first.prepare(foreign, delta))
    assert first.upload(first.prepare(own, delta)).complete
    with pytest.raises(StateConflictError, match="contributed to this parent release"):
        first.upload(first.prepare(foreign, delta))


def test_suspects_are_kept_apart(night: Night) -> None:
    pair = [DeviceId(device.device_id) for device in night.devices[2:4]]
    night.open(apart=[pair])
    plans = [device.check_in().plan for device in night.devices[2:4]]
    assert plans[0] is not None
    assert plans[1] is not None
    assert plans[0].plan_hash != plans[1].plan_hash


def test_a_device_that_comes_later_in_the_night_has_a_place_of_its_own(night: Night, join: Join) -> None:
    late = join()
    late.check_in()  # no prekeys: not in the pool
    night.open()
    plans = [late.check_in().plan for _ in range(3)]
    assert plans[0] is not None
    assert {plan.plan_hash for plan in plans if plan is not None} == {plans[0].plan_hash}
    prepared = late.prepare(plans[0], delta_of(0, plans[0].document.vector.delta_length))
    assert late.upload(prepared).complete


def test_where_prekeys_run_out_there_are_fewer_cohorts(served: Deployment, join: Join, package: Path) -> None:
    make_task(served, package, cohort={"n_max": 3, "n_min": 3}, rounds={"upload_window_s": 600, "answer_window_s": 600})
    night = Night(served, [join() for _ in range(6)])
    for device in night.devices:
        device.check_in(new_prekeys=1)
    (cohort,) = night.open()
    assert len({device.check_in().plan.plan_hash for device in night.devices}) == 1  # type: ignore[union-attr]  # all have one
    assert cohort.n_max == 3


def test_members_that_disagree_without_proof_are_shown_to_the_operator_and_to_nobody_else(
    served: Deployment, join: Join, package: Path
) -> None:
    """C = 7: six agree, and only seven would prove that the other one lied (`opener._judge`)."""
    make_task(served, package, cohort={"n_max": 7, "n_min": 3}, encoding={"clip_norm": 1.0})
    night = Night(served, [join() for _ in range(7)])
    for device in night.devices:
        device.check_in(new_prekeys=2)
    night.open()
    for number in range(7):
        plan = night.devices[number].check_in().plan
        assert plan is not None
        delta = delta_of(number, plan.document.vector.delta_length)
        night.devices[number].upload(night.devices[number].prepare(plan, delta))
    liar = night.devices[0]
    (duty,) = liar.check_in().duties
    wrong = liar.make_answer(duty)
    liar.send_answer(altered(liar, plan.plan_hash, wrong))
    night.answer(night.devices[1:])
    _, (cohort,) = night.round()
    assert cohort.state is CohortState.OPENED
    assert (cohort.members_outside, cohort.members_disputed) == ("[]", f"[{wrong.index}]")
    with served.database.reading() as session:
        audited = session.scalars(select(AuditRow).where(AuditRow.subject == cohort.cohort_id.hex())).one()
        assert f'"disputed": [{wrong.index}]' in audited.detail
    # It goes on taking part.
    night.open()
    assert liar.check_in().plan is not None


def altered(member: ScriptedDevice, plan_hash: bytes, request: device_pb2.AnswerRequest) -> device_pb2.AnswerRequest:
    """An answer with other field elements, rightly signed."""
    vector = np.frombuffer(request.vector, dtype="<u2").copy()
    vector[:8] = (vector[:8].astype(np.uint32) + 1) % 65521
    changed = device_pb2.AnswerRequest()
    changed.CopyFrom(request)
    changed.vector = vector.tobytes()
    changed.signature = member.sign(answer_message(plan_hash, request.set_hash, request.index, changed.vector))
    return changed


def test_sums_that_make_no_usable_adapter_void_the_round(night: Night, clock: Clock) -> None:
    """The stored parent is damaged: nothing can be added to it. The round must not run for ever."""
    night.open()
    for number in range(6):
        night.contribute(number)
    clock(700)
    advance(night.deployment)
    parent, _ = night.release()
    night.deployment.objects.put(artefact_key(parent.adapter_sha256), b"no adapter")
    night.answer()
    found, cohorts = night.round()
    assert [cohort.state for cohort in cohorts] == [CohortState.OPENED] * 2
    assert found.state is RoundState.VOID
    assert found.reason
    # What was contributed is given away, so learning starts again under a new number, by a logged decision.
    again, document = night.release()
    assert (again.number, again.adapter_sha256, document.restores) == (1, parent.adapter_sha256, parent.release_id)
    with night.deployment.database.reading() as session:
        decision = newest_decision(session, TASK)
    assert decision is not None
    assert (decision.kind, decision.served, decision.next_parent) == ("set aside", parent.release_id, again.release_id)
