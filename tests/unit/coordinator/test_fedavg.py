"""Averaging: the cohorts of a round are one weighted mean, whatever way the devices were dealt."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from coordinator.aggregation.fedavg import CohortSum, combined, means, next_adapter
from coordinator.aggregation.server_optimisers import ServerMethod, ServerOptimiser
from nightshift.protocol.adapters.initialise import initialise
from nightshift.protocol.adapters.layout import AdapterLayout, Side, Target
from nightshift.protocol.adapters.slots import TrainedSlots
from nightshift.protocol.errors import UsageError
from nightshift.protocol.secagg.encoding import OpenedSum

LAYOUT = AdapterLayout(layers=2, targets=(Target("q_proj", 8, 8),), rank=2, alpha=4.0)
LENGTH = LAYOUT.vector_length(Side.B)


def sum_over(numbers: range, layout: AdapterLayout = LAYOUT, side: Side = Side.B, name: str = "loss") -> CohortSum:
    """What the devices of these numbers add up to: device n has weight (n + 1) / 8, delta n everywhere, loss n."""
    weights = [(number + 1) / 8 for number in numbers]
    opened = OpenedSum(
        weighted_delta=np.full(LENGTH, sum(w * n for w, n in zip(weights, numbers, strict=True)), np.float32),
        weight=sum(weights),
        metrics={name: float(sum(numbers))},
        contributors=len(numbers),
    )
    return CohortSum(TrainedSlots(layout, side, layout.rank), opened)


@pytest.mark.parametrize("cuts", [(0, 7), (0, 3, 7), (0, 2, 4, 7), (0, 1, 2, 3, 4, 5, 6, 7)])
def test_any_deal_of_seven_devices_learns_the_same(cuts: tuple[int, ...]) -> None:
    total = combined([sum_over(range(first, last)) for first, last in itertools.pairwise(cuts)])
    # sum of n (n + 1) / 8 over sum of (n + 1) / 8 for n = 0..6: 112 / 28.
    assert np.array_equal(total.mean_delta, np.full(LENGTH, 4.0, dtype=np.float32))
    assert means(total) == {"weight": 3.5, "loss": 3.0}
    assert total.contributors == 7


def test_adding_up_leaves_the_cohorts_sums_as_they_were() -> None:
    first = sum_over(range(3))
    before = first.opened.weighted_delta.copy()
    combined([first, sum_over(range(3, 6))])
    assert np.array_equal(first.opened.weighted_delta, before)


def test_the_mean_moves_the_trained_side_only() -> None:
    parent = initialise(LAYOUT, bytes(32))
    moved, memory = next_adapter(parent, combined([sum_over(range(7))]), ServerOptimiser(), None)
    assert memory is None
    delta = np.full(LENGTH, 4.0, dtype=np.float32)
    assert np.array_equal(LAYOUT.to_vector(moved, Side.B), LAYOUT.to_vector(parent, Side.B) + delta)
    assert np.array_equal(LAYOUT.to_vector(moved, Side.A), LAYOUT.to_vector(parent, Side.A))


def test_momentum_goes_on_from_what_the_parent_remembers() -> None:
    parent = initialise(LAYOUT, bytes(32))
    server = ServerOptimiser(ServerMethod.FEDAVGM, momentum=0.5)
    first, memory = next_adapter(parent, combined([sum_over(range(7))]), server, None)
    second, _ = next_adapter(first, combined([sum_over(range(7))]), server, memory)
    # 4, then 0.5 * 4 + 4.
    moved = LAYOUT.to_vector(second, Side.B) - LAYOUT.to_vector(parent, Side.B)
    np.testing.assert_allclose(moved, np.full(LENGTH, 10.0), rtol=1e-6)


@pytest.mark.parametrize(
    "other",
    [
        sum_over(range(3), layout=AdapterLayout(layers=2, targets=(Target("q_proj", 8, 8),), rank=2, alpha=8.0)),
        sum_over(range(3), side=Side.A),
        sum_over(range(3), name="tokens"),
    ],
    ids=["layout", "side", "metrics"],
)
def test_sums_that_mean_something_else_are_not_added(other: CohortSum) -> None:
    with pytest.raises(UsageError, match="cannot be added"):
        combined([sum_over(range(3)), other])


def ranked(rank: int, value: float, weight: float, side: Side = Side.B) -> CohortSum:
    """A cohort that trained `rank` slots, all of whose devices moved every value of them by `value`."""
    slots = TrainedSlots(LAYOUT, side, rank)
    delta = np.full(slots.length, value * weight, dtype=np.float32)
    return CohortSum(slots, OpenedSum(delta, weight, {"loss": 3.0}, 3))


@pytest.mark.parametrize("side", list(Side))
def test_who_did_not_train_a_slot_counts_as_no_change_to_it(side: Side) -> None:
    total = combined([ranked(1, 1.0, 1.0, side), ranked(2, 3.0, 0.25, side), ranked(2, 5.0, 0.75, side)])
    for name, tensor in LAYOUT.from_vector(total.mean_delta, side).items():
        first, second = (tensor[0], tensor[1]) if name.endswith("lora_a") else (tensor[:, 0], tensor[:, 1])
        # (1 * 1 + 0.25 * 3 + 0.75 * 5) / 2, and (1 * 0 + 0.25 * 3 + 0.75 * 5) / 2.
        np.testing.assert_array_equal(first, np.full(8, 2.75))
        np.testing.assert_array_equal(second, np.full(8, 2.25))
    assert total.trained.all()
    assert means(total) == {"weight": 2.0, "loss": 1.0}
    assert total.contributors == 9


@pytest.mark.parametrize("method", list(ServerMethod))
def test_slots_that_nobody_trained_stay_with_every_server(method: ServerMethod) -> None:
    parent = initialise(LAYOUT, bytes(32))
    server = ServerOptimiser(method, learning_rate=0.5, momentum=0.5)
    first, memory = next_adapter(parent, combined([ranked(2, 1.0, 1.0)]), server, None)
    second, _ = next_adapter(first, combined([ranked(1, 1.0, 1.0)]), server, memory)
    for name, tensor in second.items():
        if name.endswith("lora_b"):
            np.testing.assert_array_equal(tensor[:, 1], first[name][:, 1])
            assert (tensor[:, 0] > first[name][:, 0]).all()
        else:
            np.testing.assert_array_equal(tensor, parent[name])


def test_no_sum_is_no_round() -> None:
    with pytest.raises(UsageError, match="without an opened cohort"):
        combined([])
