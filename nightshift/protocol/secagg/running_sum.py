"""The running sum of ciphertexts: constant memory, whatever the number of devices."""

from __future__ import annotations

import struct
from typing import Final

import numpy as np
import numpy.typing as npt

from nightshift.protocol.errors import MalformedError, StateConflictError, UsageError
from nightshift.protocol.secagg import packing
from nightshift.protocol.secagg.parameters import MAX_DEVICES, MAX_VALUE_BITS, RING_DIMENSION, CohortParameters

_HEADER: Final = struct.Struct("<8sHBBQI")
_MAGIC: Final = b"NSSUM\x00\x00\x02"
_CHUNK: Final = 1 << 16
"""Words added at a time: 512 KiB, so that a word is still in L2 when its spare bits are added."""


class RunningSum:
    """Adds ciphertexts modulo 2^Q, as words.

    One array takes the words as they are: the low Q bits of a wrapping sum are right, whatever
    they carry out. Another takes the spare bits, which are pieces of other coefficients.

    Made by `new` or `from_bytes`. Not safe to share between threads.

    What the caller must persist: `to_bytes` together with the list of the devices
    folded so far, in one transaction. Folding an upload means that it is in U.

    Attributes:
        parameters: of the cohort.
        length: D, values in a vector.
        contributors: ciphertexts added so far.
    """

    __slots__ = ("_layout", "_low", "_pieces", "_scratch", "contributors", "length", "parameters")

    def __init__(self, parameters: CohortParameters, length: int, contributors: int) -> None:
        self.parameters = parameters
        self.length = length
        self.contributors = contributors
        self._layout = parameters.words(length)
        self._low = np.zeros(self._layout.words, dtype=np.uint64)
        self._pieces = np.zeros(self._layout.words if self._layout.pieces else 0, dtype=np.uint64)
        self._scratch = np.empty(min(_CHUNK, self._layout.words), dtype=np.uint64)

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

    def add(self, ciphertext: bytes | memoryview) -> None:
        """Fold one contribution's ciphertext.

        Raises:
            MalformedError: wrong size; nothing is added.
            StateConflictError: n_max ciphertexts are in the sum already.
        """
        self._check_size(len(ciphertext))
        if self.contributors >= self.parameters.n_max:
            raise StateConflictError(f"the cohort is full: {self.parameters.n_max} contributions are in its sum")
        self._accumulate(ciphertext)
        self.contributors += 1

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
        self._pieces += other._pieces
        self.contributors += other.contributors

    def rows(self, first: int, count: int) -> npt.NDArray[np.uint64]:
        """Polynomials first .. first + count of the sum: uint64[count, N], modulo 2^Q."""
        last = min(first + count, self.polynomials)
        found = packing.gather(self._low, self._pieces, self._layout, first * RING_DIMENSION, last * RING_DIMENSION)
        return found.reshape(-1, RING_DIMENSION)

    def to_bytes(self) -> bytes:
        """A header, then the sum packed as a ciphertext is."""
        header = _HEADER.pack(
            _MAGIC,
            self.parameters.n_max,
            self.parameters.value_bits,
            self.parameters.committee_size,
            self.length,
            self.contributors,
        )
        coefficients = packing.gather(self._low, self._pieces, self._layout, 0, self._layout.coefficients)
        return header + packing.pack(coefficients, self._layout)

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
            expected = _HEADER.size + parameters.ciphertext_bytes(length)
        except UsageError as error:
            raise MalformedError(f"a running sum has impossible parameters: {error}") from error
        if len(data) != expected:
            raise MalformedError(f"a running sum of {length} values has {expected} bytes, got {len(data)}")
        if contributors > n_max:
            raise MalformedError(f"a running sum claims {contributors} contributors, at most {n_max} fit")
        restored = cls(parameters, length, contributors)
        restored._accumulate(memoryview(data)[_HEADER.size :])
        return restored

    def _check_size(self, size_bytes: int) -> None:
        expected = self.parameters.ciphertext_bytes(self.length)
        if size_bytes != expected:
            raise MalformedError(f"a ciphertext has {size_bytes} bytes, expected {expected}")

    def _accumulate(self, packed: bytes | memoryview) -> None:
        words = packing.as_words(packed, self._layout)
        for start in range(0, len(words), _CHUNK):
            part = words[start : start + _CHUNK]
            self._low[start : start + _CHUNK] += part
            if self._layout.pieces:
                piece = self._scratch[: len(part)]
                np.right_shift(part, np.uint64(self._layout.bits), out=piece)
                self._pieces[start : start + _CHUNK] += piece


# Slots leave fewer than one slot of the 64 bits unused, so a piece has fewer bits than a slot.
assert MAX_DEVICES << (MAX_VALUE_BITS + (MAX_DEVICES - 1).bit_length()) < 1 << 64, "sums of pieces would wrap"
