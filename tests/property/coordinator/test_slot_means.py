"""Sums of cohorts of any ranks, through the encoding of their plans: the mean over all devices of what each trained.

A device that did not train a slot counts there as zero. Rounding moves a value by less than one step, once for each
contributor. So without rotation every value of the mean is within (steps x contributors, added over the cohorts that
trained it) / weight of the exact one, and with it, since a rotation keeps lengths, the whole of one cohort's error is.
Secure aggregation opens exactly the integer sum that is formed here (tests/unit/coordinator/test_rank_slots.py).
"""

from __future__ import annotations

import os
from dataclasses import dataclass

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from coordinator.aggregation.fedavg import CohortSum, combined
from nightshift.protocol.adapters import AdapterLayout, Side, Target, TrainedSlots
from nightshift.protocol.secagg.encoding import Encoding, VectorLayout

LAYOUT = AdapterLayout(layers=2, targets=(Target("q_proj", 9, 7), Target("down_proj", 6, 8)), rank=5, alpha=10)
CLIP = 1.0


@dataclass(frozen=True)
class CohortOfDevices:
    """Devices that train the same slots, and how their plan encodes it."""

    slots: TrainedSlots
    weights: list[float]
    value_bits: int
    rotated: bool


@st.composite
def rounds(draw: st.DrawFn) -> list[CohortOfDevices]:
    side = draw(st.sampled_from(Side))
    return [
        CohortOfDevices(
            TrainedSlots(LAYOUT, side, draw(st.integers(1, LAYOUT.rank))),
            draw(st.lists(st.floats(0.125, 1.0), min_size=3, max_size=6)),
            draw(st.sampled_from([12, 16])),
            draw(st.booleans()),
        )
        for _ in range(draw(st.integers(1, 4)))
    ]


@given(cohorts=rounds(), seed=st.integers(0, 2**32 - 1))
def test_the_mean_is_over_all_devices_of_what_each_trained(cohorts: list[CohortOfDevices], seed: int) -> None:
    random = np.random.default_rng(seed)
    side = cohorts[0].slots.side
    length = LAYOUT.vector_length(side)
    exact, error = np.zeros(length), np.zeros(length)
    trained = np.zeros(length, dtype=np.bool_)
    sums = []
    for cohort in cohorts:
        size = cohort.slots.length
        reach = size**0.5 if cohort.rotated else 1.0  # what a rotation can gather in one value, or spread of one
        encoding = Encoding(clip=CLIP * reach, value_bits=cohort.value_bits, n_max=8)
        vector = VectorLayout(size, (), encoding, rotation=bytes(32) if cohort.rotated else None)
        total = np.zeros(vector.length, dtype=np.uint64)
        mine = np.zeros(length)
        for weight in cohort.weights:
            delta = random.uniform(-CLIP, CLIP, size).astype(np.float32)
            total += vector.encode(delta, weight, {}, os.urandom)
            mine += weight * cohort.slots.spread(delta)
        opened = vector.decode_sum(total, len(cohort.weights))
        sums.append(CohortSum(cohort.slots, opened))
        here = cohort.slots.spread(np.ones(size, dtype=np.float32))
        exact += mine
        trained |= here > 0
        error += encoding.step * len(cohort.weights) * reach * here
    found = combined(sums)
    weight = sum(sum(cohort.weights) for cohort in cohorts)
    np.testing.assert_array_equal(found.trained, trained)
    np.testing.assert_array_equal(found.mean_delta[~trained], 0)
    off = np.abs(found.mean_delta - exact / weight)
    assert (off <= error / weight + 1e-5).all()
    assert found.contributors == sum(len(cohort.weights) for cohort in cohorts)
