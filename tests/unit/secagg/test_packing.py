from __future__ import annotations

import numpy as np
import pytest

from nightshift.protocol.secagg import packing
from nightshift.protocol.secagg.parameters import RING_DIMENSION


@pytest.mark.parametrize("bits", [1, 7, 8, 15, 31, 32, 33, 48, 51, 53, 61, 63, 64])
def test_the_low_bits_survive_and_nothing_is_padded(bits: int) -> None:
    rng = np.random.default_rng(bits)
    coefficients = rng.integers(0, 2**64, (3, RING_DIMENSION), dtype=np.uint64)
    packed = packing.pack(coefficients, bits)
    assert len(packed) == 3 * RING_DIMENSION * bits // 8
    np.testing.assert_array_equal(packing.unpack(packed, bits), coefficients & np.uint64(2**bits - 1))


def test_the_documented_place_of_every_bit() -> None:
    # 53 = 32 + 16 + 4 + 1, computed here bit by bit from the description.
    rng = np.random.default_rng(0)
    coefficients = rng.integers(0, 2**53, (1, RING_DIMENSION), dtype=np.uint64)
    expected = bytearray(RING_DIMENSION * 53 // 8)
    offset, shift = 0, 0
    for width in (32, 16, 4, 1):
        plane_bytes = RING_DIMENSION * width // 8
        for c, value in enumerate(coefficients[0]):
            part = int(value) >> shift & ((1 << width) - 1)
            if width >= 8:
                where = offset + c * width // 8
                expected[where : where + width // 8] = part.to_bytes(width // 8, "little")
            else:
                field, byte = divmod(c, plane_bytes)
                expected[offset + byte] |= part << (field * width)
        offset += plane_bytes
        shift += width
    assert packing.pack(coefficients, 53) == bytes(expected)


@pytest.mark.parametrize("bits", [0, 65])
def test_impossible_widths_are_refused(bits: int) -> None:
    with pytest.raises(ValueError, match="1 to 64 bits"):
        packing.planes(bits)


def test_a_cut_polynomial_is_refused() -> None:
    with pytest.raises(ValueError, match="expected a multiple of 27136 bytes, got 27135"):
        packing.unpack(bytes(27135), 53)
