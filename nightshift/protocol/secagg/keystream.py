"""ChaCha20 (RFC 8439) as a source of bytes.

Two uses: the public polynomials that everybody derives from the plan, and the
stretching of 32 fresh bytes of the operating system's randomness into the
megabytes that noise and rounding need. The kernel's own generator does the
same, at a tenth of the speed on the machines that were measured.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms

KEY_BYTES = 32
BLOCK_BYTES = 64
_ZEROS = bytes(1 << 18)


class Keystream:
    """The keystream of one key under nonce 0, read from front to back.

    Args:
        key: 32 bytes, used for nothing else.
        first_block: 64-byte block to begin at, below 2^32.
    """

    def __init__(self, key: bytes, *, first_block: int = 0) -> None:
        if len(key) != KEY_BYTES:
            raise ValueError(f"a ChaCha20 key has {KEY_BYTES} bytes, got {len(key)}")
        # The library's 16-byte nonce is RFC 8439's block counter (u32, little endian) and its 96-bit nonce.
        counter_and_nonce = first_block.to_bytes(4, "little") + bytes(12)
        self._cipher = Cipher(algorithms.ChaCha20(key, counter_and_nonce), mode=None).encryptor()

    def fill(self, out: npt.NDArray[np.uint8]) -> None:
        """Fill a contiguous uint8[n] with the next n bytes."""
        view = out.data
        for start in range(0, len(view), len(_ZEROS)):
            part = view[start : start + len(_ZEROS)]
            self._cipher.update_into(_ZEROS[: len(part)], part)

    def take(self, size_bytes: int) -> npt.NDArray[np.uint8]:
        """Return the next bytes as uint8[size_bytes]."""
        out = np.empty(size_bytes, dtype=np.uint8)
        self.fill(out)
        return out
