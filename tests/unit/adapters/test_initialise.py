from __future__ import annotations

import hashlib
import math
import struct

import numpy as np
import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms

from nightshift.protocol.adapters import AdapterLayout, LayoutError, Target, initialise

LAYOUT = AdapterLayout(layers=2, targets=(Target("q_proj", 40, 24), Target("up_proj", 40, 56)), rank=8, alpha=16)
SEED = bytes(range(32))


def test_rows_of_a_are_orthonormal_and_b_is_zero() -> None:
    for name, tensor in initialise(LAYOUT, SEED).items():
        if name.endswith("lora_b"):
            assert not tensor.any()
        else:
            wide = tensor.astype(np.float64)
            np.testing.assert_allclose(wide @ wide.T, np.eye(8), atol=1e-6)


def test_every_matrix_has_a_stream_of_its_own_and_the_seed_decides_all() -> None:
    first = initialise(LAYOUT, SEED)
    assert not np.array_equal(first["layers.0.q_proj.lora_a"], first["layers.1.q_proj.lora_a"])
    assert not np.array_equal(first["layers.0.q_proj.lora_a"], first["layers.0.up_proj.lora_a"])
    other = initialise(LAYOUT, bytes(32))
    assert not np.array_equal(first["layers.0.q_proj.lora_a"], other["layers.0.q_proj.lora_a"])
    fewer = AdapterLayout(layers=1, targets=LAYOUT.targets[:1], rank=8, alpha=1)
    name = "layers.0.q_proj.lora_a"
    np.testing.assert_array_equal(initialise(fewer, SEED)[name], first[name])


def scalar_rows(name: str, rows: int, columns: int) -> list[list[float]]:
    """The same definition in plain Python floats: no vector instruction, no library routine."""
    key = hashlib.sha256(b"nightshift adapter initialisation v1" + SEED + name.encode()).digest()
    stream = Cipher(algorithms.ChaCha20(key, bytes(16)), mode=None).encryptor().update(bytes(rows * columns * 24))
    basis: list[list[float]] = []
    for row in range(rows):
        vector = []
        for column in range(columns):
            terms = struct.unpack_from("<12H", stream, 24 * (row * columns + column))
            vector.append((2 * sum(terms) - 12 * 65535) / 131072)
        for _ in range(2):
            for previous in basis:
                dot = scalar_dot(previous, vector)
                vector = [value - dot * other for value, other in zip(vector, previous, strict=True)]
        norm = math.sqrt(scalar_dot(vector, vector))
        basis.append([value / norm for value in vector])
    return basis


def scalar_dot(left: list[float], right: list[float]) -> float:
    total = left[0] * right[0]
    for a, b in zip(left[1:], right[1:], strict=True):
        total += a * b
    return total


def test_it_needs_nothing_but_ieee_arithmetic_to_be_the_same_to_the_bit() -> None:
    tensors = initialise(LAYOUT, SEED)
    for name in ("layers.0.q_proj.lora_a", "layers.1.up_proj.lora_a"):
        expected = np.array(scalar_rows(name, 8, 40), dtype=np.float32)
        np.testing.assert_array_equal(tensors[name], expected)


@pytest.mark.parametrize("seed", [b"", bytes(31), bytes(33)])
def test_the_seed_has_32_bytes(seed: bytes) -> None:
    with pytest.raises(LayoutError, match="32 bytes"):
        initialise(LAYOUT, seed)
