"""llama.cpp beside ONNX Runtime: one package, one adapter, one answer."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from edge_client.data.prepare import package_tokenizer, prepare
from edge_client.engines.errors import EngineUnavailableError, PromptError
from edge_client.engines.llama_engine import LlamaEngine
from edge_client.engines.onnx_engine import OnnxEngine
from edge_client.engines.sampling import SamplingSettings
from edge_client.engines.sessions import RuntimeSettings, layout_for
from edge_client.training.settings import TrainingSettings
from edge_client.training.trainer import train
from nightshift.packages.package import ModelPackage
from nightshift.protocol.adapters import AdapterLayout, Side, Target, Tensors, TrainedSlots, initialise
from nightshift.protocol.adapters.gguf_adapter import to_gguf
from tests.support.stories import build_stories, commands

ONE_THREAD = RuntimeSettings(threads=1)


def test_a_missing_library_names_the_extra(stories: ModelPackage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "llama_cpp", None)  # what Python does for a module that cannot be imported
    with pytest.raises(EngineUnavailableError, match=r"pip install 'nightshift\[llama\]'"):
        LlamaEngine(stories)


pytest.importorskip("llama_cpp", reason="needs the llama extra (llama-cpp-python)")
llama = pytest.mark.llama


@pytest.fixture(scope="module")
def layout(stories: ModelPackage) -> AdapterLayout:
    return layout_for(stories.manifest, rank=4, alpha=8)


@pytest.fixture(scope="module")
def adapter(stories: ModelPackage, layout: AdapterLayout, tmp_path_factory: pytest.TempPathFactory) -> Tensors:
    """Trained on both sides for a moment on real commands: far from the base, as a used adapter is."""
    source = commands(tmp_path_factory.mktemp("data") / "rows", rows=200)
    data = prepare(stories, [source], max_tokens=96, held_out_fraction=0)
    settings = TrainingSettings(steps=25, batch_size=8)
    start = initialise(layout, bytes(32))
    return train(
        stories, start, TrainedSlots.whole(layout, Side.BOTH), data.train, settings, runtime=ONE_THREAD
    ).adapter


@pytest.fixture(scope="module")
def prompts(stories: ModelPackage) -> list[list[int]]:
    tokenizer = package_tokenizer(stories)
    texts = ("Once upon a time", "wake me up at five\n", "play some jazz\n", "The big dog")
    return [[*tokenizer.prefix, *tokenizer.encode(text)] for text in texts]


@llama
@pytest.mark.parametrize("adapted", [False, True])
def test_both_engines_write_the_same_greedy_text(
    half_precision: ModelPackage, layout: AdapterLayout, adapter: Tensors, prompts: list[list[int]], adapted: bool
) -> None:
    sampling = SamplingSettings(max_tokens=24)
    with OnnxEngine(half_precision, ONE_THREAD) as onnx, LlamaEngine(half_precision, ONE_THREAD) as llama_cpp:
        for engine in (onnx, llama_cpp):
            engine.set_adapter(adapter if adapted else None, layout if adapted else None)
        for prompt in prompts:
            assert list(llama_cpp.generate(prompt, sampling)) == list(onnx.generate(prompt, sampling))


@llama
@pytest.mark.parametrize("adapted", [False, True])
def test_on_eight_bit_weights_they_part_only_where_two_tokens_are_as_good(
    stories: ModelPackage, layout: AdapterLayout, adapter: Tensors, prompts: list[list[int]], adapted: bool
) -> None:
    """Both runtimes round activations to 8 bits, each in its own way, which decides near-ties differently."""
    sampling = SamplingSettings(max_tokens=24)
    with OnnxEngine(stories, ONE_THREAD) as onnx, LlamaEngine(stories, ONE_THREAD) as llama_cpp:
        for engine in (onnx, llama_cpp):
            engine.set_adapter(adapter if adapted else None, layout if adapted else None)
        for prompt in prompts:
            ours, theirs = list(onnx.generate(prompt, sampling)), list(llama_cpp.generate(prompt, sampling))
            same = next((at for at, (a, b) in enumerate(zip(ours, theirs, strict=False)) if a != b), None)
            if same is not None:
                scores = onnx.score([prompt + ours[:same]], [[ours[same]], [theirs[same]]])[0]
                assert scores[0] - scores[1] < 0.2


@llama
def test_both_engines_measure_the_same(
    half_precision: ModelPackage, layout: AdapterLayout, adapter: Tensors, prompts: list[list[int]], tmp_path: Path
) -> None:
    source = commands(tmp_path / "rows", rows=20)
    examples = prepare(half_precision, [source], max_tokens=96, held_out_fraction=0).train
    tokenizer = package_tokenizer(half_precision)
    candidates = [tokenizer.encode(name) for name in ("alarm", "audio", "a very long name", "play")]
    with OnnxEngine(half_precision, ONE_THREAD) as onnx, LlamaEngine(half_precision, ONE_THREAD) as llama_cpp:
        for engine in (onnx, llama_cpp):
            engine.set_adapter(adapter, layout)
        for ours, theirs in zip(onnx.token_losses(examples), llama_cpp.token_losses(examples), strict=True):
            # llama.cpp rounds activations to F16 (11 bits) before every product.
            np.testing.assert_allclose(theirs, ours, atol=0.03)
            assert theirs.sum() == pytest.approx(ours.sum(), rel=2e-3)
        np.testing.assert_allclose(llama_cpp.score(prompts, candidates), onnx.score(prompts, candidates), atol=0.03)


@llama
@pytest.mark.parametrize("scheme", ["Q8_0", "Q4_0"])
def test_measured_losses_are_the_same_on_quantised_weights_but_for_rounded_activations(
    layout: AdapterLayout, adapter: Tensors, tmp_path: Path, scheme: str
) -> None:
    """llama.cpp rounds activations to 8 bits, the evaluate graph does not; the weights are the same numbers."""
    package = build_stories(tmp_path / "package", quantisation=scheme)
    examples = prepare(package, [commands(tmp_path / "rows", rows=60)], max_tokens=96, held_out_fraction=0).train
    means = {}
    for adapted in (False, True):
        with OnnxEngine(package, ONE_THREAD) as onnx, LlamaEngine(package, ONE_THREAD) as llama_cpp:
            for engine in (onnx, llama_cpp):
                engine.set_adapter(adapter if adapted else None, layout if adapted else None)
            ours, theirs = (np.concatenate(engine.token_losses(examples)) for engine in (onnx, llama_cpp))
        np.testing.assert_allclose(theirs, ours, atol=0.5)
        assert theirs.mean() == pytest.approx(ours.mean(), rel=0.005)
        means[adapted] = ours.mean()
    assert means[True] < 0.9 * means[False]  # the adapter was there: both engines measured what it does


@llama
def test_an_exported_adapter_gives_the_same_logits_in_stock_llama_cpp(
    half_precision: ModelPackage, layout: AdapterLayout, adapter: Tensors, prompts: list[list[int]], tmp_path: Path
) -> None:
    """llama-cpp-python's own class, as its documentation uses it, with the file that `adapter export` writes."""
    import llama_cpp

    size = half_precision.manifest.dimensions
    file = tmp_path / "adapter.gguf"
    file.write_bytes(to_gguf(adapter, layout, architecture=size.family, heads=size.heads, kv_heads=size.kv_heads))
    path, tokens = str(half_precision.path("gguf")), prompts[0] + prompts[1]

    def stock(**settings: str) -> np.ndarray:
        model = llama_cpp.Llama(path, n_ctx=512, n_threads=1, logits_all=True, verbose=False, **settings)
        try:
            model.eval(tokens)
            return np.array(model.scores[: len(tokens)])
        finally:
            model.close()

    theirs = stock(lora_path=str(file))
    assert np.abs(theirs - stock()).max() > 1
    for engine in (LlamaEngine(half_precision, ONE_THREAD), OnnxEngine(half_precision, ONE_THREAD)):
        with engine:
            engine.set_adapter(adapter, layout)
            # llama.cpp rounds activations, keys and values to F16, eleven bits.
            np.testing.assert_allclose(engine.logits(tokens), theirs, atol=0.05)


@llama
def test_clearing_the_adapter_restores_the_base_to_the_bit(
    stories: ModelPackage, layout: AdapterLayout, adapter: Tensors, prompts: list[list[int]]
) -> None:
    candidates = [[token] for token in range(512)]
    with LlamaEngine(stories, ONE_THREAD) as engine:
        base = engine.score(prompts, candidates)
        for _ in range(3):
            engine.set_adapter(adapter, layout)
            assert not np.allclose(engine.score(prompts, candidates), base)
        engine.set_adapter(None, None)
        np.testing.assert_array_equal(engine.score(prompts, candidates), base)


@llama
def test_the_base_file_stays_mapped_with_an_adapter(
    stories: ModelPackage, layout: AdapterLayout, adapter: Tensors
) -> None:
    maps = Path("/proc/self/maps")
    if not maps.exists():
        pytest.skip("this system does not list its mapped files")
    with LlamaEngine(stories, ONE_THREAD) as engine:
        engine.set_adapter(adapter, layout)
        assert "model.gguf" in maps.read_text()
    assert "model.gguf" not in maps.read_text()


@llama
def test_a_long_prompt_is_run_in_pieces(stories: ModelPackage, prompts: list[list[int]]) -> None:
    with LlamaEngine(stories, ONE_THREAD, context_tokens=2048) as engine:
        story = list(engine.generate(prompts[0], SamplingSettings(max_tokens=200)))
        long_prompt = (prompts[0] + story) * 4
        assert len(long_prompt) > 600
        candidates = [[token] for token in range(20)]
        scores = engine.score([long_prompt], candidates)
        # The same last step from the other side: everything but the last token is a prompt before it.
        stepwise = engine.score([long_prompt[:-1]], [[long_prompt[-1], token] for token in range(20)])
        first = engine.score([long_prompt[:-1]], [[long_prompt[-1]]])
        np.testing.assert_allclose(stepwise - first, scores, atol=0.05)


@llama
def test_what_does_not_fit_is_refused_and_the_engine_goes_on(stories: ModelPackage, prompts: list[list[int]]) -> None:
    with LlamaEngine(stories, ONE_THREAD) as engine:
        before = list(engine.generate(prompts[0], SamplingSettings(max_tokens=5)))
        foreign = AdapterLayout(layers=5, targets=(Target("q_proj", 32, 64),), rank=4, alpha=8)
        with pytest.raises(EngineUnavailableError, match="another model"):
            engine.set_adapter(initialise(foreign, bytes(32)), foreign)
        with pytest.raises(PromptError):
            engine.generate([], SamplingSettings())
        with pytest.raises(PromptError):
            engine.generate([1, 9999], SamplingSettings())
        assert list(engine.generate(prompts[0], SamplingSettings(max_tokens=5))) == before


@llama
def test_a_damaged_file_is_refused(tmp_path: Path) -> None:
    package = build_stories(tmp_path / "package")
    path = package.path("gguf")
    path.write_bytes(b"GGUF" + bytes(100))
    with pytest.raises(EngineUnavailableError, match="refuses this file"):
        LlamaEngine(package)


@llama
def test_closing_twice_is_safe(stories: ModelPackage) -> None:
    engine = LlamaEngine(stories, ONE_THREAD)
    engine.close()
    engine.close()
