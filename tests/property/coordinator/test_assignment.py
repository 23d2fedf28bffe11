"""Dealing devices to cohorts: everybody once, evenly, suspects apart, whatever the order of the list."""

from __future__ import annotations

import hashlib
import itertools
import random
from collections import Counter
from collections.abc import Mapping

from hypothesis import given
from hypothesis import strategies as st

from coordinator.rounds.assignment import MAX_COHORTS, cohort_count, cohort_counts, deal, latecomer
from nightshift.protocol.identity import DeviceId

Deal = tuple[list[DeviceId], list[list[DeviceId]], int, bytes]


def device(number: int) -> DeviceId:
    return DeviceId(hashlib.sha256(number.to_bytes(4, "big")).digest())


@st.composite
def deals(draw: st.DrawFn, *, disjoint: bool = True) -> Deal:
    """Devices, groups of suspects among them, a number of cohorts, a seed."""
    devices = [device(number) for number in range(draw(st.integers(3, 80)))]
    groups = draw(st.integers(0, 4))
    if disjoint:
        member_of = draw(st.lists(st.integers(0, 8), min_size=len(devices), max_size=len(devices)))
        apart = [[each for each, mine in zip(devices, member_of, strict=True) if mine == g] for g in range(groups)]
    else:
        apart = draw(st.lists(st.lists(st.sampled_from(devices), unique=True), min_size=groups, max_size=groups))
    return devices, apart, draw(st.integers(1, 12)), draw(st.binary(min_size=32, max_size=32))


def spread(dealt: Mapping[DeviceId, int], cohorts: int, among: list[DeviceId]) -> int:
    """Most less fewest of some devices over the cohorts."""
    counts = Counter(dealt[each] for each in among)
    return max(counts[number] for number in range(cohorts)) - min(counts[number] for number in range(cohorts))


@given(deals(disjoint=False))
def test_everybody_has_one_cohort_and_it_is_the_same_for_every_order_of_the_list(drawn: Deal) -> None:
    devices, apart, cohorts, seed = drawn
    dealt = deal(devices, cohorts=cohorts, seed=seed, apart=apart)
    assert dealt.keys() == set(devices)
    assert all(0 <= number < cohorts for number in dealt.values())
    shuffled = random.Random(seed).sample(devices, len(devices))
    assert deal(shuffled, cohorts=cohorts, seed=seed, apart=[set(group) for group in apart]) == dealt


@given(deals())
def test_disjoint_groups_are_spread_as_evenly_as_they_can_be(drawn: Deal) -> None:
    devices, apart, cohorts, seed = drawn
    dealt = deal(devices, cohorts=cohorts, seed=seed, apart=apart)
    for group in apart:
        assert spread(dealt, cohorts, group) <= 1
        if len(group) <= cohorts:
            assert len({dealt[each] for each in group}) == len(group), "each can be alone"


@given(deals())
def test_cohorts_are_of_one_size(drawn: Deal) -> None:
    """Also with suspects: a group prefers, among equals, the cohorts that are smallest so far."""
    devices, apart, cohorts, seed = drawn
    assert spread(deal(devices, cohorts=cohorts, seed=seed), cohorts, devices) <= 1
    dealt = deal(devices, cohorts=cohorts, seed=seed, apart=apart)
    suspects = [each for group in apart for each in group]
    # The others even out what the groups left uneven, as far as they reach.
    if len(devices) - len(suspects) >= cohorts * spread(dealt, cohorts, suspects):
        assert spread(dealt, cohorts, devices) <= 1


def test_the_seed_decides() -> None:
    devices = [device(number) for number in range(40)]
    deals_seen = {tuple(deal(devices, cohorts=2, seed=bytes([s]) * 32).items()) for s in range(20)}
    assert len(deals_seen) == 20


@given(st.integers(3, 5000), st.integers(0, 70), st.integers(3, 40), st.integers(0, 470), st.integers(0, 30))
def test_every_cohort_of_a_round_can_reach_n_min(able: int, wanted: int, n_min: int, room: int, suspects: int) -> None:
    n_max = n_min + room
    apart = [[device(number) for number in range(suspects)]]
    count = cohort_count(able, wanted=wanted, n_min=n_min, n_max=n_max, apart=apart)
    assert 1 <= count <= MAX_COHORTS
    if able >= n_min:
        assert able // count >= n_min
    if wanted == 0 and suspects == 0 and count < able // n_min:
        assert -(-able // count) <= n_max, "everybody finds a place"
        assert count == 1 or -(-able // (count - 1)) > n_max, "in as few cohorts as that takes"
    if wanted and not suspects:
        assert count <= wanted


def test_what_an_operator_expects() -> None:
    def automatic(able: int) -> int:
        return cohort_count(able, wanted=0, n_min=10, n_max=512)

    assert [automatic(able) for able in (10, 512, 513, 1024, 1025, 1_000_000)] == [1, 1, 2, 2, 3, 1954]
    assert cohort_count(25, wanted=3, n_min=10, n_max=512) == 2, "25 devices cannot fill three cohorts of ten"
    assert cohort_count(25, wanted=0, n_min=10, n_max=512, apart=[[device(1), device(2)]]) == 2


@given(
    sizes=st.lists(st.integers(3, 60), min_size=1, max_size=5),
    wanted=st.integers(0, 30),
    n_max=st.integers(3, 20),
    suspects=st.sets(st.integers(0, 60), max_size=8),
)
def test_each_class_has_cohorts_that_it_can_fill(sizes: list[int], wanted: int, n_max: int, suspects: set[int]) -> None:
    ends = list(itertools.accumulate(sizes))
    classes = [range(end - size, end) for end, size in zip(ends, sizes, strict=True)]
    counts = cohort_counts(
        [[device(number) for number in each] for each in classes],
        wanted=wanted,
        n_min=3,
        n_max=n_max,
        apart=[[device(number) for number in suspects]],
    )
    for each, count in zip(classes, counts, strict=True):
        assert 1 <= count <= len(each) // 3
        # Suspects of one class are apart from each other, as far as it has devices for that.
        assert count >= min(len(suspects.intersection(each)), len(each) // 3)


def test_a_release_can_name_all_cohorts_of_a_fleet_of_every_strength() -> None:
    fleets = [[DeviceId(bytes([place]) + number.to_bytes(31, "big")) for number in range(3 * size)]
              for place, size in enumerate((10, 4090, 20))]  # fmt: skip
    counts = cohort_counts(fleets, wanted=0, n_min=3, n_max=3)
    assert counts == [10, MAX_COHORTS - 30, 20]


def test_latecomers_are_spread_and_stay_where_they_are() -> None:
    counts = Counter(latecomer(device(number), numbers=range(4), seed=b"s" * 32) for number in range(4000))
    # Binomial: 1000 each, standard deviation sqrt(4000 * 1/4 * 3/4) = 27.
    assert all(abs(counts[number] - 1000) < 5 * 27.4 for number in range(4))
    assert latecomer(device(7), numbers=range(1), seed=b"s" * 32) == 0
    at = latecomer(device(7), numbers=range(4), seed=b"s" * 32)
    assert latecomer(device(7), numbers=[3, 2, 1, 0], seed=b"s" * 32) == at
    # Cohorts that a device cannot join do not move it among the others.
    assert latecomer(device(7), numbers=[at, (at + 1) % 4], seed=b"s" * 32) == at
