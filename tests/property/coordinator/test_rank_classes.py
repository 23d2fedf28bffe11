"""Rank classes of any fleet: everybody who can has one place, none trains more than it can, none is short."""

from __future__ import annotations

import hashlib

from hypothesis import given
from hypothesis import strategies as st

from coordinator.rounds.rank_classes import divide
from nightshift.protocol.identity import DeviceId


@given(
    limits=st.lists(st.integers(0, 40), max_size=60),
    ranks=st.sets(st.integers(1, 32), min_size=1, max_size=5),
    n_min=st.integers(3, 12),
    seed=st.binary(min_size=32, max_size=32),
)
def test_nobody_is_lost_and_nobody_trains_more_than_it_can(
    limits: list[int], ranks: set[int], n_min: int, seed: bytes
) -> None:
    fleet = {DeviceId(hashlib.sha256(bytes([number])).digest()): limit for number, limit in enumerate(limits)}
    able = {device for device, limit in fleet.items() if not limit or limit >= min(ranks)}
    classes = divide(fleet, ranks=ranks, n_min=n_min, seed=seed)
    placed = [device for each in classes for device in each.devices]
    assert len(placed) == len(set(placed))
    assert set(placed) == (able if len(able) >= n_min else set())
    assert [each.rank for each in classes] == sorted({each.rank for each in classes} & ranks)
    for each in classes:
        assert len(each.devices) >= n_min
        assert all(not fleet[device] or fleet[device] >= each.rank for device in each.devices)
