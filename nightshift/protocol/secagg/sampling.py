"""Randomness: where it comes from, and the three distributions drawn from it.

`Randomness` is a function n -> n bytes; `os.urandom` in production, seeded in
the test vectors. Never a numpy generator: these bytes are keys.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from nightshift.protocol.secagg.keystream import KEY_BYTES, Keystream
from nightshift.protocol.secagg.parameters import FAIR_BITS

Randomness: TypeAlias = Callable[[int], bytes]
"""n -> n unpredictable bytes."""

_SAMPLE_MASK = np.uint64((1 << (2 * FAIR_BITS)) - 1)


def draw(randomness: Randomness, size_bytes: int) -> bytes:
    """Ask for bytes and make sure that they came.

    Raises:
        ValueError: the source returned another number of bytes.
    """
    drawn = randomness(size_bytes)
    if len(drawn) != size_bytes:
        raise ValueError(f"the source of randomness returned {len(drawn)} bytes instead of {size_bytes}")
    return drawn


def stretch(randomness: Randomness) -> Keystream:
    """A keystream under 32 fresh bytes, for noise and rounding by the megabyte."""
    return Keystream(draw(randomness, KEY_BYTES))


def centred_binomial(words: npt.NDArray[np.uint64]) -> npt.NDArray[np.int64]:
    """Turn uniform words into centred binomial samples: int64 of the same shape, |x| <= 21.

    The distribution is (21 fair bits) - (21 fair bits), variance 21/2, as in
    Alkim et al. 2016 (New Hope, section 4). A sum of 21 bits less a sum of 21
    others is distributed as the sum of all 42 less 21, because a fair bit and
    its complement are alike; so one population count does. The upper 22 bits
    of each word are not used.
    """
    counts: npt.NDArray[np.uint8] = np.bitwise_count(words & _SAMPLE_MASK)
    return counts.astype(np.int64) - FAIR_BITS


def uniform_field(randomness: Randomness, count: int, prime: int) -> npt.NDArray[np.uint64]:
    """Draw uniform field elements by rejection: uint64[count], each below `prime`.

    Args:
        randomness: source of bytes.
        count: elements wanted.
        prime: 65521 (from 16 bits) or 2^31 - 1 (from 31 bits); at most 1 draw in 4000 is rejected.
    """
    bits = prime.bit_length()
    dtype = np.dtype("<u2" if bits <= 16 else "<u4")
    mask = np.uint64((1 << bits) - 1)
    kept = np.empty(0, dtype=np.uint64)
    while len(kept) < count:
        missing = count - len(kept)
        wanted = missing + missing // 2048 + 16
        candidates = np.frombuffer(draw(randomness, wanted * dtype.itemsize), dtype=dtype).astype(np.uint64)
        candidates &= mask
        kept = np.concatenate([kept, candidates[candidates < prime]])
    return kept[:count]
