"""A_j: the public polynomials, which the plan's hash determines.

A_j is the ChaCha20 keystream (RFC 8439) under key SHA-256(domain ‖ H) and nonce 0,
polynomial j at block 512 j, read as little-endian uint64.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from nightshift.protocol.domains import Domain, digest
from nightshift.protocol.secagg.keystream import BLOCK_BYTES, Keystream
from nightshift.protocol.secagg.parameters import RING_DIMENSION

_POLYNOMIAL_BYTES = 8 * RING_DIMENSION
BLOCKS_PER_POLYNOMIAL = _POLYNOMIAL_BYTES // BLOCK_BYTES


class PublicMatrix:
    """The polynomials A_0, A_1, … of one plan, in order.

    Args:
        plan_hash: H, 32 bytes.
        first: polynomial to begin at.
    """

    def __init__(self, plan_hash: bytes, *, first: int = 0) -> None:
        key = digest(Domain.PUBLIC_MATRIX, plan_hash)
        self._stream = Keystream(key, first_block=first * BLOCKS_PER_POLYNOMIAL)

    def take(self, count: int) -> npt.NDArray[np.uint64]:
        """Return the next polynomials: uint64[count, N], uniform modulo 2^64."""
        stream = self._stream.take(count * _POLYNOMIAL_BYTES)
        return stream.view("<u8").reshape(count, RING_DIMENSION)
