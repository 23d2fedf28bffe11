"""GGUF files of any shape with random weights, for benchmarks and tests of shapes that no licence hinders.

The weights are drawn so that activations keep their size through the layers; the vocabulary is a
working SentencePiece one, so llama.cpp loads the file too.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nightshift.packages.architecture import FAMILIES, Architecture, TensorSource
from nightshift.packages.gguf_file import TensorType, ValueType
from nightshift.packages.gguf_header import model_entries
from nightshift.packages.gguf_writer import GgufWriter, TensorPlan, array_entry, entry
from nightshift.packages.vocabulary import TokenType
from nightshift.protocol.manifest import ModelDimensions

END_TOKEN = 2
"""Of the SentencePiece vocabulary below."""

SMALL = ModelDimensions(
    family="llama",
    layers=2,
    hidden=64,
    ffn=96,
    heads=4,
    kv_heads=2,
    head_dim=16,
    vocabulary=512,
    context=256,
    rope_theta=10000.0,
    rms_eps=1e-5,
    tied_embeddings=True,
)
"""A shape small enough for unit tests; `dataclasses.replace` makes others."""

SMOLLM_135M = ModelDimensions(
    family="llama",
    layers=30,
    hidden=576,
    ffn=1536,
    heads=9,
    kv_heads=3,
    head_dim=64,
    vocabulary=49152,
    context=2048,
    rope_theta=10000.0,
    rms_eps=1e-5,
    tied_embeddings=True,
)
"""The shape of SmolLM-135M."""

QWEN2_500M = ModelDimensions(
    family="qwen2",
    layers=24,
    hidden=896,
    ffn=4864,
    heads=14,
    kv_heads=2,
    head_dim=64,
    vocabulary=151936,
    context=4096,
    rope_theta=1000000.0,
    rms_eps=1e-6,
    tied_embeddings=True,
)
"""The shape of Qwen2-0.5B."""


def write_random_model(
    path: Path,
    dimensions: ModelDimensions,
    *,
    seed: int,
    matrix_type: TensorType = TensorType.F16,
    tokenizer_entries: Sequence[bytes] | None = None,
    licence: str = "cc0-1.0",
    endless: bool = False,
) -> None:
    """Write a GGUF file.

    Args:
        path: Where to.
        dimensions: The shape; its family decides about biases and head norms.
        seed: Of the weights; same seed, same bytes.
        matrix_type: F16 or F32.
        tokenizer_entries: Ready-made metadata entries of another tokenizer for the same vocabulary size.
        licence: What `general.license` says; random numbers are nobody's work.
        endless: The token that ends an answer is never the likeliest: with tied embeddings its logit is 0, and among
            all the others there is one above.

    Raises:
        ValueError: Endless with another tokenizer or embeddings that are not tied.
    """
    if endless and (tokenizer_entries or not dimensions.tied_embeddings):
        raise ValueError("an endless model has this module's tokenizer and tied embeddings")
    generator = np.random.default_rng(seed)
    architecture = Architecture(dimensions, FAMILIES[dimensions.family], np.empty(0, np.float32))
    sources = architecture.tensors()
    plans = [
        TensorPlan(source.gguf_name, source.shape, matrix_type if source.is_matrix else TensorType.F32)
        for source in sources
    ]
    described = ", ".join(f"{name} {getattr(dimensions, name)}" for name in ("layers", "hidden", "vocabulary"))
    entries = model_entries(dimensions, name=f"random {dimensions.family}: {described}", licence=licence)
    entries += tokenizer_entries or sentencepiece_entries(dimensions.vocabulary)
    with GgufWriter(path, entries, plans) as writer:
        for source, plan in zip(sources, plans, strict=True):
            values = _draw(source, generator)
            if endless and source.gguf_name == "token_embd.weight":
                values[END_TOKEN] = 0.0
            stored = values if plan.type is TensorType.F32 else values.astype(np.float16)
            writer.write(plan.name, stored.view(np.uint8))


def sentencepiece_entries(size: int) -> list[bytes]:
    """A SentencePiece vocabulary of `size` tokens: specials, bytes, printable ASCII, invented words.

    Raises:
        ValueError: Fewer than the 354 tokens that the fixed part needs.
    """
    texts = ["<unk>", "<s>", "</s>", *(f"<0x{value:02X}>" for value in range(256))]
    types = [TokenType.UNKNOWN, TokenType.CONTROL, TokenType.CONTROL, *[TokenType.BYTE] * 256]
    characters = ["▁", *(chr(code) for code in range(33, 127))]
    if size < len(texts) + len(characters):
        raise ValueError(f"a vocabulary of {size}; at least {len(texts) + len(characters)} are needed")
    words = (f"{first}{second}" for first in characters for second in characters)
    longer = (f"▁{index}" for index in range(10, size + 10))
    pieces = characters + list(dict.fromkeys([*words, *longer]))
    pieces = pieces[: size - len(texts)]
    texts += pieces
    types += [TokenType.NORMAL] * len(pieces)
    # The first pieces are single characters: the last resort, so they get the lowest scores.
    scores = [0.0] * 259 + [-float(size)] * len(characters)
    scores += [-float(index) for index in range(size - len(scores))]
    return [
        entry("tokenizer.ggml.model", "llama"),
        array_entry("tokenizer.ggml.tokens", ValueType.STRING, texts),
        array_entry("tokenizer.ggml.scores", ValueType.FLOAT32, scores),
        array_entry("tokenizer.ggml.token_type", ValueType.INT32, [int(kind) for kind in types]),
        entry("tokenizer.ggml.bos_token_id", 1),
        entry("tokenizer.ggml.eos_token_id", END_TOKEN),
        entry("tokenizer.ggml.unknown_token_id", 0),
        entry("tokenizer.ggml.add_bos_token", value=True),
    ]


def _draw(source: TensorSource, generator: np.random.Generator) -> NDArray[np.float32]:
    values = generator.standard_normal(source.shape, np.float32)
    if source.is_matrix:
        return values * np.float32(source.shape[1] ** -0.5)
    if source.name.endswith("bias"):
        return values * np.float32(0.1)
    return np.float32(1.0) + values * np.float32(0.1)
