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


def limb_bits(bits: int, limbs: int) -> int:
    """Bits of a limb when Q bits are cut into so many."""
    return -(-bits // limbs)


def fewest_limbs(norm: float, bits: int) -> int:
    """The least number of limbs with which every coefficient of every product is off by less than 1/4.

    A signed limb of w bits is at most 2^(w-1) in magnitude, so a polynomial of them has at most the
    norm 2^(w-1) sqrt(N), whatever its coefficients are.

    Args:
        norm: Euclidean norm of the small factor.
        bits: Q.

    Raises:
        ArithmeticError: even the most limbs would not be exact.
    """
    for limbs in range(1, MAX_LIMBS + 1):
        largest = 2.0 ** (limb_bits(bits, limbs) - 1) * math.sqrt(RING_DIMENSION)
        if largest * norm * ERROR_PER_NORM < ERROR_LIMIT:
            return limbs
    raise ArithmeticError(f"a product with a factor of norm {norm:.3g} is not exact with {MAX_LIMBS} limbs")


class Multiplier:
    """Multiplies uniform polynomials by one small polynomial.

    Args:
        small: int64[N], the key or the sum of keys.
        bits: Q; products are exact modulo 2^Q (higher bits are not meaningful).

    Raises:
        ArithmeticError: the factor is too large for exact products.
    """

    def __init__(self, small: npt.NDArray[np.int64], bits: int) -> None:
        self._workspace = _Workspace(rows=0)
        self._spectrum = _forward(small)
        self._limbs = fewest_limbs(float(np.linalg.norm(small.astype(np.float64))), bits)
        self._width = limb_bits(bits, self._limbs)

    def times(self, uniform: Polynomials) -> Polynomials:
        """Return uniform * small: uint64[batch, N], exact modulo 2^Q, wrapping.

        Args:
            uniform: uint64[batch, N]; a few polynomials at a time keep the work in cache.

        Returns:
            A buffer that the next call overwrites; the caller may change it.
        """
        if len(self._workspace.limb) != len(uniform):
            self._workspace = _Workspace(rows=len(uniform))
        work = self._workspace
        rest = uniform.view(np.int64)
        for index in range(self._limbs):
            rest = _take_limb(rest, self._width, work, is_last=index == self._limbs - 1)
            _fold(work.limb, work.folded)
            _transform(work.folded)
            work.folded *= self._spectrum
            words = _rounded_inverse(work.folded)
            if index:
                words <<= self._width * index
                work.total += words
            else:
                work.total[...] = words
        # What rounding added to each limb's product is taken away for all of them at once.
        added = sum(_ROUNDING_BITS << (self._width * index) for index in range(self._limbs))
        unfolded = work.limb.view(np.uint64)
        total = work.total.view(np.uint64)
        total -= np.uint64(added % 2**64)
        unfolded[:, :_HALF] = total[:, 0::2]
        unfolded[:, _HALF:] = total[:, 1::2]
        return unfolded


class _Workspace:
    """Buffers for a batch: fresh memory for every batch would cost more in page faults than the arithmetic."""

    def __init__(self, rows: int) -> None:
        self.limb = np.empty((rows, RING_DIMENSION), dtype=np.int64)
        self.rest = np.empty((rows, RING_DIMENSION), dtype=np.int64)
        self.total = np.empty((rows, RING_DIMENSION), dtype=np.int64)
        self.folded = np.empty((rows, _HALF), dtype=np.complex128)


def _take_limb(rest: npt.NDArray[np.int64], width: int, work: _Workspace, *, is_last: bool) -> npt.NDArray[np.int64]:
    """Write the lowest `width` bits to `work.limb` as signed numbers; return what is left above them."""
    np.left_shift(rest, 64 - width, out=work.limb)
    work.limb >>= 64 - width
    if not is_last:
        # A limb is what rounding to the nearest multiple of 2^w takes away. Carries out of bit 63 vanish modulo 2^64.
        np.add(rest, 1 << (width - 1), out=work.rest)
        work.rest >>= width
    return work.rest


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


def _rounded_inverse(folded: Spectrum) -> npt.NDArray[np.int64]:
    """Transform back in place and round: int64[batch, N], coefficients j and j + N/2 side by side, plus a constant."""
    np.fft.ifft(folded, out=folded)
    folded *= _UNTWIST
    flat = folded.view(np.float64)
    flat += _ROUNDING
    return flat.view(np.int64)
