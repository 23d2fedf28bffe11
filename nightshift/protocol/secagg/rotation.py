"""A public random rotation that spreads heavy tails evenly over a vector.

Deltas are heavy-tailed: a few values are hundreds of times the typical one, and
a clip that spares them makes the step too coarse for the rest. After random
signs and a Walsh-Hadamard transform every coordinate is close to Gaussian with
the same variance (Ailon and Chazelle 2009; used for aggregation by Suresh et al.
2017, section 3), so a clip of a few standard deviations serves all. Rotating is
linear: the sum of rotated vectors is the rotated sum.

No padding: with m the largest power of two <= D, the first m coordinates are
transformed, then, after signs of their own, the last m. Both are orthogonal,
so the whole is, and going back is exact up to rounding.
"""

from __future__ import annotations

import math
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from nightshift.protocol.domains import Domain, digest
from nightshift.protocol.secagg.keystream import KEY_BYTES, Keystream

SEED_BYTES = KEY_BYTES
CLIP_SIGMAS = 6.0
_LARGEST_RADIX_BITS = 5
_CHUNK = 1 << 15
_COLUMNS = 256
"""Columns of one small matrix product: too small for BLAS to start threads, which would cost more than they save."""

Float = TypeVar("Float", np.float32, np.float64)


def rotation_seed(plan_hash: bytes) -> bytes:
    """The seed of a plan's rotation: SHA-256(domain ‖ H), 32 bytes. Public."""
    return digest(Domain.ROTATION, plan_hash)


def rotated_clip(norm: float, length: int) -> float:
    """A clip for rotated values of a vector of at most this Euclidean norm.

    A rotated coordinate is sub-Gaussian with standard deviation at most norm / sqrt(m), m the
    largest power of two <= length; six of them are exceeded by fewer than 4 coordinates in 10^8.

    Args:
        norm: the L2 clip of a weighted delta, above 0.
        length: D.
    """
    return CLIP_SIGMAS * norm / math.sqrt(_window(length))


def rotate(values: npt.NDArray[Float], seed: bytes) -> npt.NDArray[Float]:
    """Rotate float[D] (float32 or float64): a new vector of the same dtype and norm.

    Args:
        values: D >= 1 values.
        seed: 32 bytes.
    """
    first, second = _sign_bits(len(values), seed)
    window = _window(len(values))
    out = values.copy()
    _apply_signs(out, first)
    out[:window] = _walsh_hadamard(out[:window])
    if window < len(values):
        _apply_signs(out[-window:], second)
        out[-window:] = _walsh_hadamard(out[-window:])
    return out


def rotate_back(values: npt.NDArray[Float], seed: bytes) -> npt.NDArray[Float]:
    """Undo `rotate`."""
    first, second = _sign_bits(len(values), seed)
    window = _window(len(values))
    out = values.copy()
    if window < len(values):
        out[-window:] = _walsh_hadamard(out[-window:])
        _apply_signs(out[-window:], second)
    out[:window] = _walsh_hadamard(out[:window])
    _apply_signs(out, first)
    return out


def _window(length: int) -> int:
    return 1 << (length.bit_length() - 1)


def _sign_bits(length: int, seed: bytes) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
    """The seed's keystream: one bit for each of D signs, then, from a whole byte on, for each of m; lowest first."""
    stream = Keystream(seed)
    return stream.take(-(-length // 8)), stream.take(-(-_window(length) // 8))


def _apply_signs(values: npt.NDArray[Float], bits: npt.NDArray[np.uint8]) -> None:
    """Negate, in place, the values whose bit is 1. In chunks that stay in cache."""
    for start in range(0, len(values), _CHUNK):
        part = values[start : start + _CHUNK]
        ones = np.unpackbits(bits[start // 8 : (start + _CHUNK) // 8], count=len(part), bitorder="little")
        signs = ones.astype(values.dtype)
        signs *= -2
        signs += 1
        part *= signs


def _walsh_hadamard(values: npt.NDArray[Float]) -> npt.NDArray[Float]:
    """The orthonormal Walsh-Hadamard transform of 2^e values, its own inverse.

    It is the Kronecker product of small Hadamard matrices, each a matrix product over one axis.
    """
    exponent = len(values).bit_length() - 1
    stride = 1
    spare: npt.NDArray[Float] | None = None
    while exponent:
        bits = -(-exponent // -(-exponent // _LARGEST_RADIX_BITS))
        radix = 1 << bits
        matrix = _hadamard(bits).astype(values.dtype)
        out = np.empty_like(values) if spare is None else spare
        if stride == 1:
            rows = min(_COLUMNS, len(values) // radix)
            np.matmul(values.reshape(-1, rows, radix), matrix, out=out.reshape(-1, rows, radix))
        else:
            shape = (-1, radix, max(1, stride // _COLUMNS), min(stride, _COLUMNS))
            axes = (0, 2, 1, 3)
            np.matmul(matrix, values.reshape(shape).transpose(axes), out=out.reshape(shape).transpose(axes))
        # The argument is not overwritten; after the first step two buffers take turns.
        spare = values if stride > 1 else None
        values = out
        stride *= radix
        exponent -= bits
    return values


def _hadamard(bits: int) -> npt.NDArray[np.float64]:
    """The orthonormal Hadamard matrix of order 2^bits (Sylvester's construction)."""
    matrix = np.ones((1, 1))
    for _ in range(bits):
        matrix = np.block([[matrix, matrix], [matrix, -matrix]])
    return np.asarray(matrix / math.sqrt(len(matrix)))
