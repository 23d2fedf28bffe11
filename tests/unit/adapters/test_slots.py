"""Rank slots: the first rows of every A and the first columns of every B, and nothing else."""

from __future__ import annotations

import numpy as np
import pytest

from nightshift.protocol.adapters import AdapterLayout, FormatError, LayoutError, Side, Target, TrainedSlots

LAYOUT = AdapterLayout(layers=2, targets=(Target("q_proj", 6, 4), Target("down_proj", 5, 6)), rank=3, alpha=12)


def counting(layout: AdapterLayout) -> dict[str, np.ndarray]:
    """Every value differs, so a wrong order cannot go unnoticed."""
    vector = np.arange(layout.vector_length(Side.BOTH), dtype=np.float32)
    return layout.from_vector(vector, Side.BOTH)


def test_a_slot_is_a_row_of_a_and_a_column_of_b() -> None:
    tensors = counting(LAYOUT)
    vector = TrainedSlots(LAYOUT, Side.BOTH, 1).to_vector(tensors)
    by_hand = []
    for layer in range(2):
        for target in ("q_proj", "down_proj"):
            by_hand += list(tensors[f"layers.{layer}.{target}.lora_a"][0])
            by_hand += list(tensors[f"layers.{layer}.{target}.lora_b"][:, 0])
    assert vector.tolist() == by_hand


@pytest.mark.parametrize("side", list(Side))
@pytest.mark.parametrize("rank", [1, 2, 3])
def test_the_vector_has_the_length_that_is_stated(side: Side, rank: int) -> None:
    slots = TrainedSlots(LAYOUT, side, rank)
    assert slots.to_vector(counting(LAYOUT)).shape == (slots.length,)
    assert slots.length == slots.narrow.vector_length(side)


@pytest.mark.parametrize("side", list(Side))
def test_all_slots_are_the_adapters_own_vector(side: Side) -> None:
    slots = TrainedSlots(LAYOUT, side, LAYOUT.rank)
    assert slots.are_all
    assert slots.narrow == LAYOUT
    vector = LAYOUT.to_vector(counting(LAYOUT), side)
    np.testing.assert_array_equal(slots.to_vector(counting(LAYOUT)), vector)
    np.testing.assert_array_equal(slots.spread(vector), vector)


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_the_scale_is_that_of_the_whole_adapter_whatever_is_trained(rank: int) -> None:
    assert TrainedSlots(LAYOUT, Side.B, rank).narrow.scale == LAYOUT.scale == 4.0


@pytest.mark.parametrize("side", list(Side))
@pytest.mark.parametrize("rank", [1, 2])
def test_a_vector_that_is_spread_is_zero_beyond_its_slots_and_itself_within(side: Side, rank: int) -> None:
    slots = TrainedSlots(LAYOUT, side, rank)
    vector = np.arange(1, slots.length + 1, dtype=np.float32)
    whole = LAYOUT.from_vector(slots.spread(vector), side)
    np.testing.assert_array_equal(slots.to_vector(whole), vector)
    for name, tensor in whole.items():
        beyond = tensor[rank:] if name.endswith("lora_a") else tensor[:, rank:]
        assert not beyond.any()


def test_the_trained_part_is_a_view() -> None:
    tensors = {name: tensor.copy() for name, tensor in counting(LAYOUT).items()}
    slots = TrainedSlots(LAYOUT, Side.B, 2)
    for part in slots.of(tensors).values():
        part[...] = -1.0
    for name, tensor in tensors.items():
        before = counting(LAYOUT)[name]
        if name.endswith("lora_b"):
            assert (tensor[:, :2] == -1.0).all()
            np.testing.assert_array_equal(tensor[:, 2], before[:, 2])
        else:
            np.testing.assert_array_equal(tensor, before)


def test_the_delta_is_of_the_trained_slots_only() -> None:
    before = counting(LAYOUT)
    after = {name: tensor + 1 for name, tensor in before.items()}
    for name, tensor in after.items():
        if name.endswith("lora_b"):
            tensor[:, 2] += 100
    slots = TrainedSlots(LAYOUT, Side.B, 2)
    np.testing.assert_array_equal(slots.delta(after, before), np.ones(slots.length, np.float32))


@pytest.mark.parametrize("rank", [0, -1, 4, 2**32 - 1])
def test_there_is_no_such_part(rank: int) -> None:
    with pytest.raises(LayoutError, match="1 to 3 slots"):
        TrainedSlots(LAYOUT, Side.B, rank)


def test_tensors_of_another_adapter_are_refused() -> None:
    slots = TrainedSlots(LAYOUT, Side.B, 2)
    narrow = {name: tensor[:, :2] for name, tensor in counting(LAYOUT).items() if name.endswith("lora_b")}
    with pytest.raises(FormatError, match="must be float32"):
        slots.to_vector(narrow)
    with pytest.raises(FormatError, match="the vector must be"):
        slots.spread(np.zeros(LAYOUT.vector_length(Side.B), np.float32))
