from __future__ import annotations

import os

import numpy as np
import pytest
from secagg_cohort import seeded

from nightshift.protocol.errors import UsageError
from nightshift.protocol.secagg.encoding import Encoding, VectorLayout
from nightshift.protocol.secagg.errors import SumOutOfRangeError
from nightshift.protocol.secagg.parameters import CohortParameters
from nightshift.protocol.secagg.rotation import rotated_clip, rotation_seed


def layout(value_bits: int = 16, delta_length: int = 100, **changes: object) -> VectorLayout:
    encoding = Encoding(clip=0.01, value_bits=value_bits, n_max=50)
    return VectorLayout(delta_length, ("loss", "tokens"), encoding, **changes)  # type: ignore[arg-type]  # changes vary


@pytest.mark.parametrize("value_bits", range(8, 17))
def test_values_stay_inside_their_bits_and_the_extremes_are_symmetric(value_bits: int) -> None:
    encoding = Encoding(clip=0.3, value_bits=value_bits, n_max=3)
    values = np.array([-1e30, -0.3, 0.0, 0.3, 1e30], dtype=np.float32)
    top = 2 ** (value_bits - 1) - 1
    for _ in range(20):
        encoded = encoding.encode(values, os.urandom)
        assert encoded.dtype == np.uint64
        assert encoded[[0, 2, 4]].tolist() == [1, top + 1, 2 * top + 1]
        # float32 cannot hold 0.3 exactly, so the clip itself may be one step off.
        assert abs(int(encoded[1]) - 1) <= 1
        assert abs(int(encoded[3]) - (2 * top + 1)) <= 1


def test_rounding_is_unbiased() -> None:
    encoding = Encoding(clip=1.0, value_bits=8, n_max=3)
    value = np.float32(0.30103)
    exact = float(value) * 127 + 128
    encoded = encoding.encode(np.full(1 << 20, value), seeded(7)).astype(np.float64)
    assert set(np.unique(encoded)) == {np.floor(exact), np.floor(exact) + 1}
    fraction = exact - np.floor(exact)
    assert abs(encoded.mean() - exact) < 5 * np.sqrt(fraction * (1 - fraction) / (1 << 20)) + 2**-16


def test_every_value_is_within_a_step() -> None:
    encoding = Encoding(clip=0.01, value_bits=12, n_max=50)
    values = np.random.default_rng(0).uniform(-0.01, 0.01, 200_000).astype(np.float32)
    decoded = encoding.decode_sum(encoding.encode(values, os.urandom), 1)
    assert np.abs(decoded - values).max() <= encoding.step * (1 + 1e-3)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_values_that_are_no_numbers_are_refused(bad: float) -> None:
    values = np.zeros(70_000, dtype=np.float32)
    values[69_999] = bad
    with pytest.raises(UsageError, match="NaN or infinity"):
        Encoding(clip=1.0, value_bits=8, n_max=3).encode(values, os.urandom)


@pytest.mark.parametrize("clip", [0.0, -1.0, np.nan, np.inf, 1e-21, 1e21])
def test_impossible_clips_are_refused(clip: float) -> None:
    with pytest.raises(UsageError, match="clip must lie in"):
        Encoding(clip=clip, value_bits=8, n_max=3)


@pytest.mark.parametrize("clip", [1e-20, 1e20])
@pytest.mark.parametrize("value_bits", [8, 16])
def test_extreme_clips_still_encode(clip: float, value_bits: int) -> None:
    encoding = Encoding(clip=clip, value_bits=value_bits, n_max=3)
    encoded = encoding.encode(np.array([clip, -clip, clip / 2], dtype=np.float32), os.urandom)
    np.testing.assert_allclose(encoding.decode_sum(encoded, 1), [clip, -clip, clip / 2], rtol=2.0 ** (2 - value_bits))


@pytest.mark.parametrize(("value_bits", "limbs"), [(8, 4), (10, 4), (11, 3), (12, 3), (15, 3), (16, 2)])
def test_a_night_goes_through_a_sum(value_bits: int, limbs: int) -> None:
    one = layout(value_bits)
    assert one.length == 100 + 3 * limbs
    rng = np.random.default_rng(3)
    deltas = rng.uniform(-0.005, 0.005, (50, 100)).astype(np.float32)
    weights = rng.uniform(1 / 8, 1, 50)
    losses = rng.uniform(0, 12, 50)
    opened = np.zeros(one.length, dtype=np.uint64)
    for delta, weight, loss in zip(deltas, weights, losses, strict=True):
        encoded = one.encode(delta, float(weight), {"loss": float(loss), "tokens": 100_000}, os.urandom)
        assert int(encoded.max()) < 2**value_bits
        opened += encoded
    result = one.decode_sum(opened, 50)
    expected = (weights[:, None] * deltas).sum(axis=0)
    # Fifty stochastic roundings, each with an error of at most a step and variance of at most a quarter.
    assert np.abs(result.weighted_delta - expected).max() < 6 * np.sqrt(50) / 2 * one.encoding.step
    assert result.weight == pytest.approx(weights.sum(), abs=50 * 2**-32)
    assert result.metrics["loss"] == pytest.approx(losses.sum(), abs=50 * 2**-12)
    assert result.metrics["tokens"] == 5_000_000
    assert result.contributors == 50


@pytest.mark.parametrize("value_bits", [8, 11, 12, 16])
def test_n_max_extreme_vectors_do_not_carry_into_a_neighbour(value_bits: int) -> None:
    """The largest numbers that can be encoded, n_max times, in real slots."""
    one = layout(value_bits)
    parameters = CohortParameters.derive(n_max=50, value_bits=value_bits, committee_size=3)
    encoded = one.encode(
        np.full(100, np.float32(1)), 1.0, {"loss": float(1 << 20), "tokens": float(1 << 20)}, os.urandom
    )
    opened = 50 * encoded
    assert int(opened.max()) < 2**parameters.slot_bits
    result = one.decode_sum(opened, 50)
    assert result.weight == 50
    assert result.metrics["tokens"] == pytest.approx(50 * (1 << 20), rel=1e-9)


def test_metric_limits_set_the_resolution() -> None:
    one = layout(metric_limits=(1.0, 4e9))
    encoded = one.encode(
        np.zeros(100, dtype=np.float32), 0.5, {"loss": 0.123456789, "tokens": 3_999_999_999}, seeded(1)
    )
    result = one.decode_sum(encoded, 1)
    assert result.metrics["loss"] == pytest.approx(0.123456789, abs=2**-32)
    assert result.metrics["tokens"] == pytest.approx(3_999_999_999, abs=1)


@pytest.mark.parametrize(
    ("delta", "weight", "metrics", "message"),
    [
        (np.zeros(99, np.float32), 1.0, {"loss": 1, "tokens": 1}, r"shape \(99,\), expected \(100,\)"),
        (np.zeros(100, np.float32), 0.124, {"loss": 1, "tokens": 1}, "a weight lies in"),
        (np.zeros(100, np.float32), 1.001, {"loss": 1, "tokens": 1}, "a weight lies in"),
        (np.zeros(100, np.float32), float("nan"), {"loss": 1, "tokens": 1}, "a weight lies in"),
        (np.zeros(100, np.float32), 1.0, {"loss": 1}, "expected the metrics"),
        (np.zeros(100, np.float32), 1.0, {"loss": -0.1, "tokens": 1}, "metric 'loss' must lie in"),
        (np.zeros(100, np.float32), 1.0, {"loss": float("nan"), "tokens": 1}, "metric 'loss' must lie in"),
        (np.zeros(100, np.float32), 1.0, {"loss": 1, "tokens": 2**20 + 1}, "metric 'tokens' must lie in"),
        (np.full(100, np.nan, np.float32), 1.0, {"loss": 1, "tokens": 1}, "NaN or infinity"),
    ],
)
def test_what_could_overflow_or_mislead_is_refused(
    delta: np.ndarray, weight: float, metrics: dict[str, float], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        layout().encode(delta, weight, metrics, os.urandom)


def test_impossible_layouts_are_refused() -> None:
    encoding = Encoding(clip=1.0, value_bits=16, n_max=50)
    with pytest.raises(UsageError, match="delta_length"):
        VectorLayout(0, (), encoding)
    with pytest.raises(UsageError, match="delta_length"):
        VectorLayout(2**31, (), encoding)
    with pytest.raises(UsageError, match="distinct names"):
        VectorLayout(1, ("loss", "loss"), encoding)
    with pytest.raises(UsageError, match="distinct names"):
        VectorLayout(1, tuple(str(i) for i in range(65)), encoding)
    with pytest.raises(UsageError, match="metric_limits"):
        VectorLayout(1, ("loss",), encoding, (1.0, 2.0))
    with pytest.raises(UsageError, match="a metric's limit"):
        VectorLayout(1, ("loss",), encoding, (0.0,))
    with pytest.raises(UsageError, match="a rotation seed has 32 bytes, got 5"):
        VectorLayout(1, ("loss",), encoding, rotation=b"short")


def test_sums_that_nobody_could_have_sent_are_absent() -> None:
    one = layout()
    honest = one.encode(np.zeros(100, np.float32), 1.0, {"loss": 1, "tokens": 1}, os.urandom)
    for position, value in ((0, 0), (0, 2**16), (one.delta_length + 1, 2**16 - 1), (one.delta_length + 1, 0)):
        changed = honest.copy()
        changed[position] = value
        with pytest.raises(SumOutOfRangeError, match="is not used"):
            one.decode_sum(changed, 1)
    with pytest.raises(UsageError, match="1 to 50 contributors"):
        one.decode_sum(honest, 51)
    with pytest.raises(UsageError, match="shape"):
        one.decode_sum(honest[:-1], 1)


@pytest.mark.parametrize(("value_bits", "limit"), [(16, 0.01), (12, 0.05)])
@pytest.mark.parametrize("length", [60_000, 65_536])
def test_heavy_tails_survive(value_bits: int, limit: float, length: int) -> None:
    """50 devices, Student-t(3) deltas of scale 1e-4, weights log-uniform 1/8..1: relative rms error of the mean."""
    rng = np.random.default_rng(length)
    deltas = [(rng.standard_t(3, length) * 1e-4).astype(np.float32) for _ in range(50)]
    weights = np.exp(rng.uniform(np.log(1 / 8), 0, 50))
    # What a plan can know: a bound on the norm of a delta, to which devices scale theirs down.
    norm = max(float(np.linalg.norm(delta)) for delta in deltas)
    errors = {}
    for name, seed, clip in (
        ("rotated", rotation_seed(b"h" * 32), rotated_clip(norm, length)),
        ("plain", None, float(max(np.abs(delta).max() for delta in deltas))),
    ):
        one = VectorLayout(length, (), Encoding(clip=clip, value_bits=value_bits, n_max=50), rotation=seed)
        opened = np.sum(
            [one.encode(d, float(w), {}, seeded(i)) for i, (d, w) in enumerate(zip(deltas, weights, strict=True))],
            axis=0,
            dtype=np.uint64,
        )
        result = one.decode_sum(opened, 50)
        mean = sum(w * d.astype(np.float64) for d, w in zip(deltas, weights, strict=True)) / weights.sum()
        error = result.weighted_delta / result.weight - mean
        errors[name] = float(np.sqrt(np.mean(error**2) / np.mean(mean**2)))
    assert errors["rotated"] < limit
    assert errors["rotated"] < errors["plain"] / 3, errors
