"""Dividing devices by the rank slots that they can train: never more than they can, never alone, nobody lost."""

from __future__ import annotations

import hashlib

import pytest

from coordinator.rounds.rank_classes import RankClass, divide, fall, rank_of
from nightshift.protocol.identity import DeviceId

RANKS = (4, 8, 16)
SEED = b"the parent release".ljust(32)


def fleet(*counts: tuple[int, int]) -> dict[DeviceId, int]:
    """(how many, limit) in turn -> device -> limit."""
    limits = [limit for count, limit in counts for _ in range(count)]
    return {DeviceId(hashlib.sha256(bytes([number])).digest()): limit for number, limit in enumerate(limits)}


def sizes(classes: tuple[RankClass, ...]) -> dict[int, int]:
    return {each.rank: len(each.devices) for each in classes}


@pytest.mark.parametrize(
    ("limit", "rank"), [(0, 16), (3, None), (4, 4), (7, 4), (8, 8), (15, 8), (16, 16), (256, 16), (2**32 - 1, 16)]
)
def test_a_device_trains_the_largest_rank_that_it_can(limit: int, rank: int | None) -> None:
    assert rank_of(limit, RANKS) == rank


@pytest.mark.parametrize(
    ("limits", "expected"),
    [
        (fleet((3, 4), (3, 8), (3, 16)), {4: 3, 8: 3, 16: 3}),
        (fleet((9, 0)), {16: 9}),
        (fleet((9, 4)), {4: 9}),
        (fleet((3, 4), (2, 8), (3, 16)), {4: 5, 16: 3}),  # a short class falls to the next lower one
        (fleet((3, 4), (3, 8), (2, 16)), {4: 3, 8: 5}),
        (fleet((3, 4), (2, 8), (2, 16)), {4: 3, 8: 4}),  # two short ones are enough together
        (fleet((1, 4), (1, 8), (6, 16)), {4: 3, 16: 5}),  # the lowest is lent what it lacks
        (fleet((1, 4), (4, 16)), {4: 5}),  # two lent would leave two: all come
        (fleet((2, 8), (4, 16)), {8: 3, 16: 3}),  # the lowest is the lowest that is there
        (fleet((1, 4), (1, 8)), {}),
        (fleet((2, 2), (3, 4)), {4: 3}),  # too weak for the smallest: no place
        (fleet((9, 2)), {}),
        ({}, {}),
    ],
)
def test_classes_have_enough_devices_and_nobody_is_lost(limits: dict[DeviceId, int], expected: dict[int, int]) -> None:
    assert sizes(divide(limits, ranks=RANKS, n_min=3, seed=SEED)) == expected


def test_who_is_lent_follows_from_the_seed_alone() -> None:
    limits = fleet((1, 4), (9, 16))
    ((low, lent), _) = ((each.rank, set(each.devices)) for each in divide(limits, ranks=RANKS, n_min=3, seed=SEED))
    assert low == 4
    strong = sorted(
        (device for device in limits if limits[device] == 16), key=lambda d: hashlib.sha256(SEED + d).digest()
    )
    assert lent == {*strong[:2], *(device for device in limits if limits[device] == 4)}
    backwards = dict(reversed(limits.items()))
    assert divide(backwards, ranks=RANKS, n_min=3, seed=SEED) == divide(limits, ranks=RANKS, n_min=3, seed=SEED)
    assert divide(limits, ranks=RANKS, n_min=3, seed=bytes(32)) != divide(limits, ranks=RANKS, n_min=3, seed=SEED)


def test_where_a_rank_got_no_cohort_its_devices_fall() -> None:
    classes = divide(fleet((3, 4), (4, 8), (5, 16)), ranks=RANKS, n_min=3, seed=SEED)
    assert sizes(fall(classes, {4, 8, 16})) == {4: 3, 8: 4, 16: 5}
    assert sizes(fall(classes, {4, 8})) == {4: 3, 8: 9}
    assert sizes(fall(classes, {4})) == {4: 12}
