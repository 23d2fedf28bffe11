"""Folders that transformers itself wrote, as packages: the same losses, token by token, as transformers computes.

The reference runs in float64 on the very weights of the package: each matrix quantised and widened again by the
gguf package. What is left is float32 arithmetic.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest

from nightshift.packages.importing import Wishes, import_path
from nightshift.packages.package import ModelPackage
from nightshift.packages.session import open_session
from tests.support.hugging_face import ROWS, TEMPLATE, write_byte_level_tokenizer

pytestmark = pytest.mark.publisher

torch = pytest.importorskip("torch", reason="needs the publisher extra: pip install 'nightshift[publisher]'")
transformers = pytest.importorskip(
    "transformers", reason="needs the publisher extra: pip install 'nightshift[publisher]'"
)

SHAPE: dict[str, Any] = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": ROWS,
    "max_position_embeddings": 128,
    "initializer_range": 0.2,
}
LLAMA_3 = {
    "rope_type": "llama3",
    "rope_theta": 10000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("Llama", {}),
    "llama, tied as SmolLM": ("Llama", {"tie_word_embeddings": True}),
    "llama 3": ("Llama", {"rope_scaling": LLAMA_3, "max_position_embeddings": 256}),
    "mistral": ("Mistral", {"sliding_window": 64, "head_dim": 16}),
    "qwen2": ("Qwen2", {}),
    "qwen3": ("Qwen3", {"head_dim": 32}),
}


def write_with_transformers(folder: Path, name: str, dtype: Any) -> None:
    kind, settings = MODELS[name]
    config = getattr(transformers, f"{kind}Config")(**SHAPE | settings)
    torch.manual_seed(7)
    model = getattr(transformers, f"{kind}ForCausalLM")(config)
    with torch.no_grad():  # biases and norms that do something
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.add_(0.1 * torch.randn_like(parameter))
    model.to(dtype).save_pretrained(folder)
    write_byte_level_tokenizer(folder)


def with_stored_weights(folder: Path, name: str, scheme: str) -> Any:
    """The model as transformers reads the folder, in float64, each matrix as the package holds it."""
    # Read again: a conversion to bfloat16 rounds the rotary frequencies too, which no file holds.
    reference = getattr(transformers, f"{MODELS[name][0]}ForCausalLM").from_pretrained(folder, dtype=torch.float32)
    kind = gguf.GGMLQuantizationType[scheme]
    with torch.no_grad():
        for parameter in reference.parameters():
            if parameter.ndim == 2:
                stored = gguf.quants.quantize(parameter.numpy(), kind)
                values = np.array(gguf.quants.dequantize(stored, kind))
                parameter.copy_(torch.from_numpy(values.reshape(parameter.shape)))
    return reference.double().eval()


def losses_of(package: ModelPackage, ids: np.ndarray) -> np.ndarray:
    feeds = {
        "input_ids": ids[:, :-1],
        "labels": ids[:, 1:],
        "weights": np.ones((ids.shape[0], ids.shape[1] - 1), np.float32),
        "lora_scale": np.array(0.0, np.float32),
    }
    for name, shape in package.manifest.lora_shapes().items():
        feeds[name] = np.zeros([1 if axis == "r" else int(axis) for axis in shape], np.float32)
    (losses,) = open_session(package, "evaluate", threads=1).run(["token_loss"], feeds)
    return np.asarray(losses)


@pytest.mark.parametrize(
    ("name", "dtype", "scheme"),
    [
        ("llama", "float32", "Q8_0"),
        ("llama", "bfloat16", "Q4_0"),
        ("llama, tied as SmolLM", "bfloat16", "Q8_0"),
        ("llama 3", "float16", "Q8_0"),
        ("mistral", "bfloat16", "Q4_0"),
        ("qwen2", "bfloat16", "Q8_0"),
        ("qwen2", "float32", "F16"),
        ("qwen3", "bfloat16", "Q4_0"),
    ],
)
def test_a_package_computes_what_transformers_computes(tmp_path: Path, name: str, dtype: str, scheme: str) -> None:
    write_with_transformers(tmp_path / "folder", name, getattr(torch, dtype))
    package = import_path(tmp_path / "folder", tmp_path / "package", Wishes(scheme), say=lambda _: None)
    assert package.manifest.chat_template == TEMPLATE
    length = min(100, package.manifest.dimensions.context)
    ids = np.random.default_rng(3).integers(0, 600, (2, length + 1))
    with torch.no_grad():
        logits = with_stored_weights(tmp_path / "folder", name, scheme)(torch.from_numpy(ids[:, :-1])).logits
    expected = torch.nn.functional.cross_entropy(
        logits.transpose(1, 2), torch.from_numpy(ids[:, 1:]), reduction="none"
    ).numpy()
    assert expected.std() > 0.5  # a model whose guesses differ, so that equal losses mean something
    np.testing.assert_allclose(losses_of(package, ids), expected, rtol=0, atol=2e-4)


def test_transformers_reads_the_same_tokens(tmp_path: Path) -> None:
    from tokenizers import Tokenizer

    write_with_transformers(tmp_path / "folder", "qwen2", torch.float32)
    package = import_path(tmp_path / "folder", tmp_path / "package", Wishes(), say=lambda _: None)
    theirs = transformers.PreTrainedTokenizerFast(tokenizer_file=str(tmp_path / "folder/tokenizer.json"))
    ours = Tokenizer.from_file(str(package.path("tokenizer")))
    for text in ["wake me at seven", "what's the weather in Zürich?  42 °C", "<|im_start|>hi<|im_end|>"]:
        assert ours.encode(text).ids == theirs(text)["input_ids"]
