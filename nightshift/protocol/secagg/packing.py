"""Coefficients to words and back, by the layout of `words`.

Everything is little endian. `pack` is what a device does; a coordinator adds packed
words as they are (`running_sum`) and only unpacks a sum.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from nightshift.protocol.secagg.words import WORD_BYTES, WordLayout

Coefficients = npt.NDArray[np.uint64]
Words = npt.NDArray[np.uint64]

_CHUNK = 1 << 14
"""Words worked on at a time: 128 KiB, so that temporaries stay in L2."""


def pack(coefficients: Coefficients, layout: WordLayout) -> bytes:
    """Pack the low Q bits of uint64[T]; higher bits are dropped."""
    low = np.uint64((1 << layout.bits) - 1)
    words = np.empty(layout.words, dtype="<u8")
    np.bitwise_and(coefficients[: layout.words], low, out=words)
    tail = np.zeros(layout.tail, dtype=np.uint64)
    np.bitwise_and(coefficients[layout.words :], low, out=tail[: layout.coefficients - layout.words])
    scratch = np.empty(_CHUNK, dtype=np.uint64)
    for start in range(0, layout.tail, _CHUNK):
        part = tail[start : start + _CHUNK]
        piece = scratch[: len(part)]
        for index in range(layout.pieces):
            # What is shifted beyond bit 63 belongs to a higher piece.
            np.right_shift(part, np.uint64(layout.spare_bits * index), out=piece)
            piece <<= np.uint64(layout.bits)
            first = index * layout.tail + start
            words[first : first + len(part)] |= piece
    return words.tobytes()


def as_words(packed: bytes | memoryview, layout: WordLayout) -> Words:
    """View packed bytes as words, without a copy.

    Raises:
        ValueError: not the size of this layout.
    """
    if len(packed) != layout.size_bytes:
        raise ValueError(f"expected {layout.size_bytes} bytes, got {len(packed)}")
    return np.frombuffer(packed, dtype="<u8")


def unpack(packed: bytes | memoryview, layout: WordLayout) -> Coefficients:
    """Read what `pack` wrote: uint64[T].

    Raises:
        ValueError: not the size of this layout.
    """
    words = as_words(packed, layout)
    return gather(
        words, lambda start, stop: words[start:stop] >> np.uint64(layout.bits), layout, 0, layout.coefficients
    )


def gather(low: Words, pieces: Callable[[int, int], Words], layout: WordLayout, first: int, last: int) -> Coefficients:
    """Coefficients first .. last from words, or from sums of words: uint64[last - first], modulo 2^Q.

    Args:
        low: uint64[words]; the low Q bits of each are right, the others do not matter.
        pieces: (start, stop) -> uint64[stop - start], what stood in the upper s bits of these words, or
            the sum of it, which may be longer than s bits.
        layout: of the words.
        first: a coefficient.
        last: one behind the last coefficient.
    """
    out = np.empty(last - first, dtype=np.uint64)
    split = min(max(first, layout.words), last)
    out[: split - first] = low[first:split]
    if split < last:
        tail = out[split - first :]
        tail[...] = 0
        begin, end = split - layout.words, last - layout.words
        for index in range(layout.pieces):
            start = index * layout.tail
            tail += pieces(start + begin, start + end) << np.uint64(layout.spare_bits * index)
    out &= np.uint64((1 << layout.bits) - 1)
    return out


assert np.dtype("<u8").itemsize == WORD_BYTES
