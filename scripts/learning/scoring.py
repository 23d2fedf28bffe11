"""How good an adapter is: on every device's hold-out text, and on all of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from edge_client.data.examples import Conversation, Example, Message
from edge_client.data.holdout import split
from edge_client.data.tokens import TokenExample, encode_prompt, tokenise
from edge_client.engines.onnx_engine import OnnxEngine
from edge_client.engines.sessions import RuntimeSettings
from nightshift.packages.package import ModelPackage
from nightshift.protocol.adapters import AdapterLayout, Tensors
from scripts.learning.datasets import Dataset
from scripts.night.measure import reading

HOLDOUT_ROWS = 60
"""Hold-out examples of one device that are scored."""
POSITIONS_PER_ROW = 4
"""Free text: places in an example where the likeliest next token is compared with the real one."""


@dataclass(frozen=True, slots=True)
class Score:
    """An adapter's figures.

    Attributes:
        loss: mean negative log-likelihood of an answer token over all devices' hold-out text, nats.
        accuracy: commands: how often the right scenario is the likeliest of all; free text: how
            often the next token is the likeliest of the vocabulary.
        worst_loss: the highest loss on one device's hold-out text.
        worst_accuracy: the lowest accuracy there.
    """

    loss: float
    accuracy: float
    worst_loss: float
    worst_accuracy: float


@dataclass(frozen=True, slots=True)
class _HoldOut:
    """One device's hold-out text, as the two measures want it."""

    examples: list[TokenExample]
    prompts: list[list[int]]
    expected: list[int]


class Scorer:
    """Tokenises a dataset once, keeps the hold-out text, and scores adapters on it.

    Args:
        package: the base model.
        dataset: what the devices own.
        layout: of the adapters to come.
    """

    def __init__(self, package: ModelPackage, dataset: Dataset, layout: AdapterLayout) -> None:
        self._layout = layout
        self._engine = OnnxEngine(package, RuntimeSettings(threads=1))
        self._tokenizer, self._template = reading(package)
        if dataset.answers:
            self._candidates = [self._tokenizer.encode(answer) for answer in dataset.answers]
        else:
            self._candidates = [[token] for token in range(package.manifest.dimensions.vocabulary)]
        self.training: list[list[TokenExample]] = []
        self._held_out: list[_HoldOut] = []
        for rows in dataset.devices:
            kept, held_out = split(rows)
            self.training.append(self._tokens(kept, dataset.max_tokens))
            chosen = held_out[:HOLDOUT_ROWS]
            examples = self._tokens(chosen, dataset.max_tokens)
            asked = self._commands(chosen, dataset.answers) if dataset.answers else _places(examples)
            self._held_out.append(_HoldOut(examples, *asked))

    def score(self, adapter: Tensors | None) -> Score:
        """Score an adapter; None scores the base."""
        self._engine.set_adapter(adapter, None if adapter is None else self._layout)
        losses, answers, right, asked = [], [], [], []
        for rows in self._held_out:
            losses.append(float(sum(row.sum() for row in self._engine.token_losses(rows.examples))))
            answers.append(sum(int(example.answer[1:].sum()) for example in rows.examples))
            likeliest = self._engine.score(rows.prompts, self._candidates).argmax(axis=1)
            right.append(int((likeliest == np.array(rows.expected)).sum()))
            asked.append(len(rows.expected))
        return Score(
            loss=sum(losses) / sum(answers),
            accuracy=sum(right) / sum(asked),
            worst_loss=max(loss / count for loss, count in zip(losses, answers, strict=True)),
            worst_accuracy=min(hits / count for hits, count in zip(right, asked, strict=True)),
        )

    def _tokens(self, rows: Sequence[Example], max_tokens: int) -> list[TokenExample]:
        examples, _ = tokenise(rows, self._tokenizer, self._template, max_tokens=max_tokens)
        return examples

    def _commands(self, rows: Sequence[Example], answers: Sequence[str]) -> tuple[list[list[int]], list[int]]:
        prompts, expected = [], []
        for row in rows:
            assert isinstance(row, Conversation), "commands are conversations"
            prompt = self._template.prompt([Message("user", row.messages[0].content)])
            prompts.append(encode_prompt(prompt, self._tokenizer))
            expected.append(answers.index(row.messages[-1].content))
        return prompts, expected


def _places(examples: Sequence[TokenExample]) -> tuple[list[list[int]], list[int]]:
    """Evenly spread places in free text: the tokens before each, and the token that follows."""
    prompts, expected = [], []
    for example in examples:
        places = np.linspace(1, example.length - 1, min(POSITIONS_PER_ROW, example.length - 1)).astype(int)
        for place in sorted(set(places.tolist())):
            prompts.append(example.tokens[:place].tolist())
            expected.append(int(example.tokens[place]))
    return prompts, expected
