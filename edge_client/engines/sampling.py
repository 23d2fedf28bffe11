"""Choosing the next token: greedy, or by temperature and nucleus with a seed."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nightshift.protocol.errors import UsageError

_COLDEST = 1e-6  # below this temperature nothing but the likeliest token can be drawn


@dataclass(frozen=True, slots=True)
class SamplingSettings:
    """How tokens are chosen.

    Attributes:
        max_tokens: most tokens to generate.
        temperature: 0 takes the likeliest token (the lower id on a tie).
        top_p: smallest set of likeliest tokens with at least this probability
            (nucleus sampling, Holtzman et al., ICLR 2020); 1 keeps all.
        seed: fixes the draws; None draws differently every time.

    Raises:
        UsageError: a value is out of its range.
    """

    max_tokens: int = 256
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int | None = None

    def __post_init__(self) -> None:
        if self.max_tokens < 1:
            raise UsageError(f"max_tokens must be at least 1, got {self.max_tokens}")
        if not (math.isfinite(self.temperature) and 0 <= self.temperature <= 100):
            raise UsageError(f"temperature must be from 0 to 100, got {self.temperature}")
        if not 0 < self.top_p <= 1:
            raise UsageError(f"top_p must be above 0 and at most 1, got {self.top_p}")
        if self.seed is not None and self.seed < 0:
            raise UsageError(f"seed must not be negative, got {self.seed}")


class Sampler:
    """Draws tokens for one generation."""

    def __init__(self, settings: SamplingSettings) -> None:
        self._settings = settings
        self._random = np.random.default_rng(settings.seed)

    def pick(self, logits: NDArray[np.float32]) -> int:
        """Returns the id of the next token for float32 [vocabulary] logits."""
        if self._settings.temperature < _COLDEST:
            return int(np.argmax(logits))
        kept, probabilities = self._nucleus(logits)
        weights = np.cumsum(probabilities)
        drawn = np.searchsorted(weights, self._random.random() * weights[-1], side="right")
        return int(kept[min(int(drawn), len(kept) - 1)])

    def _nucleus(self, logits: NDArray[np.float32]) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
        """Ids of the tokens that may be drawn, and their probabilities; the lower id first where two are as likely.

        Sorting a vocabulary of 150,000 for each token costs as much as a small model's step, so only the tokens
        that can be in the nucleus are sorted: 64 at first, eight times as many while they do not reach it.
        """
        # float32 here: eight digits of a probability, at a fifth of the time.
        chances = np.exp((logits - logits.max()) / np.float32(self._settings.temperature))
        total = float(chances.sum(dtype=np.float64))
        if self._settings.top_p == 1:
            return np.arange(len(chances)), chances.astype(np.float64) / total
        count = 64
        while True:
            among = self._likeliest(chances, count)
            order = among[np.argsort(-chances[among], kind="stable")]
            probabilities = chances[order].astype(np.float64) / total
            # The token that crosses top_p belongs to the nucleus.
            size = int(np.searchsorted(np.cumsum(probabilities), self._settings.top_p)) + 1
            if size <= len(order) or len(order) == len(chances):
                return order[:size], probabilities[:size]
            count *= 8

    @staticmethod
    def _likeliest(chances: NDArray[np.float32], count: int) -> NDArray[np.intp]:
        """The ids of the `count` likeliest tokens and of all that are as likely as the last of them, ascending."""
        if count >= len(chances):
            return np.arange(len(chances))
        least = np.partition(chances, len(chances) - count)[len(chances) - count]
        return np.flatnonzero(chances >= least)


def log_softmax(logits: NDArray[np.float32]) -> NDArray[np.float64]:
    """Log-probabilities over the last axis, float64."""
    shifted = logits.astype(np.float64) - logits.max(axis=-1, keepdims=True)
    result: NDArray[np.float64] = shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    return result
