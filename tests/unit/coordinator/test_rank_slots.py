"""Nights of devices that train 4, 8 and 16 rank slots: real encoding, real secure sums, one release."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from coordinator.deployment import Deployment
from coordinator.releases.publication import load_adapter, newest_release
from coordinator.rounds.advance import advance
from coordinator.rounds.plans import open_round
from coordinator.rounds.rounds import cohorts_of, find
from coordinator.storage.rows import Cohort, CohortState, RoundState, Task
from nightshift.host.clock import now_unix_s
from nightshift.protocol.adapters import AdapterLayout, Side, Tensors
from nightshift.protocol.errors import DeclinedError
from nightshift.protocol.plan import PlanDocument
from tests.support.coordinators import TASK, make_task
from tests.support.scripted_device import ScriptedDevice

Join = Callable[[], ScriptedDevice]
Clock = Callable[[float], None]

LIMITS = (4, 8, 16, 16, 4, 8, 8, 16, 4)
WEIGHTS = (1.0, 0.5, 0.25, 1.0, 0.25, 0.75, 0.5, 0.5, 0.5)


@dataclass
class Night:
    """Nine devices, three of each strength."""

    deployment: Deployment
    devices: list[ScriptedDevice]

    def open(self) -> list[Cohort]:
        """The cohorts of the next round."""
        with self.deployment.database.transaction() as session:
            opened = open_round(session, self.deployment, session.get_one(Task, TASK), now_unix_s())
            return list(cohorts_of(session, opened))

    def contribute(self, numbers: Sequence[int]) -> dict[int, PlanDocument]:
        """What devices were offered; each has sent what follows from its number, cut to its slots."""
        plans = {}
        for number in numbers:
            plan = self.devices[number].check_in().plan
            assert plan is not None
            slots = plan.document.slots
            delta = slots.to_vector(change_of(number, slots.layout, slots.side))
            prepared = self.devices[number].prepare(plan, delta, weight=WEIGHTS[number])
            assert self.devices[number].upload(prepared).complete
            plans[number] = plan.document
        return plans

    def answer(self) -> None:
        """All duties of all devices."""
        for device in self.devices:
            for duty in device.check_in(no_plan=True).duties:
                device.send_answer(device.make_answer(duty))

    def adapter(self) -> tuple[int, AdapterLayout, Tensors]:
        """Number, layout and tensors of the newest release."""
        with self.deployment.database.reading() as session:
            row = newest_release(session, TASK)
        return row.number, *load_adapter(self.deployment.objects, row)


def change_of(number: int, layout: AdapterLayout, side: Side) -> Tensors:
    """What a device would move of the whole adapter; its plan cuts it to some slots."""
    vector = np.random.default_rng(number).uniform(-0.01, 0.01, layout.vector_length(side))
    return layout.from_vector(vector.astype(np.float32), side)


def slot(name: str, tensor: NDArray[np.float32], number: int) -> NDArray[np.float32]:
    """Row of A or column of B."""
    return tensor[number] if name.endswith("lora_a") else tensor[:, number]


@pytest.fixture
def make_night(served: Deployment, join: Join, package: Path) -> Callable[..., Night]:
    def make(limits: Sequence[int] = LIMITS, prekeys: int = 6, **adapter: object) -> Night:
        make_task(
            served,
            package,
            cohort={"n_max": 3, "n_min": 3},
            adapter={"rank": 16, "ranks": [4, 8, 16], "alpha": 32.0, "targets": ["q_proj", "v_proj"], **adapter},
            rounds={"upload_window_s": 600, "answer_window_s": 600},
            encoding={"clip_norm": 1.0},
        )
        devices = [join() for _ in limits]
        for device, limit in zip(devices, limits, strict=True):
            device.rank_limit = limit
            device.check_in(new_prekeys=prekeys)
        return Night(served, devices)

    return make


def steps(plans: Mapping[int, PlanDocument]) -> float:
    """The largest step of the encodings of some plans."""
    return max(plan.vector.encoding.step for plan in plans.values())


@pytest.mark.parametrize("method", ["alternate", "fedavg"])
def test_the_release_is_the_mean_over_all_of_what_each_trained(make_night: Callable[..., Night], method: str) -> None:
    night = make_night(method=method)
    cohorts = night.open()
    assert [cohort.trained_rank for cohort in cohorts] == [4, 8, 16]
    _, _, before = night.adapter()
    plans = night.contribute(range(9))
    assert {number: plan.slots.rank for number, plan in plans.items()} == dict(enumerate(LIMITS))
    assert len({plan.cohort_id for plan in plans.values()}) == 3
    # The factor on B A x is that of the whole adapter in every cohort.
    assert {plan.slots.narrow.scale for plan in plans.values()} == {2.0}
    assert all(plan.vector.delta_length == plan.slots.length for plan in plans.values())
    night.answer()
    number, layout, after = night.adapter()
    assert number == 1

    side = plans[0].side
    assert side is (Side.BOTH if method == "fedavg" else Side.B)
    changes = [change_of(device, layout, side) for device in range(9)]
    for name in layout.trained_names(side):
        for place in range(16):
            trainers = [device for device, limit in enumerate(LIMITS) if limit > place]
            assert len(trainers) == (9 if place < 4 else 6 if place < 8 else 3)
            # A device that did not train the slot counts with its weight, and with no change.
            summed = sum(WEIGHTS[device] * slot(name, changes[device][name], place) for device in trainers)
            expected = summed / sum(WEIGHTS)
            moved = slot(name, after[name], place) - slot(name, before[name], place)
            # The rounding of nine contributions of weight 5.25 in all has a standard deviation of at most
            # sqrt(9) / 2 / 5.25 = 0.29 steps; that of fewer is smaller.
            assert np.abs(moved - expected).max() < 2 * steps(plans)
            assert np.abs(expected).max() > 100 * steps(plans)
    for name in set(layout.shapes()) - set(layout.trained_names(side)):
        np.testing.assert_array_equal(after[name], before[name])


def test_slots_of_a_cohort_that_failed_stay(make_night: Callable[..., Night], clock: Clock) -> None:
    night = make_night(method="ffa")
    night.open()
    _, _, before = night.adapter()
    night.contribute([number for number, limit in enumerate(LIMITS) if limit < 16])
    clock(700)
    night.answer()
    number, layout, after = night.adapter()
    assert number == 1
    for name in layout.trained_names(Side.B):
        np.testing.assert_array_equal(after[name][:, 8:], before[name][:, 8:])
        assert (after[name][:, :8] != before[name][:, :8]).any(axis=0).all()


def test_too_few_strong_devices_train_with_the_next_weaker_ones(make_night: Callable[..., Night]) -> None:
    night = make_night(limits=(4, 4, 4, 8, 8, 16))
    cohorts = night.open()
    assert [cohort.trained_rank for cohort in cohorts] == [4, 8]
    plans = [device.check_in().plan for device in night.devices]
    assert [plan.document.slots.rank for plan in plans if plan is not None] == [4, 4, 4, 8, 8, 8]


def test_where_prekeys_run_out_the_lowest_rank_has_the_cohort_and_everybody_a_place(
    make_night: Callable[..., Night],
) -> None:
    night = make_night(prekeys=1)
    assert [cohort.trained_rank for cohort in night.open()] == [4]
    plans = [device.check_in().plan for device in night.devices]
    assert [plan.document.slots.rank for plan in plans if plan is not None] == [4] * 9


def test_a_device_that_says_it_can_do_less_now_has_no_place_before_the_next_round(
    make_night: Callable[..., Night],
) -> None:
    night = make_night()
    night.open()
    strong = night.devices[2]
    plan = strong.check_in().plan
    assert plan is not None
    strong.rank_limit = 8
    assert strong.check_in().plan is None
    strong.rank_limit = 0
    again = strong.check_in().plan
    assert again is not None
    assert again.plan_hash == plan.plan_hash


@pytest.mark.parametrize(("limit", "rank"), [(3, None), (4, 4), (9, 8), (0, 16)])
def test_who_comes_late_gets_the_most_slots_that_it_can_train(
    make_night: Callable[..., Night], join: Join, limit: int, rank: int | None
) -> None:
    night = make_night()
    night.open()
    late = join()
    late.rank_limit = limit
    plan = late.check_in().plan
    assert (None if plan is None else plan.document.slots.rank) == rank


def test_a_round_that_nobody_can_train_is_not_opened_and_says_why(make_night: Callable[..., Night]) -> None:
    night = make_night(limits=(2, 2, 2, 2))
    with pytest.raises(
        DeclinedError, match=r"fewer than n_min = 3 can train 4 rank slots.*4 devices train fewer than 4"
    ):
        night.open()


def test_the_next_night_trains_the_other_side_in_the_same_classes(make_night: Callable[..., Night]) -> None:
    night = make_night(method="alternate")
    ranks = []
    for _ in range(2):
        night.open()
        plans = night.contribute(range(9))
        ranks.append(Counter((plan.side, plan.slots.rank) for plan in plans.values()))
        night.answer()
        advance(night.deployment)
    assert ranks == [{(side, rank): 3 for rank in (4, 8, 16)} for side in (Side.B, Side.A)]
    with night.deployment.database.reading() as session:
        found, cohorts = find(session, f"{TASK}/2")
    assert found.state is RoundState.PUBLISHED
    assert {cohort.state for cohort in cohorts} == {CohortState.OPENED}
