"""One quantised base, two runtimes: llama.cpp and the graphs must say the same on real text.

llama.cpp's kernels for quantised matrices round the activations to 8 bits per block of 32; the
evaluate and train graphs keep them in float32. On a model of width 64 that rounding alone is worth
3e-4 nats (measured against a float64 reference, which `evaluate` matches to 1e-7). So the proof that
the weights are the same numbers gives llama.cpp the dequantised matrices, where the limit is
strict; the runtimes as they ship are then compared with room for the rounding.
"""

from __future__ import annotations

import ctypes
import dataclasses
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import gguf
import numpy as np
import pytest
from tokenizers import Tokenizer, models, pre_tokenizers, trainers

from nightshift.packages.build import build_package
from nightshift.packages.gguf_file import GgufFile, TensorType, ValueType
from nightshift.packages.gguf_writer import GgufWriter, TensorPlan, array_entry, entry
from nightshift.packages.package import ModelPackage
from nightshift.packages.random_model import SMALL, write_random_model
from nightshift.packages.session import open_session
from nightshift.packages.vocabulary import SPLITS

llama_cpp = pytest.importorskip("llama_cpp", reason="needs the llama extra (llama-cpp-python)")
pytestmark = pytest.mark.llama

KL_LIMIT = 1e-4  # nats, mean over positions
TOP_TOKEN_SHARE = 0.99
ROUNDED_KL_LIMIT = 1e-3  # with llama.cpp's 8-bit activations
ROUNDED_TOP_TOKEN_SHARE = 0.98

STORY = (
    "Once upon a time, there was a little girl named Lily. She loved to play outside in the park with her friends. "
    "One day, she saw a big dog near the trees. The dog was sad because it had lost its ball. Lily wanted to help "
    "the dog, so she looked under the bench and behind the slide. At last she found the ball in the mud. The dog was "
    "very happy and ran around. Lily went home and told her mom about the dog, and her mom smiled and gave her a hug."
)


_WITH_BOS_WITHOUT_CONTROLS = (True, False)


@llama_cpp.llama_log_callback
def _silent(level: int, text: bytes, data: ctypes.c_void_p) -> None:
    pass


@contextmanager
def loaded(path: Path, *, vocabulary_only: bool = False) -> Iterator[object]:
    llama_cpp.llama_log_set(_silent, ctypes.c_void_p(0))
    llama_cpp.llama_backend_init()
    parameters = llama_cpp.llama_model_default_params()
    parameters.vocab_only = vocabulary_only
    model = llama_cpp.llama_model_load_from_file(str(path).encode(), parameters)
    assert model, f"llama.cpp does not load {path}"
    try:
        yield model
    finally:
        llama_cpp.llama_model_free(model)


def llama_ids(model: object, text: str) -> list[int]:
    """Ids with the beginning token, control tokens in the text not recognised."""
    encoded = text.encode()
    buffer = (llama_cpp.llama_token * (len(encoded) + 8))()
    vocabulary = llama_cpp.llama_model_get_vocab(model)
    count = llama_cpp.llama_tokenize(
        vocabulary, encoded, len(encoded), buffer, len(buffer), *_WITH_BOS_WITHOUT_CONTROLS
    )
    assert count >= 0
    return list(buffer[:count])


def llama_logits(model: object, ids: list[int]) -> np.ndarray:
    """float32 [T, vocabulary]."""
    parameters = llama_cpp.llama_context_default_params()
    parameters.n_ctx, parameters.n_batch, parameters.n_ubatch = len(ids), len(ids), len(ids)
    parameters.n_threads = parameters.n_threads_batch = 2
    context = llama_cpp.llama_init_from_model(model, parameters)
    batch = llama_cpp.llama_batch_init(len(ids), 0, 1)
    try:
        batch.n_tokens = len(ids)
        for position, token in enumerate(ids):
            batch.token[position] = token
            batch.pos[position] = position
            batch.n_seq_id[position] = 1
            batch.seq_id[position][0] = 0
            batch.logits[position] = True
        assert llama_cpp.llama_decode(context, batch) == 0
        size = llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(model))
        return np.ctypeslib.as_array(llama_cpp.llama_get_logits(context), shape=(len(ids), size)).copy()
    finally:
        llama_cpp.llama_batch_free(batch)
        llama_cpp.llama_free(context)


_evaluated: dict[tuple[bytes, tuple[int, ...]], np.ndarray] = {}


def evaluate_log_chances(package: ModelPackage, ids: list[int]) -> np.ndarray:
    """Log-probabilities of every token at every position, float64 [T, vocabulary], from `evaluate`.

    The graph gives the loss of one label per position, so it is asked once for each label; what two
    tests ask for is asked once.
    """
    key = (package.package_id, tuple(ids))
    if key not in _evaluated:
        _evaluated[key] = _evaluate_every_label(package, ids)
    return _evaluated[key]


def _evaluate_every_label(package: ModelPackage, ids: list[int]) -> np.ndarray:
    size = package.manifest.dimensions.vocabulary
    session = open_session(package, "evaluate", threads=2)
    feed = {"lora_scale": np.array(0, np.float32)}
    for name, shape in package.manifest.lora_shapes().items():
        feed[name] = np.zeros([1 if axis == "r" else int(axis) for axis in shape], np.float32)
    columns = []
    for first in range(0, size, 16):
        labels = np.arange(first, min(first + 16, size))
        feed["input_ids"] = np.tile(np.array(ids), (len(labels), 1))
        feed["labels"] = np.repeat(labels[:, None], len(ids), axis=1)
        feed["weights"] = np.ones(feed["labels"].shape, np.float32)
        columns.append(-session.run(None, feed)[0].T)
    return np.concatenate(columns, axis=1).astype(np.float64)


def decode_log_chances(package: ModelPackage, ids: list[int]) -> np.ndarray:
    """The same from `decode`, one token at a time through the cache."""
    session, d = open_session(package, "decode", threads=1), package.manifest.dimensions
    names = [output.name for output in session.get_outputs()]
    cache = {
        f"past.{layer}.{part}": np.zeros((1, d.kv_heads, 0, d.head_dim), np.float32)
        for layer in range(d.layers)
        for part in ("key", "value")
    }
    rows = []
    for position, token in enumerate(ids):
        feed = {"input_ids": np.array([[token]]), "past_length": np.array(position)}
        results = dict(zip(names, session.run(None, feed | cache), strict=True))
        rows.append(results.pop("logits")[0])
        cache = {name.replace("present", "past"): value for name, value in results.items()}
    return log_softmax(np.array(rows))


def log_softmax(logits: np.ndarray) -> np.ndarray:
    shifted = logits.astype(np.float64) - logits.max(-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))


def check_agreement(
    theirs: np.ndarray, ours: np.ndarray, *, kl: float = KL_LIMIT, top: float = TOP_TOKEN_SHARE
) -> None:
    divergence = (np.exp(theirs) * (theirs - ours)).sum(-1)
    assert divergence.mean() <= kl
    assert (theirs.argmax(-1) == ours.argmax(-1)).mean() >= top


def write_dequantised(source: Path, destination: Path) -> None:
    """The same model with every matrix widened to float32 by the gguf package: equal weights, no rounding."""
    with GgufFile.open(source) as file:
        entries = [file.raw_entry(key) for key in file.keys() if key != "general.file_type"]  # noqa: SIM118 - not a dict
        plans = [TensorPlan(info.name, info.shape, TensorType.F32) for info in file.tensors.values()]
    with GgufWriter(destination, entries, plans) as writer:
        for tensor in gguf.GGUFReader(source).tensors:
            values = gguf.quants.dequantize(tensor.data, tensor.tensor_type).astype(np.float32)
            writer.write(tensor.name, np.ascontiguousarray(values).view(np.uint8))


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["Q8_0", "Q4_0", "F16"])
def test_both_runtimes_hold_the_same_weights(
    stories: Callable[[str], ModelPackage], tmp_path: Path, scheme: str
) -> None:
    package = stories(scheme)
    write_dequantised(package.path("gguf"), tmp_path / "float.gguf")
    with loaded(tmp_path / "float.gguf") as model:
        ids = llama_ids(model, STORY)
        theirs = log_softmax(llama_logits(model, ids))
    assert len(ids) > 150
    check_agreement(theirs, evaluate_log_chances(package, ids))


@pytest.mark.parametrize("scheme", ["Q8_0", "Q4_0"])
def test_both_runtimes_agree_as_they_ship(stories: Callable[[str], ModelPackage], scheme: str) -> None:
    package = stories(scheme)
    with loaded(package.path("gguf")) as model:
        ids = llama_ids(model, STORY)
        theirs = log_softmax(llama_logits(model, ids))
    for ours in (evaluate_log_chances(package, ids), decode_log_chances(package, ids)):
        check_agreement(theirs, ours, kl=ROUNDED_KL_LIMIT, top=ROUNDED_TOP_TOKEN_SHARE)


def test_decoding_through_the_cache_agrees_with_llama_cpp(stories: Callable[[str], ModelPackage]) -> None:
    package = stories("F16")
    with loaded(package.path("gguf")) as model:
        ids = llama_ids(model, STORY)
        theirs = log_softmax(llama_logits(model, ids))
    check_agreement(theirs, decode_log_chances(package, ids))


@pytest.mark.parametrize("family", ["llama", "qwen2", "qwen3"])
def test_both_runtimes_agree_on_other_shapes(tmp_path: Path, family: str) -> None:
    dimensions = dataclasses.replace(SMALL, family=family, tied_embeddings=False, rope_theta=50000.0)
    write_random_model(tmp_path / "random.gguf", dimensions, seed=3)
    package = build_package(tmp_path / "random.gguf", tmp_path / "package", quantisation="F16")
    ids = [int(token) for token in np.random.default_rng(2).integers(3, dimensions.vocabulary, 200)]
    with loaded(package.path("gguf")) as model:
        theirs = log_softmax(llama_logits(model, ids))
    ours = evaluate_log_chances(package, ids)
    # Random weights give flat distributions, where the top token hangs on the last bits: KL decides.
    assert (np.exp(theirs) * (theirs - ours)).sum(-1).mean() <= KL_LIMIT


AWKWARD = [
    "",
    " ",
    "  two  spaces ",
    "\n\ttabs\r\n",
    "Grüße, 世界! 👋🏽",
    "naïve café — “quotes”",
    "x" * 50,
    "don't I'LL 12345 3.14",
    "Привет, включи свет",
    "मौसम कैसा है",
    "a\u00a0b\u200dc",
    "<0x41> ▁low",
]


def check_ids(package: ModelPackage, texts: list[str]) -> None:
    tokenizer = Tokenizer.from_file(str(package.path("tokenizer")))
    with loaded(package.path("gguf"), vocabulary_only=True) as model:
        for text in texts:
            assert tokenizer.encode(text).ids == llama_ids(model, text), repr(text)


def test_ids_are_those_of_llama_cpp_for_sentencepiece(
    stories: Callable[[str], ModelPackage], commands: list[str]
) -> None:
    check_ids(stories("Q8_0"), commands[:600] + AWKWARD)


@pytest.mark.parametrize("pre", list(SPLITS))
def test_ids_are_those_of_llama_cpp_for_byte_level_bpe(tmp_path: Path, commands: list[str], pre: str) -> None:
    trained = Tokenizer(models.BPE())
    trained.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=SMALL.vocabulary, special_tokens=["<|end|>"], initial_alphabet=alphabet, show_progress=False
    )
    trained.train_from_iterator(commands[:4000], trainer)
    model = json.loads(trained.to_str())["model"]
    tokens = sorted(model["vocab"], key=model["vocab"].get)
    assert len(tokens) == SMALL.vocabulary
    entries = [
        entry("tokenizer.ggml.model", "gpt2"),
        entry("tokenizer.ggml.pre", pre),
        array_entry("tokenizer.ggml.tokens", ValueType.STRING, tokens),
        array_entry("tokenizer.ggml.token_type", ValueType.INT32, [3] + [1] * (len(tokens) - 1)),
        array_entry("tokenizer.ggml.merges", ValueType.STRING, [" ".join(merge) for merge in model["merges"]]),
        entry("tokenizer.ggml.bos_token_id", 0),
        entry("tokenizer.ggml.eos_token_id", 0),
        entry("tokenizer.ggml.add_bos_token", value=False),
    ]
    write_random_model(tmp_path / "random.gguf", SMALL, seed=1, tokenizer_entries=entries)
    package = build_package(tmp_path / "random.gguf", tmp_path / "package")
    check_ids(package, commands[:400] + AWKWARD)
    tokenizer = Tokenizer.from_file(str(package.path("tokenizer")))
    for text in commands[:50] + AWKWARD:
        assert tokenizer.decode(tokenizer.encode(text).ids) == text
