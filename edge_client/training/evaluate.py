"""How good an adapter is: loss on answers, and the choice among given answers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edge_client.data.examples import Message
from edge_client.data.templates import Template
from edge_client.data.tokenizer import Tokenizer
from edge_client.data.tokens import TokenExample, encode_messages
from edge_client.engines.engine import Engine


@dataclass(frozen=True, slots=True)
class AnswerLoss:
    """Loss on answer tokens; two of them add up to that of both data sets.

    Attributes:
        total: sum of the negative log-likelihoods, in nats.
        tokens: number of answer tokens.
    """

    total: float
    tokens: int

    @property
    def mean(self) -> float:
        """Loss per answer token, NaN where there is none."""
        return self.total / self.tokens if self.tokens else math.nan


def answer_loss(engine: Engine, examples: Sequence[TokenExample]) -> AnswerLoss:
    """Measures the engine, with the adapter it has now, on examples."""
    losses = engine.token_losses(examples)
    total = sum(float(loss.sum(dtype=np.float64)) for loss in losses)
    return AnswerLoss(total, sum(int(example.answer[1:].sum()) for example in examples))


def likeliest(
    engine: Engine,
    prompts: Sequence[str],
    candidates: Sequence[str],
    *,
    tokenizer: Tokenizer,
    template: Template,
) -> NDArray[np.int64]:
    """Index of the candidate answer with the highest total log-likelihood, int64 [prompts].

    The end of sequence is part of a candidate, so "play" is not favoured over
    "playlist" for being shorter.

    Args:
        engine: the model, with the adapter it has now.
        prompts: what the user says.
        candidates: possible answers.
        tokenizer: the model's tokenizer.
        template: the model's template.
    """
    encoded = [encode_messages([Message("user", prompt)], tokenizer, template) for prompt in prompts]
    answers = [[*tokenizer.encode(candidate), *tokenizer.suffix] for candidate in candidates]
    best: NDArray[np.int64] = np.argmax(engine.score(encoded, answers), axis=1)
    return best
