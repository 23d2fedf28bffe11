"""The running sum of ciphertexts: constant memory, whatever the number of devices.

Of a packed word (`words`) the low Q bits are a coefficient and the others a piece of another one. The
words are added as they are, in wrapping arithmetic: the low Q bits of the sum are right, whatever they
carry out. The pieces are added apart, several sums to a word, each with room for `MAX_DEVICES` of them.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Final

import numpy as np
import numpy.typing as npt

from nightshift.protocol.errors import MalformedError, StateConflictError, UsageError
from nightshift.protocol.secagg import packing
from nightshift.protocol.secagg.parameters import MAX_DEVICES, RING_DIMENSION, CohortParameters
from nightshift.protocol.secagg.words import WORD_BYTES, WordLayout

_HEADER: Final = struct.Struct("<8sHBBQI")
_MAGIC: Final = b"NSSUM\x00\x00\x02"
_COUNT_BITS: Final = (MAX_DEVICES - 1).bit_length()
_CHUNK: Final = 1 << 14
"""Words added at a time: 128 KiB, so that a word is still in L2 when its piece is added."""


class RunningSum:
    """Adds ciphertexts modulo 2^Q, as words.

    Made by `new` or `from_bytes`. Not safe to share between threads.

    What the caller must persist: `to_bytes` together with the list of the devices
    folded so far, in one transaction. Folding an upload means that it is in U.

    Attributes:
        parameters: of the cohort.
        length: D, values in a vector.
        contributors: ciphertexts added so far.
    """

    __slots__ = ("_layout", "_low", "_pieces", "contributors", "length", "parameters")

    def __init__(self, parameters: CohortParameters, length: int, contributors: int) -> None:
        self.parameters = parameters
        self.length = length
        self.contributors = contributors
        self._layout = parameters.words(length)
        self._low = np.zeros(self._layout.words, dtype="<u8")
        self._pieces = PieceSums(self._layout)

    @classmethod
    def new(cls, parameters: CohortParameters, length: int) -> RunningSum:
        """An empty sum of vectors of `length` values.

        Raises:
            UsageError: `length` is out of range.
        """
        return cls(parameters, length, contributors=0)

    @property
    def polynomials(self) -> int:
        """Polynomials in a ciphertext."""
        return self.parameters.polynomials(self.length)

    def add(self, *ciphertexts: bytes | memoryview) -> None:
        """Fold contributions' ciphertexts. Several at once read and write the sum only once.

        Raises:
            MalformedError: one has the wrong size; nothing is added.
            StateConflictError: there would be more than n_max ciphertexts in the sum; nothing is added.
        """
        for ciphertext in ciphertexts:
            self._check_size(len(ciphertext))
        if self.contributors + len(ciphertexts) > self.parameters.n_max:
            raise StateConflictError(
                f"the cohort is full: {self.contributors} of {self.parameters.n_max} contributions are in its sum"
            )
        uploads = [packing.as_words(ciphertext, self._layout) for ciphertext in ciphertexts]
        for start, stop in self._chunks():
            for words in uploads:
                self._low[start:stop] += words[start:stop]
                if self._layout.pieces:
                    self._pieces.add(words[start:stop], start)
        self.contributors += len(ciphertexts)

    def _chunks(self) -> Iterator[tuple[int, int]]:
        """Ranges of words, none across two fields of the pieces' sums."""
        field = len(self._pieces.sums) or self._layout.words
        for first in range(0, self._layout.words, field):
            last = min(first + field, self._layout.words)
            for start in range(first, last, _CHUNK):
                yield start, min(start + _CHUNK, last)

    def merge(self, other: RunningSum) -> None:
        """Add a partial sum of other devices of the same cohort.

        Raises:
            UsageError: of another cohort's shape.
            StateConflictError: together more than n_max contributions.
        """
        if (other.parameters, other.length) != (self.parameters, self.length):
            raise UsageError("partial sums of different parameters or lengths cannot be added")
        if self.contributors + other.contributors > self.parameters.n_max:
            raise StateConflictError(
                f"together the partial sums hold {self.contributors + other.contributors} contributions, "
                f"the cohort takes {self.parameters.n_max}"
            )
        self._low += other._low
        self._pieces.sums += other._pieces.sums
        self.contributors += other.contributors

    def rows(self, first: int, count: int) -> npt.NDArray[np.uint64]:
        """Polynomials first .. first + count of the sum: uint64[count, N], modulo 2^Q."""
        last = min(first + count, self.polynomials)
        found = packing.gather(
            self._low, self._pieces.of_words, self._layout, first * RING_DIMENSION, last * RING_DIMENSION
        )
        return found.reshape(-1, RING_DIMENSION)

    def to_bytes(self) -> bytes:
        """A header, then the sums of words, then those of pieces, little endian."""
        header = _HEADER.pack(
            _MAGIC,
            self.parameters.n_max,
            self.parameters.value_bits,
            self.parameters.committee_size,
            self.length,
            self.contributors,
        )
        return b"".join((header, self._low.data, self._pieces.sums.data))

    @classmethod
    def from_bytes(cls, data: bytes | memoryview) -> RunningSum:
        """Restore what `to_bytes` wrote.

        Raises:
            MalformedError: not a running sum, of impossible parameters, or of the wrong size.
        """
        if len(data) < _HEADER.size:
            raise MalformedError(f"a running sum has at least {_HEADER.size} bytes, got {len(data)}")
        magic, n_max, value_bits, committee_size, length, contributors = _HEADER.unpack_from(data)
        if magic != _MAGIC:
            raise MalformedError("these bytes are no running sum of this version")
        try:
            parameters = CohortParameters.derive(n_max=n_max, value_bits=value_bits, committee_size=committee_size)
            layout = parameters.words(length)
        except UsageError as error:
            raise MalformedError(f"a running sum has impossible parameters: {error}") from error
        expected = _HEADER.size + WORD_BYTES * (layout.words + piece_words(layout))
        if len(data) != expected:
            raise MalformedError(f"a running sum of {length} values has {expected} bytes, got {len(data)}")
        if contributors > n_max:
            raise MalformedError(f"a running sum claims {contributors} contributors, at most {n_max} fit")
        restored = cls(parameters, length, contributors)
        sums = np.frombuffer(data, dtype="<u8", offset=_HEADER.size)
        restored._low[...] = sums[: layout.words]
        restored._pieces.sums[...] = sums[layout.words :]
        return restored

    def _check_size(self, size_bytes: int) -> None:
        expected = self.parameters.ciphertext_bytes(self.length)
        if size_bytes != expected:
            raise MalformedError(f"a ciphertext has {size_bytes} bytes, expected {expected}")


def sums_per_word(layout: WordLayout) -> int:
    """How many sums of up to 512 pieces fit a word."""
    return 64 // (layout.spare_bits + _COUNT_BITS)


def piece_words(layout: WordLayout) -> int:
    """Words that hold the sums of all pieces."""
    return -(-layout.words // sums_per_word(layout)) if layout.pieces else 0


class PieceSums:
    """Sums of what stands in the upper bits of words.

    With G = `piece_words`, the sum for word l G + g has its own field of s + 9 bits, the l-th from
    below, in word g of `sums`.

    Attributes:
        sums: uint64[G].
    """

    __slots__ = ("_field_bits", "_layout", "_scratch", "sums")

    def __init__(self, layout: WordLayout) -> None:
        self._layout = layout
        self._field_bits = layout.spare_bits + _COUNT_BITS
        self._scratch = np.empty(_CHUNK, dtype=np.uint64)
        self.sums = np.zeros(piece_words(layout), dtype="<u8")

    def add(self, words: packing.Words, first: int) -> None:
        """Add the pieces of words first .. first + len(words); all in one field, and at most `_CHUNK` of them."""
        field, start = divmod(first, len(self.sums))
        pieces = self._scratch[: len(words)]
        np.right_shift(words, np.uint64(self._layout.bits), out=pieces)
        if field:
            pieces <<= np.uint64(self._field_bits * field)
        self.sums[start : start + len(words)] += pieces

    def of_words(self, start: int, stop: int) -> packing.Words:
        """The sums for words start .. stop: uint64[stop - start]."""
        out = np.empty(stop - start, dtype=np.uint64)
        while start < stop:
            field, begin = divmod(start, len(self.sums))
            count = min(stop - start, len(self.sums) - begin)
            part = out[len(out) - (stop - start) :][:count]
            np.right_shift(self.sums[begin : begin + count], np.uint64(self._field_bits * field), out=part)
            part &= np.uint64((1 << self._field_bits) - 1)
            start += count
        return out
