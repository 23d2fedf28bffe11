"""The running sum of ciphertexts: constant memory, whatever the number of devices."""

from __future__ import annotations

import struct
from typing import Final

import numpy as np
import numpy.typing as npt

from nightshift.protocol.errors import MalformedError, StateConflictError, UsageError
from nightshift.protocol.secagg import packing
from nightshift.protocol.secagg.parameters import MAX_DEVICES, RING_DIMENSION, CohortParameters

_HEADER: Final = struct.Struct("<8sHBBQI")
_MAGIC: Final = b"NSSUM\x00\x00\x01"
# Room for MAX_DEVICES parts of each width: 16 + 9 bits need 32, 4 + 9 need 16; 32-bit parts and wider
# add up in 64 bits, where a wrap is a reduction modulo 2^64.
_ACCUMULATORS: Final = {64: "u8", 32: "u8", 16: "u4", 8: "u4", 4: "u2", 2: "u2", 1: "u2"}
_CHUNK: Final = 16


class RunningSum:
    """Adds ciphertexts modulo 2^Q, one accumulator for each plane of `packing`.

    Made by `new` or `from_bytes`. Not safe to share between threads.

    What the caller must persist: `to_bytes` together with the list of the devices
    folded so far, in one transaction. Folding an upload means that it is in U.

    Attributes:
        parameters: of the cohort.
        length: D, values in a vector.
        contributors: ciphertexts added so far.
    """

    __slots__ = ("_sums", "contributors", "length", "parameters")

    def __init__(self, parameters: CohortParameters, length: int, contributors: int) -> None:
        self.parameters = parameters
        self.length = length
        self.contributors = contributors
        shape = (parameters.polynomials(length), RING_DIMENSION)
        self._sums = [
            np.zeros(shape, dtype=_ACCUMULATORS[plane.width]) for plane in packing.planes(parameters.modulus_bits)
        ]

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
        for index, theirs in enumerate(other._sums):
            self._sums[index] += theirs
        self.contributors += other.contributors

    def rows(self, first: int, count: int) -> npt.NDArray[np.uint64]:
        """Polynomials first .. first + count of the sum: uint64[count, N], modulo 2^Q."""
        planes = packing.planes(self.parameters.modulus_bits)
        out = self._sums[0][first : first + count].astype(np.uint64)
        for plane, total in zip(planes[1:], self._sums[1:], strict=True):
            out += total[first : first + count].astype(np.uint64) << np.uint64(plane.shift)
        out &= np.uint64((1 << self.parameters.modulus_bits) - 1)
        return out

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
        bits = self.parameters.modulus_bits
        packed = np.empty((self.polynomials, RING_DIMENSION * bits // 8), dtype=np.uint8)
        for first in range(0, self.polynomials, _CHUNK):
            packing.pack_into(self.rows(first, _CHUNK), bits, packed[first : first + _CHUNK])
        return header + packed.tobytes()

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
        bits = self.parameters.modulus_bits
        rows = packing.as_polynomials(packed, bits)
        for first in range(0, len(rows), _CHUNK):
            chunk = rows[first : first + _CHUNK]
            for plane, total in zip(packing.planes(bits), self._sums, strict=True):
                total[first : first + _CHUNK] += plane.parts(chunk)


assert MAX_DEVICES * (2**16 - 1) < 2**32, "a 16-bit part would overflow its accumulator"
assert MAX_DEVICES * (2**4 - 1) < 2**16, "a 4-bit part would overflow its accumulator"
