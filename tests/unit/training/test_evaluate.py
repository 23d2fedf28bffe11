from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from edge_client.data.examples import question
from edge_client.data.prepare import package_tokenizer, prepare
from edge_client.data.templates import PlainTemplate
from edge_client.data.tokens import tokenise
from edge_client.engines.onnx_engine import OnnxEngine
from edge_client.engines.sessions import RuntimeSettings
from edge_client.training.evaluate import AnswerLoss, answer_loss, likeliest
from nightshift.packages.package import ModelPackage
from tests.support.stories import commands

PLAIN = PlainTemplate()


def test_the_mean_is_over_answer_tokens_of_all_examples(stories: ModelPackage, tmp_path: Path) -> None:
    data = prepare(stories, [commands(tmp_path / "rows", rows=40)], max_tokens=96, held_out_fraction=0)
    with OnnxEngine(stories, RuntimeSettings(threads=1)) as engine:
        whole = answer_loss(engine, data.train)
        single = [answer_loss(engine, [example]) for example in data.train]
    assert whole.tokens == sum(int(example.answer.sum()) for example in data.train)
    assert whole.total == pytest.approx(sum(loss.total for loss in single), rel=1e-5)
    assert whole.mean == whole.total / whole.tokens


def test_no_answer_has_no_mean() -> None:
    assert math.isnan(AnswerLoss(0.0, 0).mean)


def test_the_likeliest_candidate_is_the_one_with_the_least_loss(stories: ModelPackage) -> None:
    tokenizer = package_tokenizer(stories)
    prompts = ["Once upon a time there was a", "She was very happy and", "The dog"]
    names = ["little girl", "little boy named Tim", "little", "went home", "ran"]
    with OnnxEngine(stories, RuntimeSettings(threads=1)) as engine:
        chosen = likeliest(engine, prompts, names, tokenizer=tokenizer, template=PLAIN)
        for prompt, choice in zip(prompts, chosen, strict=True):
            rows, _ = tokenise([question(prompt, name) for name in names], tokenizer, PLAIN, max_tokens=96)
            losses = [float(loss.sum()) for loss in engine.token_losses(rows)]
            assert choice == int(np.argmin(losses))
