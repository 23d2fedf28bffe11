"""How good adapters are, and what training without the federation reaches.

The measure is one for all: the union of the devices' hold-out commands, as
each device itself holds them out, at most 100 of each. Run as a module with a
request file, it trains the baselines (each device alone, all data pooled) in a
process of its own, so that they take the second core while the nights go on.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from edge_client.data.examples import Conversation, Message
from edge_client.data.holdout import split
from edge_client.data.sources import DataFormat, DataSource, read_examples
from edge_client.data.templates import Template, choose_template
from edge_client.data.tokenizer import Tokenizer
from edge_client.data.tokens import TokenExample, encode_prompt, tokenise
from edge_client.engines.onnx_engine import OnnxEngine
from edge_client.engines.sessions import RuntimeSettings, layout_for
from edge_client.training.settings import TrainingSettings
from edge_client.training.trainer import train
from nightshift.packages.package import ModelPackage
from nightshift.protocol.adapters import Side, Tensors, TrainedSlots, initialise
from nightshift.protocol.adapters.formats import from_safetensors
from nightshift.protocol.manifest import FileRole
from scripts.night.report import Score

HOLDOUT_ROWS_PER_DEVICE = 100

CENTRAL_STEPS = 3
"""Central training gets so many times the optimiser steps of one device over all nights."""

MICRO_BATCH = 8
"""Examples that pass through the graph at once: small enough for the cache of one core."""


@dataclass(frozen=True, slots=True)
class Request:
    """What the process that trains the baselines is told; travels as JSON."""

    package: str
    texts: list[str]
    scenarios: list[str]
    rank: int
    alpha: float
    steps: int
    batch_size: int
    learning_rate: float
    clip_norm: float
    max_tokens: int
    seed: int


@dataclass(frozen=True, slots=True)
class Text:
    """One device's commands as tokens."""

    training: list[TokenExample]
    held_out: list[Conversation]


class Measure:
    """Scores adapters on the union of all devices' hold-out commands."""

    def __init__(self, request: Request, *, threads: int = 1) -> None:
        self.package = ModelPackage.open(Path(request.package))
        self.layout = layout_for(self.package.manifest, rank=request.rank, alpha=request.alpha)
        self.runtime = RuntimeSettings(threads=threads)
        tokenizer, template = reading(self.package)
        self.texts = [_text(Path(path), tokenizer, template, max_tokens=request.max_tokens) for path in request.texts]
        held_out = [row for text in self.texts for row in text.held_out[:HOLDOUT_ROWS_PER_DEVICE]]
        self.rows = len(held_out)
        self._examples, _ = tokenise(held_out, tokenizer, template, max_tokens=request.max_tokens)
        self._prompts = [
            encode_prompt(template.prompt([Message("user", row.messages[0].content)]), tokenizer) for row in held_out
        ]
        self._candidates = [tokenizer.encode(scenario) for scenario in request.scenarios]
        self._expected = [request.scenarios.index(row.messages[-1].content) for row in held_out]
        self._engine = OnnxEngine(self.package, self.runtime)

    def score(self, adapter: Tensors | None) -> Score:
        """Loss and accuracy of an adapter; None measures the base."""
        self._engine.set_adapter(adapter, None if adapter is None else self.layout)
        losses = np.concatenate(self._engine.token_losses(self._examples))
        answers = sum(int(example.answer[1:].sum()) for example in self._examples)
        likeliest = self._engine.score(self._prompts, self._candidates).argmax(axis=1)
        return Score(float(losses.sum() / answers), float(np.mean(likeliest == np.array(self._expected))))

    def score_file(self, path: Path) -> Score:
        """Loss and accuracy of an adapter file (safetensors)."""
        return self.score(from_safetensors(path.read_bytes(), self.layout))


def reading(package: ModelPackage) -> tuple[Tokenizer, Template]:
    """How a package's model reads text."""
    stated = package.manifest.tokenizer
    assert stated.eos is not None, "the demo's model ends its sentences"
    tokenizer = Tokenizer(package.path(FileRole.TOKENIZER), bos=stated.bos, eos=stated.eos, add_bos=stated.add_bos)
    return tokenizer, choose_template(
        package.manifest.chat_template,
        bos_token=tokenizer.text_of(tokenizer.bos),
        eos_token=tokenizer.text_of(tokenizer.eos),
    )


def _text(path: Path, tokenizer: Tokenizer, template: Template, *, max_tokens: int) -> Text:
    training, held_out = split(read_examples(DataSource(path, DataFormat.PROMPT)))
    examples, _ = tokenise(training, tokenizer, template, max_tokens=max_tokens)
    return Text(examples, [row for row in held_out if isinstance(row, Conversation)])


def train_alone(
    measure: Measure, request: Request, examples: Sequence[TokenExample], *, steps: int, seed: int
) -> Score:
    """Train both sides of a fresh adapter on some examples, and score it."""
    settings = TrainingSettings(
        steps=steps,
        batch_size=request.batch_size,
        micro_batch_size=MICRO_BATCH,
        learning_rate=request.learning_rate,
        clip_norm=request.clip_norm,
        max_tokens=request.max_tokens,
        seed=seed,
    )
    start = initialise(measure.layout, bytes(31) + bytes([seed % 256]))
    outcome = train(
        measure.package,
        start,
        TrainedSlots.whole(measure.layout, Side.BOTH),
        examples,
        settings,
        runtime=measure.runtime,
    )
    return measure.score(outcome.adapter)


def main(request_path: Path, result_path: Path) -> None:
    """Train and score the baselines of a request; the result is a JSON object."""
    request = Request(**json.loads(request_path.read_text("utf-8")))
    measure = Measure(request)
    base = measure.score(None)
    local = [
        train_alone(measure, request, text.training, steps=request.steps, seed=request.seed + i)
        for i, text in enumerate(measure.texts, start=1)
    ]
    pooled = [example for text in measure.texts for example in text.training]
    central = train_alone(measure, request, pooled, steps=request.steps * CENTRAL_STEPS, seed=request.seed)
    result = {"base": asdict(base), "local": [asdict(s) for s in local], "central": asdict(central)}
    partial = result_path.with_suffix(".partial")
    partial.write_text(json.dumps(result), "utf-8")
    partial.replace(result_path)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
