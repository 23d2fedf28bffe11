"""Ciphertexts as words: every bit where the description says, and few bits wasted."""

from __future__ import annotations

import numpy as np
import pytest

from nightshift.protocol.secagg import packing
from nightshift.protocol.secagg.parameters import RING_DIMENSION, CohortParameters
from nightshift.protocol.secagg.words import WordLayout


@pytest.mark.parametrize("bits", [1, 7, 8, 15, 31, 32, 33, 48, 51, 53, 61, 63, 64])
def test_the_low_bits_survive(bits: int) -> None:
    layout = WordLayout(bits, 3 * RING_DIMENSION)
    coefficients = np.random.default_rng(bits).integers(0, 2**64, layout.coefficients, dtype=np.uint64)
    packed = packing.pack(coefficients, layout)
    assert len(packed) == layout.size_bytes
    np.testing.assert_array_equal(packing.unpack(packed, layout), coefficients & np.uint64(2**bits - 1))


@pytest.mark.parametrize("bits", [48, 51, 53, 63, 64])
def test_the_documented_place_of_every_bit(bits: int) -> None:
    """Computed here bit by bit from the description in docs/protocol-secagg.md."""
    count = 2 * RING_DIMENSION
    coefficients = [int(c) for c in np.random.default_rng(bits).integers(0, 2**63, count, dtype=np.uint64)]
    coefficients = [c % 2**bits for c in coefficients]
    spare = 64 - bits
    pieces = (bits + spare - 1) // spare if spare else 0
    tail = (count + pieces) // (pieces + 1) if pieces else 0
    words = [0] * (pieces * tail if pieces else count)
    for c, value in enumerate(coefficients):
        if c < len(words):
            words[c] += value
        else:
            for i in range(pieces):
                words[i * tail + c - len(words)] += (value >> (spare * i) & (2**spare - 1)) << bits
    expected = b"".join(word.to_bytes(8, "little") for word in words)
    assert packing.pack(np.array(coefficients, dtype=np.uint64), WordLayout(bits, count)) == expected


@pytest.mark.parametrize(("bits", "pieces"), [(48, 3), (51, 4), (53, 5), (54, 6), (56, 7), (60, 15), (63, 63), (64, 0)])
def test_one_coefficient_more_travels_in_so_many_words(bits: int, pieces: int) -> None:
    layout = WordLayout(bits, 120 * RING_DIMENSION)
    assert layout.pieces == pieces
    if pieces:
        assert layout.words == pytest.approx(layout.coefficients * pieces / (pieces + 1), abs=pieces)


@pytest.mark.parametrize("value_bits", range(8, 17))
@pytest.mark.parametrize("n_max", [3, 10, 50, 100, 257, 512])
def test_whole_words_cost_at_most_five_per_cent(n_max: int, value_bits: int) -> None:
    p = CohortParameters.derive(n_max=n_max, value_bits=value_bits, committee_size=3)
    layout = p.words(1_000_000)
    assert 1 <= layout.size_bytes * 8 / (layout.coefficients * p.modulus_bits) < 1.05


@pytest.mark.parametrize("bits", [0, 65])
def test_impossible_widths_are_refused(bits: int) -> None:
    with pytest.raises(ValueError, match="1 to 64 bits"):
        WordLayout(bits, RING_DIMENSION)


def test_too_few_coefficients_are_refused() -> None:
    with pytest.raises(ValueError, match="leave words empty"):
        WordLayout(63, 4031)


@pytest.mark.parametrize("change", [-1, 1, 8])
def test_another_size_is_refused(change: int) -> None:
    layout = WordLayout(53, RING_DIMENSION)
    with pytest.raises(ValueError, match=f"expected {layout.size_bytes} bytes, got {layout.size_bytes + change}"):
        packing.unpack(bytes(layout.size_bytes + change), layout)
