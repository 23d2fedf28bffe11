"""Products in Z_{2^64}[X]/(X^N + 1) by floating-point Fourier transform, exactly.

A negacyclic product of length N is one complex product of length N/2: fold
x_j + i x_{j+N/2}, twist by exp(i pi j / N), transform, multiply, and go back
(Bernstein 2001, "Multidigit multiplication for mathematicians", section 5).

One factor is small (a key, or a sum of keys). The other is uniform modulo 2^Q
and is cut into signed limbs, few enough bits each that the rounding error of
every coefficient stays below 1/4; then rounding to the nearest integer gives
the exact product of integers, and the limbs recombine in wrapping arithmetic.

The error bound (Percival 2003, theorem 5.1; Brent, Percival and Zimmermann
2007): a convolution by transforms of length 2^n in arithmetic of unit roundoff
u = 2^-53, with roots that are off by at most beta, is off by at most
||x||_2 ||y||_2 ((1+u)^{3n} (1+sqrt(5) u)^{3n+1} (1+beta)^{3n} - 1) in every
coefficient. The two twists of the factors and the one of the result are one
more level. beta = 2u covers numpy's tables, which are products of two rounded
roots.
"""

from __future__ import annotations

import math
from typing import Final

import numpy as np
import numpy.typing as npt

from nightshift.protocol.secagg.parameters import RING_DIMENSION

_HALF: Final = RING_DIMENSION // 2
_TWIST: Final = np.exp(1j * np.pi * np.arange(_HALF) / RING_DIMENSION)
_UNTWIST: Final = np.conj(_TWIST)

_UNIT_ROUNDOFF: Final = 2.0**-53
_LEVELS: Final = 3 * (_HALF.bit_length() - 1 + 1)
ERROR_PER_NORM: Final = math.expm1(
    _LEVELS * math.log1p(_UNIT_ROUNDOFF)
    + (_LEVELS + 1) * math.log1p(math.sqrt(5) * _UNIT_ROUNDOFF)
    + _LEVELS * math.log1p(2 * _UNIT_ROUNDOFF)
)
"""Largest error of a coefficient for factors of Euclidean norm 1."""

ERROR_LIMIT: Final = 0.25
MAX_LIMBS: Final = 8

Polynomials = npt.NDArray[np.uint64]
Spectrum = npt.NDArray[np.complex128]


class Multiplier:
    """Multiplies uniform polynomials by one small polynomial.

    Args:
        small: int64[N], the key or the sum of keys.
        bits: Q; products are exact modulo 2^Q (higher bits are not meaningful).
    """

    def __init__(self, small: npt.NDArray[np.int64], bits: int) -> None:
        values = small.astype(np.float64)
        self._norm = float(np.linalg.norm(values))
        self._spectrum = _forward(values)
        self._bits = bits
        self._limbs = self._fewest_limbs()

    def _fewest_limbs(self) -> int:
        # Uniform limbs have norm 2^w sqrt(N / 12); the 5 % on top are seven standard deviations of that norm.
        # `times` checks the norm that really occurs.
        for count in range(1, MAX_LIMBS):
            width = -(-self._bits // count)
            norm = 1.05 * 2.0**width * math.sqrt(RING_DIMENSION / 12)
            if norm * self._norm * ERROR_PER_NORM < ERROR_LIMIT:
                return count
        return MAX_LIMBS

    def times(self, uniform: Polynomials) -> Polynomials:
        """Return uniform * small: uint64[batch, N], exact modulo 2^Q, wrapping.

        Args:
            uniform: uint64[batch, N]; a few polynomials at a time keep the work in cache.
        """
        for count in range(self._limbs, MAX_LIMBS + 1):
            product = self._product(uniform, count)
            if product is not None:
                return product
        raise ArithmeticError(f"a product of norm {self._norm:.3g} is not exact with {MAX_LIMBS} limbs")

    def _product(self, uniform: Polynomials, count: int) -> Polynomials | None:
        width = -(-self._bits // count)
        total = np.zeros(uniform.shape, dtype=np.int64)
        rest = uniform.view(np.int64)
        for index in range(count):
            # Arithmetic shifts sign-extend: the limb lies in [-2^(w-1), 2^(w-1)), what is left is rest - limb.
            up = np.int64(64 - width)
            limb = np.right_shift(np.left_shift(rest, up), up)
            rest = np.right_shift(rest - limb, np.int64(width))
            values = limb.astype(np.float64)
            norm = math.sqrt(float(np.einsum("ij,ij->i", values, values).max()))
            if norm * self._norm * ERROR_PER_NORM >= ERROR_LIMIT:
                return None
            part = _inverse(_forward(values) * self._spectrum)
            total += part << np.int64(width * index)
        return total.view(np.uint64)


def _forward(values: npt.NDArray[np.float64]) -> Spectrum:
    folded = np.empty((*values.shape[:-1], _HALF), dtype=np.complex128)
    folded.real = values[..., :_HALF]
    folded.imag = values[..., _HALF:]
    folded *= _TWIST
    return np.fft.fft(folded)


def _inverse(spectrum: Spectrum) -> npt.NDArray[np.int64]:
    folded = np.fft.ifft(spectrum)
    folded *= _UNTWIST
    out = np.empty((*folded.shape[:-1], RING_DIMENSION), dtype=np.int64)
    np.rint(folded.real, out=out[..., :_HALF], casting="unsafe")
    np.rint(folded.imag, out=out[..., _HALF:], casting="unsafe")
    return out
