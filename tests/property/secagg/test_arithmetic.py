from __future__ import annotations

import os

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from nightshift.protocol.secagg import packing, ring
from nightshift.protocol.secagg.encoding import Encoding, VectorLayout
from nightshift.protocol.secagg.parameters import RING_DIMENSION
from nightshift.protocol.secagg.words import WordLayout

SPARSE = st.dictionaries(st.integers(0, RING_DIMENSION - 1), st.integers(0, 2**64 - 1), min_size=1, max_size=12)
SMALL = st.dictionaries(st.integers(0, RING_DIMENSION - 1), st.integers(-10752, 10752), min_size=1, max_size=12)


@settings(max_examples=60, deadline=None)
@given(SPARSE, SMALL, st.integers(1, 64))
def test_sparse_products_equal_schoolbook_multiplication(
    uniform: dict[int, int], small: dict[int, int], bits: int
) -> None:
    a = np.zeros((1, RING_DIMENSION), dtype=np.uint64)
    for position, value in uniform.items():
        a[0, position] = value
    s = np.zeros(RING_DIMENSION, dtype=np.int64)
    for position, value in small.items():
        s[position] = value
    expected = [0] * RING_DIMENSION
    for i, x in uniform.items():
        for j, y in small.items():
            sign = 1 if i + j < RING_DIMENSION else -1
            expected[(i + j) % RING_DIMENSION] += sign * x * y
    product = ring.Multiplier(s, bits).times(a)[0] & np.uint64((1 << bits) - 1)
    np.testing.assert_array_equal(product, np.array([x % (1 << bits) for x in expected], dtype=np.uint64))


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 64))
def test_products_distribute_over_sums_of_keys(seed: int, bits: int) -> None:
    """What makes aggregation work: A s + A s' = A (s + s')."""
    rng = np.random.default_rng(seed)
    a = rng.integers(0, 2**64, (2, RING_DIMENSION), dtype=np.uint64)
    s, t = rng.integers(-21, 22, (2, RING_DIMENSION), dtype=np.int64)
    apart = ring.Multiplier(s, bits).times(a) + ring.Multiplier(t, bits).times(a)
    together = ring.Multiplier(s + t, bits).times(a)
    mask = np.uint64((1 << bits) - 1)
    np.testing.assert_array_equal(apart & mask, together & mask)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 64), st.integers(1, 3), st.integers(0, 2**32))
def test_packing_round_trips(bits: int, rows: int, seed: int) -> None:
    layout = WordLayout(bits, rows * RING_DIMENSION)
    coefficients = np.random.default_rng(seed).integers(0, 2**64, layout.coefficients, dtype=np.uint64)
    packed = packing.pack(coefficients, layout)
    assert len(packed) == layout.size_bytes
    unpacked = packing.unpack(packed, layout)
    np.testing.assert_array_equal(unpacked, coefficients & np.uint64((1 << bits) - 1))
    assert packing.pack(unpacked, layout) == packed


@settings(max_examples=40, deadline=None)
@given(st.integers(40, 64), st.integers(0, 2**32), st.integers(0, 4096), st.integers(0, 4096))
def test_sums_of_words_are_sums_of_coefficients(bits: int, seed: int, one: int, other: int) -> None:
    """Of any number of ciphertexts up to 512, and for any part of the coefficients."""
    layout = WordLayout(bits, RING_DIMENSION)
    coefficients = np.random.default_rng(seed).integers(0, 2**64, (3, RING_DIMENSION), dtype=np.uint64)
    times = np.array([510, 1, 1], dtype=np.uint64)
    low, pieces = np.zeros((2, layout.words), dtype=np.uint64)
    for row, count in zip(coefficients, times, strict=True):
        words = packing.as_words(packing.pack(row, layout), layout)
        low += count * words
        if layout.pieces:
            pieces += count * (words >> np.uint64(bits))
    expected = (coefficients * times[:, None]).sum(axis=0, dtype=np.uint64) & np.uint64((1 << bits) - 1)
    first, last = sorted((one, other))
    found = packing.gather(low, lambda start, stop: pieces[start:stop], layout, first, last)
    np.testing.assert_array_equal(found, expected[first:last])


FINITE = st.floats(allow_nan=False, allow_infinity=False, width=32)


@settings(max_examples=100, deadline=None)
@given(
    st.lists(FINITE, min_size=1, max_size=40),
    st.floats(1e-20, 1e20),
    st.integers(8, 16),
)
def test_any_finite_vector_encodes_within_its_bits_and_near_its_value(
    values: list[float], clip: float, value_bits: int
) -> None:
    encoding = Encoding(clip=clip, value_bits=value_bits, n_max=3)
    vector = np.array(values, dtype=np.float32)
    encoded = encoding.encode(vector, os.urandom)
    assert 1 <= int(encoded.min()) <= int(encoded.max()) <= 2**value_bits - 1
    decoded = encoding.decode_sum(encoded, 1)
    clipped = np.clip(vector.astype(np.float64), -clip, clip)
    assert np.all(np.abs(decoded - clipped) <= encoding.step * 1.01)


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 50),
    st.integers(8, 16),
    st.lists(st.floats(0, 2**20), max_size=5),
    st.floats(1 / 8, 1),
    st.booleans(),
)
def test_layouts_give_back_weight_and_metrics(
    delta_length: int, value_bits: int, values: list[float], weight: float, rotated: bool
) -> None:
    names = tuple(f"metric {number}" for number in range(len(values)))
    layout = VectorLayout(delta_length, names, Encoding(1.0, value_bits, 3), rotation=b"r" * 32 if rotated else None)
    delta = np.linspace(-0.1, 0.1, delta_length, dtype=np.float32)
    encoded = layout.encode(delta, weight, dict(zip(names, values, strict=True)), os.urandom)
    opened = layout.decode_sum(encoded + encoded, 2)
    assert abs(opened.weight - 2 * weight) <= 2**-31
    for name, value in zip(names, values, strict=True):
        assert abs(opened.metrics[name] - 2 * value) <= 2 * 2**-12 * 1.001
