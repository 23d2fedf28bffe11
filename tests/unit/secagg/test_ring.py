from __future__ import annotations

import numpy as np
import pytest

from nightshift.protocol.secagg import ring
from nightshift.protocol.secagg.parameters import RING_DIMENSION
from nightshift.protocol.secagg.public_matrix import PublicMatrix


def exact_product(uniform: np.ndarray, small: np.ndarray, bits: int) -> np.ndarray:
    """The negacyclic product by one multiplication of two very large Python integers."""
    width = 96  # |coefficient| < 2^64 * 2^16 * 2^12 < 2^93, so that neighbours do not touch

    def evaluate(coefficients: np.ndarray) -> int:
        return sum(int(c) << (width * i) for i, c in enumerate(coefficients))

    product = evaluate(uniform) * evaluate(small)
    digits = []
    for _ in range(2 * RING_DIMENSION):
        digit = product & ((1 << width) - 1)
        if digit >> (width - 1):
            digit -= 1 << width
        digits.append(digit)
        product = (product - digit) >> width
    assert product == 0
    return np.array(
        [
            (low - high) % (1 << bits)
            for low, high in zip(digits[:RING_DIMENSION], digits[RING_DIMENSION:], strict=True)
        ],
        dtype=np.uint64,
    )


def modulo(values: np.ndarray, bits: int) -> np.ndarray:
    return values & np.uint64((1 << bits) - 1)


@pytest.mark.parametrize("bits", [48, 53, 61, 64])
@pytest.mark.parametrize("magnitude", [21, 21 * 512, 32760])
def test_product_equals_exact_integer_arithmetic(bits: int, magnitude: int) -> None:
    rng = np.random.default_rng((bits, magnitude))
    uniform = rng.integers(0, 2**64, (1, RING_DIMENSION), dtype=np.uint64)
    small = rng.integers(-magnitude, magnitude + 1, RING_DIMENSION, dtype=np.int64)
    product = ring.Multiplier(small, bits).times(uniform)
    np.testing.assert_array_equal(modulo(product[0], bits), exact_product(uniform[0], small, bits))


def test_extreme_limbs_are_still_exact() -> None:
    # Every coefficient the largest a signed limb can be, and a key as long as any: the bound must ask for more limbs.
    bits = 64
    uniform = np.full((1, RING_DIMENSION), 0x8000000080000000, dtype=np.uint64)
    small = np.full(RING_DIMENSION, 21 * 512, dtype=np.int64)
    product = ring.Multiplier(small, bits).times(uniform)
    np.testing.assert_array_equal(product[0], exact_product(uniform[0], small, bits))


def test_x_to_the_n_is_minus_one() -> None:
    shift = np.zeros(RING_DIMENSION, dtype=np.int64)
    shift[1] = 1
    uniform = np.arange(1, RING_DIMENSION + 1, dtype=np.uint64)[None]
    product = modulo(ring.Multiplier(shift, 64).times(uniform), 64)[0]
    assert int(product[0]) == 2**64 - RING_DIMENSION
    np.testing.assert_array_equal(product[1:], uniform[0, :-1])


def test_rounding_errors_stay_far_below_the_rigorous_bound() -> None:
    """The bound must hold for what really happens, with room: compare with extended precision's integers."""
    rng = np.random.default_rng(5)
    small = rng.integers(-21, 22, RING_DIMENSION)
    limb = rng.integers(-(2**26), 2**26, RING_DIMENSION)
    spectrum = ring._forward(limb[None]) * ring._forward(small)
    folded = np.fft.ifft(spectrum)[0] * np.conj(np.exp(1j * np.pi * np.arange(2048) / 4096))
    got = np.concatenate([folded.real, folded.imag])
    error = np.abs(got - np.rint(got)).max()
    bound = ring.ERROR_PER_NORM * np.linalg.norm(limb) * np.linalg.norm(small)
    assert 0 < error < bound < ring.ERROR_LIMIT


def test_more_limbs_for_longer_keys() -> None:
    short = ring.Multiplier(np.full(RING_DIMENSION, 3, dtype=np.int64), 53)
    long = ring.Multiplier(np.full(RING_DIMENSION, 21 * 512, dtype=np.int64), 53)
    assert short._limbs == 2
    assert long._limbs == 3


def test_public_polynomials_are_addressed_by_block() -> None:
    first = PublicMatrix(b"h" * 32).take(3)
    np.testing.assert_array_equal(first[2:], PublicMatrix(b"h" * 32, first=2).take(1))
    assert not np.array_equal(first[0], PublicMatrix(b"g" * 32).take(1)[0])
