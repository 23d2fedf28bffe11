"""The low Q bits of every coefficient, as bytes.

Q is written as a sum of powers of two, for example 53 = 32 + 16 + 4 + 1, and a
coefficient's bits are cut accordingly, lowest first. A polynomial is one plane
for each cut, widest first: all its 32-bit parts, then all its 16-bit parts, and
so on. Parts of 8 bits and more are little-endian words. Parts of w < 8 bits
share bytes: with m = N w / 8 bytes in the plane, coefficient i + f m is in byte
i at bits f w .. (f + 1) w. Nothing is padded: a polynomial takes N Q / 8 bytes.

Why planes and not one run of bits: a ciphertext is added to a running sum
without shifting a word (`opener.RunningSum`), which is where a coordinator
spends its time.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
import numpy.typing as npt

from nightshift.protocol.secagg.parameters import MAX_MODULUS_BITS, RING_DIMENSION

_WIDTHS = (64, 32, 16, 8, 4, 2, 1)
_WORDS = {64: "<u8", 32: "<u4", 16: "<u2", 8: "u1"}
_SMALLEST = ((8, np.uint8), (16, np.uint16), (32, np.uint32), (64, np.uint64))


@dataclass(frozen=True, slots=True)
class Plane:
    """One cut of the coefficients' bits.

    Attributes:
        width: bits of a part, a power of two.
        shift: the part's lowest bit inside the coefficient.
        offset_bytes: where the plane begins inside a polynomial's bytes.
    """

    width: int
    shift: int
    offset_bytes: int

    @property
    def size_bytes(self) -> int:
        """Bytes of the plane in one polynomial."""
        return RING_DIMENSION * self.width // 8

    def words(self, packed: npt.NDArray[np.uint8]) -> npt.NDArray[np.unsignedinteger]:
        """The plane's words inside packed polynomials uint8[P, N Q / 8], as a view."""
        plane = packed[:, self.offset_bytes : self.offset_bytes + self.size_bytes]
        return plane.view(_WORDS.get(self.width, "u1"))

    def parts(self, packed: npt.NDArray[np.uint8]) -> npt.NDArray[np.unsignedinteger]:
        """The coefficients' parts inside packed polynomials, unshifted: unsigned [P, N]."""
        words = self.words(packed)
        if self.width >= 8:
            return words
        shifts = np.arange(0, 8, self.width, dtype=np.uint8)[:, None]
        parts = words[:, None, :] >> shifts
        parts &= np.uint8((1 << self.width) - 1)
        return parts.reshape(len(packed), RING_DIMENSION)


@cache
def planes(bits: int) -> tuple[Plane, ...]:
    """The planes of `bits`-bit coefficients, widest first."""
    if not 1 <= bits <= MAX_MODULUS_BITS:
        raise ValueError(f"a coefficient has 1 to {MAX_MODULUS_BITS} bits, got {bits}")
    found: list[Plane] = []
    shift = 0
    for width in _WIDTHS:
        if bits & width:
            found.append(Plane(width=width, shift=shift, offset_bytes=shift * RING_DIMENSION // 8))
            shift += width
    return tuple(found)


def pack_into(coefficients: npt.NDArray[np.uint64], bits: int, out: npt.NDArray[np.uint8]) -> None:
    """Write the low `bits` bits of uint64[P, N] to uint8[P, N bits / 8]; higher bits are dropped."""
    rest: npt.NDArray[np.unsignedinteger] = coefficients
    left = bits
    for plane in planes(bits):
        words = plane.words(out)
        if plane.width >= 8:
            words[...] = rest  # an unsigned cast keeps the low bits
        else:
            fields = 8 // plane.width
            parts = rest & np.uint8((1 << plane.width) - 1)
            shifts = np.arange(0, 8, plane.width, dtype=np.uint8)[:, None]
            parts = parts.reshape(len(parts), fields, plane.size_bytes) << shifts
            np.bitwise_or.reduce(parts, axis=1, out=words)
        left -= plane.width
        if left:
            # What is left fits a smaller word, and small words are quick.
            smaller = next(dtype for width, dtype in _SMALLEST if left <= width)
            rest = (rest >> rest.dtype.type(plane.width)).astype(smaller)


def pack(coefficients: npt.NDArray[np.uint64], bits: int) -> bytes:
    """The low `bits` bits of uint64[P, N] as P N bits / 8 bytes."""
    out = np.empty((len(coefficients), RING_DIMENSION * bits // 8), dtype=np.uint8)
    pack_into(coefficients, bits, out)
    return out.tobytes()


def unpack(packed: bytes | memoryview, bits: int) -> npt.NDArray[np.uint64]:
    """Read what `pack` wrote: uint64[P, N].

    Raises:
        ValueError: not a whole number of polynomials.
    """
    rows = as_polynomials(packed, bits)
    out = np.zeros((len(rows), RING_DIMENSION), dtype=np.uint64)
    for plane in planes(bits):
        out |= plane.parts(rows).astype(np.uint64) << np.uint64(plane.shift)
    return out


def as_polynomials(packed: bytes | memoryview, bits: int) -> npt.NDArray[np.uint8]:
    """View bytes as uint8[P, N bits / 8] without a copy.

    Raises:
        ValueError: not a whole number of polynomials.
    """
    flat = np.frombuffer(packed, dtype=np.uint8)
    row_bytes = RING_DIMENSION * bits // 8
    if len(flat) % row_bytes:
        raise ValueError(f"expected a multiple of {row_bytes} bytes, got {len(flat)}")
    return flat.reshape(-1, row_bytes)
