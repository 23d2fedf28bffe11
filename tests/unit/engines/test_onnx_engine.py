from __future__ import annotations

from itertools import islice
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from edge_client.data.examples import Passage
from edge_client.data.prepare import package_tokenizer, prepare
from edge_client.data.templates import PlainTemplate
from edge_client.data.tokens import TokenExample, tokenise
from edge_client.engines.errors import EngineUnavailableError, PromptError
from edge_client.engines.onnx_engine import OnnxEngine
from edge_client.engines.sampling import SamplingSettings
from edge_client.engines.sessions import RuntimeSettings, layout_for, open_session
from nightshift.packages.package import ModelPackage
from nightshift.protocol.adapters import AdapterLayout, Side, Target, initialise
from nightshift.protocol.manifest import FileRole
from tests.support.stories import build_stories, commands

ONE_THREAD = RuntimeSettings(threads=1)


@pytest.fixture(scope="module")
def engine(stories: ModelPackage) -> OnnxEngine:
    return OnnxEngine(stories, ONE_THREAD)


@pytest.fixture(scope="module")
def prompt(stories: ModelPackage) -> list[int]:
    tokenizer = package_tokenizer(stories)
    return [*tokenizer.prefix, *tokenizer.encode("Once upon a time")]


def noisy_adapter(layout: AdapterLayout, seed: int = 0) -> dict[str, np.ndarray]:
    noise = np.random.default_rng(seed).normal(scale=0.1, size=layout.vector_length(Side.B))
    return layout.with_delta(initialise(layout, bytes(32)), noise.astype(np.float32), Side.B)


def test_the_model_tells_a_story(stories: ModelPackage, engine: OnnxEngine, prompt: list[int]) -> None:
    text = package_tokenizer(stories).decode(list(engine.generate(prompt, SamplingSettings(max_tokens=60))))
    assert "there was a" in text


def test_greedy_tokens_are_the_likeliest_without_a_cache(engine: OnnxEngine, prompt: list[int]) -> None:
    """Each generated token, scored afresh after the whole sequence before it, beats every other token."""
    vocabulary = 512
    tokens = list(prompt)
    for token in engine.generate(prompt, SamplingSettings(max_tokens=12)):
        scores = engine.score([tokens], [[other] for other in range(vocabulary)])[0]
        assert scores[token] == pytest.approx(scores.max(), abs=1e-3)
        tokens.append(token)


def test_generation_streams_and_can_be_left_early(engine: OnnxEngine, prompt: list[int]) -> None:
    whole = list(engine.generate(prompt, SamplingSettings(max_tokens=10)))
    assert list(islice(engine.generate(prompt, SamplingSettings(max_tokens=10)), 4)) == whole[:4]
    assert len(whole) == 10


def test_a_seed_repeats_a_drawn_story(engine: OnnxEngine, prompt: list[int]) -> None:
    def story(seed: int) -> list[int]:
        return list(engine.generate(prompt, SamplingSettings(max_tokens=20, temperature=1, top_p=0.95, seed=seed)))

    assert story(1) == story(1)
    assert story(1) != story(2)


def test_generation_ends_where_the_context_does(engine: OnnxEngine, prompt: list[int]) -> None:
    full = (prompt * 200)[: engine.context_tokens - 2]
    assert len(list(engine.generate(full, SamplingSettings(max_tokens=50)))) <= 2


def test_generation_ends_at_the_end_of_sequence(
    stories: ModelPackage, engine: OnnxEngine, prompt: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The token that came third becomes the end of sequence: two tokens remain."""
    third = list(engine.generate(prompt, SamplingSettings(max_tokens=3)))[2]
    monkeypatch.setattr("edge_client.engines.onnx_engine.Sampler", _FirstTwoThen(stories.manifest.tokenizer.eos))
    short = list(engine.generate(prompt, SamplingSettings(max_tokens=10)))
    assert len(short) == 2
    assert third != stories.manifest.tokenizer.eos


class _FirstTwoThen:
    """A sampler that draws two tokens and then the given one."""

    def __init__(self, last: int | None) -> None:
        self._script = iter([5, 6, last, 7])

    def __call__(self, _settings: SamplingSettings) -> _FirstTwoThen:
        return self

    def pick(self, _logits: np.ndarray) -> int | None:
        return next(self._script)


@pytest.mark.parametrize("tokens", [[], [1] * 512, [1, 512], [-1]])
def test_a_prompt_that_cannot_be_continued_is_refused(engine: OnnxEngine, tokens: list[int]) -> None:
    with pytest.raises(PromptError):
        engine.generate(tokens, SamplingSettings())


def test_losses_do_not_depend_on_what_else_is_in_the_batch(
    stories: ModelPackage, engine: OnnxEngine, tmp_path: Path
) -> None:
    examples = prepare(stories, [commands(tmp_path / "rows", rows=60)], max_tokens=96, held_out_fraction=0).train
    together = engine.token_losses(examples)
    for example, losses in list(zip(examples, together, strict=True))[::7]:
        (alone,) = engine.token_losses([example])
        assert losses.shape == (example.length - 1,)
        np.testing.assert_allclose(losses, alone, atol=2e-4)
        assert not losses[~example.answer[1:]].any()


def test_scores_are_the_losses_of_the_whole_sequences(half_precision: ModelPackage) -> None:
    """The tree of candidates over cached keys and values against plain evaluation."""
    tokenizer = package_tokenizer(half_precision)
    prompts = [[1, *tokenizer.encode(text)] for text in ("She went to the", "He saw", "A big", "The dog was very")]
    candidates = [tokenizer.encode(text) for text in ("park", "park with her mom", "big dog", "happy")]
    layout = layout_for(half_precision.manifest, rank=4, alpha=8)
    with OnnxEngine(half_precision, ONE_THREAD) as engine:
        engine.set_adapter(noisy_adapter(layout), layout)
        scores = engine.score(prompts, candidates)
        for row, prompt in enumerate(prompts):
            for column, candidate in enumerate(candidates):
                tokens = np.array([*prompt, *candidate])
                answer = np.arange(len(tokens)) >= len(prompt)
                (losses,) = engine.token_losses([TokenExample(tokens, answer)])
                assert scores[row, column] == pytest.approx(-losses.sum(), abs=1e-3)


def test_adapters_are_swapped_and_the_base_comes_back_to_the_bit(
    stories: ModelPackage, engine: OnnxEngine, prompt: list[int]
) -> None:
    layout = layout_for(stories.manifest, rank=4, alpha=8)
    tokenizer = package_tokenizer(stories)
    examples, _ = tokenise([Passage("Lily went to the park.")], tokenizer, PlainTemplate(), max_tokens=64)
    (base,) = engine.token_losses(examples)
    seen = [base]
    for seed in (1, 2):
        engine.set_adapter(noisy_adapter(layout, seed), layout)
        seen.append(engine.token_losses(examples)[0])
    engine.set_adapter(initialise(layout, bytes(32)), layout)  # B is zero: the base again
    np.testing.assert_array_equal(engine.token_losses(examples)[0], base)
    engine.set_adapter(None, None)
    np.testing.assert_array_equal(engine.token_losses(examples)[0], base)
    assert not np.allclose(seen[1], base)
    assert not np.allclose(seen[1], seen[2])


def test_swapping_adapters_opens_no_graph_again_and_the_base_speaks_as_before(
    stories: ModelPackage, prompt: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[FileRole] = []

    def noted(package: ModelPackage, role: FileRole, runtime: RuntimeSettings) -> onnxruntime.InferenceSession:
        opened.append(role)
        return open_session(package, role, runtime)

    monkeypatch.setattr("edge_client.engines.onnx_engine.open_session", noted)
    layout = layout_for(stories.manifest, rank=4, alpha=8)
    with OnnxEngine(stories, ONE_THREAD) as engine:
        base = engine.logits(prompt)
        engine.set_adapter(noisy_adapter(layout), layout)
        first = engine.logits(prompt)
        assert opened == [
            FileRole.DECODE,
            FileRole.DECODE_ADAPTER,
        ]  # the second for good
        for seed in (1, 0):
            engine.set_adapter(noisy_adapter(layout, seed), layout)
            swapped = engine.logits(prompt)
            assert np.array_equal(swapped, first) == (seed == 0)
        engine.set_adapter(None, None)
        np.testing.assert_array_equal(engine.logits(prompt), base)
        assert len(opened) == 2


def test_an_adapter_for_some_targets_leaves_the_others_alone(stories: ModelPackage, engine: OnnxEngine) -> None:
    layout = layout_for(stories.manifest, rank=4, alpha=8)
    some = AdapterLayout(layers=layout.layers, targets=layout.targets[:2], rank=4, alpha=8)
    tensors = noisy_adapter(some)
    full = initialise(layout, bytes(32))
    same = {name: tensors.get(name, full[name]) for name in layout.shapes()}
    examples, _ = tokenise([Passage("The dog ran.")], package_tokenizer(stories), PlainTemplate(), max_tokens=64)
    engine.set_adapter(tensors, some)
    (partial,) = engine.token_losses(examples)
    engine.set_adapter(same, layout)
    (complete,) = engine.token_losses(examples)
    engine.set_adapter(None, None)
    np.testing.assert_array_equal(partial, complete)


@pytest.mark.parametrize("targets", [(Target("q_proj", 32, 64),), (Target("k_proj", 64, 64),)])
def test_the_adapter_of_another_model_is_refused(engine: OnnxEngine, targets: tuple[Target, ...]) -> None:
    layout = AdapterLayout(layers=5, targets=targets, rank=4, alpha=8)
    with pytest.raises(EngineUnavailableError, match="another model"):
        engine.set_adapter(initialise(layout, bytes(32)), layout)


def test_an_adapter_with_more_layers_is_refused(stories: ModelPackage, engine: OnnxEngine) -> None:
    fitting = layout_for(stories.manifest, rank=4, alpha=8)
    layout = AdapterLayout(layers=6, targets=fitting.targets, rank=4, alpha=8)
    with pytest.raises(EngineUnavailableError, match=r"layers\.5"):
        engine.set_adapter(initialise(layout, bytes(32)), layout)


def test_a_damaged_graph_is_reported_with_its_path(tmp_path: Path) -> None:
    package = build_stories(tmp_path / "package")
    path = package.path(FileRole.DECODE)
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(EngineUnavailableError, match=r"decode\.onnx: does not load"):
        list(OnnxEngine(package).generate([1], SamplingSettings(max_tokens=1)))


def test_a_closed_engine_opens_again(stories: ModelPackage, prompt: list[int]) -> None:
    with OnnxEngine(stories, ONE_THREAD) as engine:
        first = list(engine.generate(prompt, SamplingSettings(max_tokens=3)))
    engine.close()
    assert list(engine.generate(prompt, SamplingSettings(max_tokens=3))) == first
