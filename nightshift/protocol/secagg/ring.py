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
# Adding 1.5 * 2^52 to a double rounds it to an integer and leaves that integer in the low bits of the
# word (for magnitudes below 2^51): one pass instead of a rounding and a conversion.
_ROUNDING: Final = 1.5 * 2.0**52
_ROUNDING_BITS: Final = int(np.float64(_ROUNDING).view(np.int64))

Polynomials = npt.NDArray[np.uint64]
Spectrum = npt.NDArray[np.complex128]


class Multiplier:
    """Multiplies uniform polynomials by one small polynomial.

    Args:
        small: int64[N], the key or the sum of keys.
        bits: Q; products are exact modulo 2^Q (higher bits are not meaningful).
    """

    def __init__(self, small: npt.NDArray[np.int64], bits: int) -> None:
        self._workspace = _Workspace(rows=0)
        self._norm = float(np.linalg.norm(small.astype(np.float64)))
        self._spectrum = _forward(small)
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

        Returns:
            A buffer that the next call overwrites; the caller may change it.
        """
        if len(self._workspace.rest) != len(uniform):
            self._workspace = _Workspace(rows=len(uniform))
        for count in range(self._limbs, MAX_LIMBS + 1):
            product = self._product(uniform, count)
            if product is not None:
                return product
        raise ArithmeticError(f"a product of norm {self._norm:.3g} is not exact with {MAX_LIMBS} limbs")

    def _product(self, uniform: Polynomials, count: int) -> Polynomials | None:
        width = -(-self._bits // count)
        # Unsigned limbs of a + sum of 2^(w-1) 2^(w i), each less 2^(w-1), are signed limbs of a: no carries.
        widths = [min(width, 64 - width * index) for index in range(count)]
        halves = [1 << (bits - 1) for bits in widths]
        work = self._workspace
        rest, limb, folded, total = work.rest, work.limb, work.folded, work.total
        np.add(uniform, np.uint64(sum(half << (width * index) for index, half in enumerate(halves))), out=rest)
        total[...] = 0
        for index, half in enumerate(halves):
            np.bitwise_and(rest, np.uint64(2 * half - 1), out=limb)
            rest >>= np.uint64(width)
            signed = limb.view(np.int64)
            signed -= half
            _fold(signed, folded)
            if _largest_norm(folded) * self._norm * ERROR_PER_NORM >= ERROR_LIMIT:
                return None
            _transform(folded)
            folded *= self._spectrum
            _add_unfolded(folded, width * index, total)
        return total.view(np.uint64)


class _Workspace:
    """Buffers for a batch: fresh memory for every batch would cost more in page faults than the arithmetic."""

    def __init__(self, rows: int) -> None:
        self.rest = np.empty((rows, RING_DIMENSION), dtype=np.uint64)
        self.limb = np.empty((rows, RING_DIMENSION), dtype=np.uint64)
        self.total = np.empty((rows, RING_DIMENSION), dtype=np.int64)
        self.folded = np.empty((rows, _HALF), dtype=np.complex128)


def _fold(values: npt.NDArray[np.int64], folded: Spectrum) -> None:
    """Write x_j + i x_{j+N/2} to complex128[..., N/2]."""
    folded.real = values[..., :_HALF]
    folded.imag = values[..., _HALF:]


def _transform(folded: Spectrum) -> None:
    """Twist and transform, in place."""
    folded *= _TWIST
    np.fft.fft(folded, out=folded)


def _forward(values: npt.NDArray[np.int64]) -> Spectrum:
    folded = np.empty((*values.shape[:-1], _HALF), dtype=np.complex128)
    _fold(values, folded)
    _transform(folded)
    return folded


def _largest_norm(folded: Spectrum) -> float:
    flat = folded.view(np.float64)
    return math.sqrt(float(np.einsum("ij,ij->i", flat, flat).max()))


def _add_unfolded(folded: Spectrum, shift: int, total: npt.NDArray[np.int64]) -> None:
    """Transform back in place, round, and add 2^shift times the result to int64[batch, N], wrapping."""
    np.fft.ifft(folded, out=folded)
    folded *= _UNTWIST
    flat = folded.view(np.float64)
    flat += _ROUNDING
    words = flat.view(np.int64)
    words -= _ROUNDING_BITS
    words <<= shift
    total[:, :_HALF] += words[:, 0::2]
    total[:, _HALF:] += words[:, 1::2]
