from __future__ import annotations

import numpy as np
import pytest

from nightshift.protocol.secagg.rotation import rotate, rotate_back, rotated_clip, rotation_seed

SEED = rotation_seed(b"h" * 32)


@pytest.mark.parametrize("length", [1, 2, 3, 5, 31, 32, 33, 1000, 4096, 4097, 100_000])
@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float32, 3e-6), (np.float64, 1e-13)])
def test_rotation_is_orthogonal(length: int, dtype: type, tolerance: float) -> None:
    rng = np.random.default_rng(length)
    values = rng.standard_normal(length).astype(dtype)
    before = values.copy()
    rotated = rotate(values, SEED)
    assert rotated.dtype == dtype
    np.testing.assert_array_equal(values, before)
    assert np.linalg.norm(rotated) == pytest.approx(np.linalg.norm(values), rel=10 * tolerance)
    np.testing.assert_allclose(rotate_back(rotated, SEED), values, atol=5 * tolerance)


def test_rotation_is_the_matrix_of_the_description() -> None:
    """Signs, H on the first 8, signs, H on the last 8, for D = 11, from unit vectors and Sylvester's formula."""
    hadamard = np.array([[(-1) ** (i & j).bit_count() for j in range(8)] for i in range(8)]) / np.sqrt(8)
    matrix = np.stack([rotate(column, SEED) for column in np.eye(11)], axis=1)
    untouched = np.abs(matrix)
    # The first stage leaves coordinates 8..10 alone and the second 0..2: rows 0..2 see only the first 8 columns.
    np.testing.assert_allclose(untouched[:3, :8], np.abs(hadamard[:3]), atol=1e-15)
    np.testing.assert_array_equal(matrix[:3, 8:], 0)
    np.testing.assert_allclose(matrix @ matrix.T, np.eye(11), atol=1e-15)
    signs = np.sign(matrix[0, :8])  # row 0 of H is positive: what remains are the first signs
    np.testing.assert_allclose(matrix[:3, :8], hadamard[:3] * signs, atol=1e-15)


def test_one_spike_spreads_over_everything() -> None:
    length = 100_000
    window = 65_536
    for position in (0, 40_000, length - 1):
        values = np.zeros(length, dtype=np.float64)
        values[position] = 1
        assert np.abs(rotate(values, SEED)).max() < 6 / np.sqrt(window)


def test_the_clip_is_hardly_ever_exceeded() -> None:
    rng = np.random.default_rng(1)
    length = 100_000
    for values in (rng.standard_t(3, length), np.exp(rng.uniform(-9, 0, length)), np.repeat([1.0, 0.0], length // 2)):
        clip = rotated_clip(float(np.linalg.norm(values)), length)
        assert np.count_nonzero(np.abs(rotate(values, SEED)) > clip) == 0


def test_other_plans_rotate_otherwise() -> None:
    values = np.ones(64)
    assert not np.allclose(rotate(values, SEED), rotate(values, rotation_seed(b"g" * 32)))
