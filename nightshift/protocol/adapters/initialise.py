"""The first adapter of a task, the same to the bit on every machine.

A gets orthonormal rows, B is zero, so the adapter starts as the base model.
Library QR, log and cos differ in the last bits between machines (BLAS and
SIMD kernels), which would give devices different A from one seed. Here only
operations are used whose result IEEE 754 fixes: integer sums, `+ - * /` and
`sqrt` of single float64 values, and dot products summed strictly from left to
right (`cumsum`).
"""

from __future__ import annotations

import hashlib

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms
from numpy.typing import NDArray

from nightshift.protocol.adapters.errors import LayoutError
from nightshift.protocol.adapters.layout import AdapterLayout

_LABEL = b"nightshift adapter initialisation v1"
_TERMS = 12  # a sum of 12 uniforms has variance 1 in units of their range


def initialise(layout: AdapterLayout, seed: bytes) -> dict[str, NDArray[np.float32]]:
    """Returns the adapter for a seed: A [rank, in] with orthonormal rows, B [out, rank] zero.

    Each A has its own ChaCha20 key stream (RFC 8439), keyed with
    SHA-256(label || seed || tensor name), so it does not depend on the other targets.

    Args:
        layout: names and shapes.
        seed: 32 bytes, public: it fixes A and protects nothing.

    Raises:
        LayoutError: the seed is not 32 bytes.
    """
    if len(seed) != 32:
        raise LayoutError(f"the seed must be 32 bytes, got {len(seed)}")
    tensors: dict[str, NDArray[np.float32]] = {}
    for name, (rows, columns) in layout.shapes().items():
        if name.endswith(".lora_b"):
            tensors[name] = np.zeros((rows, columns), dtype=np.float32)
            continue
        key = hashlib.sha256(_LABEL + seed + name.encode()).digest()
        tensors[name] = _orthonormal_rows(_normals(key, rows, columns)).astype(np.float32)
    return tensors


def _normals(key: bytes, rows: int, columns: int) -> NDArray[np.float64]:
    """Nearly normal values, float64 [rows, columns]: sums of 12 uniforms (Irwin-Hall).

    The sums are of integers and exact; the rows only need directions that are
    spread evenly, for which the thin tails do not matter.
    """
    size_bytes = rows * columns * _TERMS * 2
    stream = Cipher(algorithms.ChaCha20(key, bytes(16)), mode=None).encryptor().update(bytes(size_bytes))
    uniforms = np.frombuffer(stream, dtype="<u2").reshape(rows, columns, _TERMS)
    # 65535 = twice the mean of a uniform uint16; doubling keeps the sum an integer.
    centred = 2 * uniforms.sum(axis=2, dtype=np.int64) - _TERMS * 65_535
    normals: NDArray[np.float64] = centred.astype(np.float64) / 131_072.0
    return normals


def _orthonormal_rows(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    """Gram-Schmidt, each row projected twice, which is enough for float64 accuracy (Giraud et al. 2005)."""
    basis = np.empty_like(rows)
    for index, row in enumerate(rows):
        vector = row.copy()
        for _ in range(2):
            for previous in basis[:index]:
                vector -= _dot(previous, vector) * previous
        basis[index] = vector / np.sqrt(_dot(vector, vector))
    return basis


def _dot(left: NDArray[np.float64], right: NDArray[np.float64]) -> np.float64:
    """Dot product summed from left to right: `np.dot` and `np.sum` order terms per machine."""
    total: np.float64 = np.cumsum(left * right)[-1]
    return total
