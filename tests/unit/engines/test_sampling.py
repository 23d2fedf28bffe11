from __future__ import annotations

import math

import numpy as np
import pytest

from edge_client.engines.sampling import Sampler, SamplingSettings, log_softmax
from nightshift.protocol.errors import UsageError

LOGITS = np.log(np.array([0.5, 0.25, 0.15, 0.1], np.float32))


def frequencies(settings: SamplingSettings, draws: int = 4000) -> np.ndarray:
    sampler = Sampler(settings)
    return np.bincount([sampler.pick(LOGITS) for _ in range(draws)], minlength=4) / draws


def test_greedy_takes_the_likeliest_and_the_lower_id_on_a_tie() -> None:
    sampler = Sampler(SamplingSettings())
    assert sampler.pick(LOGITS) == 0
    assert sampler.pick(np.array([1, 3, 3], np.float32)) == 1


def test_draws_follow_the_probabilities() -> None:
    # Standard error of a share at 4,000 draws is below 0.008; four of them.
    np.testing.assert_allclose(frequencies(SamplingSettings(temperature=1, seed=1)), [0.5, 0.25, 0.15, 0.1], atol=0.032)


def test_temperature_sharpens() -> None:
    squared = np.array([0.5, 0.25, 0.15, 0.1]) ** 2
    expected = squared / squared.sum()
    np.testing.assert_allclose(frequencies(SamplingSettings(temperature=0.5, seed=1)), expected, atol=0.032)


@pytest.mark.parametrize(("top_p", "kept"), [(0.4, 1), (0.6, 2), (0.8, 3), (1.0, 4)])
def test_the_nucleus_is_the_smallest_set_that_reaches_top_p(top_p: float, kept: int) -> None:
    found = frequencies(SamplingSettings(temperature=1, top_p=top_p, seed=1))
    expected = np.array([0.5, 0.25, 0.15, 0.1])
    expected[kept:] = 0
    np.testing.assert_allclose(found, expected / expected.sum(), atol=0.032)
    assert not found[kept:].any()


def test_the_nucleus_of_a_large_vocabulary_is_that_of_a_full_sort() -> None:
    """Only part of the vocabulary is sorted; drawing must not notice. Many logits are equal, as in a coarse model."""
    random = np.random.default_rng(0)
    for spread, top_p in [(0.1, 0.9), (1.0, 0.5), (3.0, 0.95), (8.0, 0.999)]:
        logits = np.round(random.normal(scale=spread, size=5000), 1).astype(np.float32)
        logp = log_softmax(logits)
        order = np.argsort(-logp, kind="stable")
        size = int(np.searchsorted(np.cumsum(np.exp(logp[order])), top_p)) + 1
        sampler = Sampler(SamplingSettings(temperature=1, top_p=top_p, seed=1))
        drawn = {sampler.pick(logits) for _ in range(3000)}
        assert drawn <= set(order[: size + 1].tolist())  # one more: float32 sums may cross top_p a token later
        assert len(drawn) > 0.3 * min(size, 3000)


def test_a_vanishing_temperature_is_greedy() -> None:
    assert {Sampler(SamplingSettings(temperature=1e-40)).pick(LOGITS) for _ in range(5)} == {0}


def test_a_seed_fixes_the_draws() -> None:
    def draw(seed: int) -> list[int]:
        sampler = Sampler(SamplingSettings(temperature=1, seed=seed))
        return [sampler.pick(LOGITS) for _ in range(50)]

    assert draw(7) == draw(7)
    assert draw(7) != draw(8)


def test_log_probabilities_of_large_logits_are_finite() -> None:
    logits = np.array([[1e4, 1e4], [-1e4, 0]], np.float32)
    found = log_softmax(logits)
    np.testing.assert_allclose(found[0], math.log(0.5))
    np.testing.assert_allclose(found[1], [-1e4, 0])


@pytest.mark.parametrize(
    "fields",
    [{"max_tokens": 0}, {"temperature": -1.0}, {"temperature": math.nan}, {"top_p": 0.0}, {"top_p": 1.5}, {"seed": -1}],
)
def test_impossible_settings_are_refused(fields: dict[str, float]) -> None:
    with pytest.raises(UsageError, match=next(iter(fields))):
        SamplingSettings(**fields)  # type: ignore[arg-type]  # impossible on purpose
