"""A prompt that begins like the last one is not read from the start, and nobody can tell from the answer."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from edge_client.data.prepare import package_tokenizer
from edge_client.engines.engine import Engine, EngineKind
from edge_client.engines.onnx_engine import OnnxEngine
from edge_client.engines.prompt_cache import PromptCache
from edge_client.engines.sampling import SamplingSettings
from edge_client.engines.sessions import RuntimeSettings, layout_for
from nightshift.packages.package import ModelPackage
from nightshift.protocol.adapters import initialise
from tests.support.slow_model import build_slow_model

ONE_THREAD = RuntimeSettings(threads=1)
BOTH = [EngineKind.ONNX, pytest.param(EngineKind.LLAMA, marks=pytest.mark.llama)]
Open = Callable[[ModelPackage], Engine]


@pytest.fixture(params=BOTH)
def open_engine(request: pytest.FixtureRequest) -> Open:
    if request.param is EngineKind.ONNX:
        return lambda package: OnnxEngine(package, ONE_THREAD)
    pytest.importorskip("llama_cpp", reason="needs the llama extra (llama-cpp-python)")
    from edge_client.engines.llama_engine import LlamaEngine

    return lambda package: LlamaEngine(package, ONE_THREAD)


@pytest.fixture
def engine(open_engine: Open, half_precision: ModelPackage) -> Iterator[Engine]:
    with open_engine(half_precision) as opened:
        yield opened


def test_what_two_prompts_begin_with_is_kept_and_the_last_token_never() -> None:
    cache = PromptCache()
    assert cache.keep([1, 2, 3]) == 0
    cache.extend([1, 2, 3])
    assert cache.keep([1, 2, 3, 4]) == 3
    assert cache.keep([1, 2, 3]) == 2  # its logits are asked for, so its last token runs again
    assert cache.keep([1, 9, 3]) == 1
    assert len(cache) == 1
    cache.forget()
    assert cache.keep([1, 9]) == 0


def turns(package: ModelPackage) -> list[list[int]]:
    """Prompts as a conversation makes them, and one that turns off in the middle, and a shorter one."""
    tokenizer = package_tokenizer(package)
    first = [*tokenizer.prefix, *tokenizer.encode("Once upon a time there was a dog.")]
    second = first + tokenizer.encode(" He was very happy and")
    return [first, second, second + tokenizer.encode(" ran to the park"), first[:6], first[:5] + second[-4:]]


def test_answers_are_those_of_a_fresh_engine(open_engine: Open, engine: Engine, half_precision: ModelPackage) -> None:
    sampling = SamplingSettings(max_tokens=24)
    for prompt in turns(half_precision):
        with open_engine(half_precision) as fresh:
            assert list(engine.generate(prompt, sampling)) == list(fresh.generate(prompt, sampling))


def test_a_seed_repeats_an_answer_whatever_was_read_before(engine: Engine, half_precision: ModelPackage) -> None:
    sampling = SamplingSettings(max_tokens=24, temperature=1.0, seed=4)
    prompts = turns(half_precision)
    alone = list(engine.generate(prompts[1], sampling))
    list(engine.generate(prompts[0], SamplingSettings(max_tokens=5)))
    assert list(engine.generate(prompts[1], sampling)) == alone


def test_an_answer_that_was_left_early_leaves_nothing_wrong(engine: Engine, half_precision: ModelPackage) -> None:
    prompt, sampling = turns(half_precision)[1], SamplingSettings(max_tokens=16)
    whole = list(engine.generate(prompt, sampling))
    for read in (1, 3):
        tokens = engine.generate(prompt, sampling)
        for _ in range(read):
            next(tokens)
        tokens.close()  # type: ignore[attr-defined] # the engines' iterators are generators
        assert list(engine.generate(prompt, sampling)) == whole


def test_another_adapter_forgets_what_was_read(open_engine: Open, half_precision: ModelPackage) -> None:
    layout = layout_for(half_precision.manifest, rank=4, alpha=8)
    random = np.random.default_rng(0)
    adapter = {
        name: tensor + 0.3 * random.standard_normal(tensor.shape).astype(np.float32)
        for name, tensor in initialise(layout, bytes(32)).items()
    }
    prompt, sampling = turns(half_precision)[1], SamplingSettings(max_tokens=16)
    with open_engine(half_precision) as fresh:
        fresh.set_adapter(adapter, layout)
        expected = list(fresh.generate(prompt, sampling))
    with open_engine(half_precision) as engine:
        base = list(engine.generate(prompt, sampling))
        engine.set_adapter(adapter, layout)
        assert list(engine.generate(prompt, sampling)) == expected != base
        engine.set_adapter(None, None)
        assert list(engine.generate(prompt, sampling)) == base


def test_measuring_in_between_disturbs_nothing(engine: Engine, half_precision: ModelPackage) -> None:
    prompts, sampling = turns(half_precision), SamplingSettings(max_tokens=12)
    before = list(engine.generate(prompts[1], sampling))
    scores = engine.score(prompts[:2], [[5, 6], [7]])
    assert list(engine.generate(prompts[1], sampling)) == before
    np.testing.assert_allclose(engine.score(prompts[:2], [[5, 6], [7]]), scores, atol=1e-4)


@pytest.mark.slow
def test_the_second_turn_of_a_long_conversation_starts_sooner(open_engine: Open, tmp_path: Path) -> None:
    package = build_slow_model(tmp_path)
    prompt = [1, *(int(token) for token in np.random.default_rng(0).integers(300, 500, 900))]

    def first_token_s(engine: Engine, tokens: list[int]) -> float:
        started = time.process_time()
        assert len(list(engine.generate(tokens, SamplingSettings(max_tokens=1)))) == 1
        return time.process_time() - started

    with open_engine(package) as engine:
        whole = first_token_s(engine, prompt)
        assert first_token_s(engine, [*prompt, 7, 8, 9]) < 0.3 * whole
