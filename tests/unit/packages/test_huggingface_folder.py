"""Folders of Hugging Face: weights bit for bit, tokens the same, and everything else refused by name."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file
from tokenizers import Tokenizer

from nightshift.packages import llama_check
from nightshift.packages.gguf_file import GgufFile
from nightshift.packages.gguf_types import TensorType
from nightshift.packages.huggingface_folder import convert_folder, folder_sha256
from nightshift.packages.importing import Wishes, import_path
from nightshift.packages.safetensors_file import SafetensorsFile
from nightshift.packages.vocabulary import SPLITS, read_vocabulary, tokenizer_json
from nightshift.protocol.errors import IncompatibleError, MalformedError, NightshiftError, UsageError
from nightshift.protocol.manifest import HubSource, Uses
from tests.support.hugging_face import (
    CONFIG,
    ROWS,
    TEMPLATE,
    random_tensors,
    real_texts,
    write_byte_level_tokenizer,
    write_folder,
    write_sentencepiece_tokenizer,
)


def silent(_: str) -> None:
    """Say nothing."""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_folder(tmp_path / "model")


def as_bfloat16(values: np.ndarray) -> np.ndarray:
    return (np.ascontiguousarray(values).view(np.uint32) >> 16).astype(np.uint16)


def write_bfloat16(path: Path, tensors: dict[str, np.ndarray]) -> None:
    """A safetensors file by hand: the library's numpy side has no bfloat16."""
    header, data = {}, b""
    for name, values in tensors.items():
        encoded = as_bfloat16(values).tobytes()
        header[name] = {
            "dtype": "BF16",
            "shape": list(values.shape),
            "data_offsets": [len(data), len(data) + len(encoded)],
        }
        data += encoded
    encoded_header = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(encoded_header)) + encoded_header + data)


def test_bfloat16_weights_are_carried_bit_for_bit(folder: Path, tmp_path: Path) -> None:
    tensors = random_tensors()
    write_bfloat16(folder / "model.safetensors", tensors)
    convert_folder(folder, tmp_path / "m.gguf", name="m")
    with GgufFile.open(tmp_path / "m.gguf") as file:
        stored = {name: file.tensor_bytes(name).copy() for name in file.tensors}
        assert file.tensors["blk.0.attn_v.weight"].type is TensorType.BF16
        assert file.tensors["blk.0.attn_norm.weight"].type is TensorType.F32
    bits = {name: as_bfloat16(values) for name, values in tensors.items()}
    for gguf_name, name in [
        ("token_embd.weight", "model.embed_tokens.weight"),
        ("blk.1.attn_v.weight", "model.layers.1.self_attn.v_proj.weight"),
        ("blk.1.ffn_down.weight", "model.layers.1.mlp.down_proj.weight"),
    ]:
        np.testing.assert_array_equal(stored[gguf_name].view(np.uint16), bits[name].reshape(-1))
    # Rows of q and k as llama.cpp's converter orders them (convert_hf_to_gguf.py, `permute`).
    query = bits["model.layers.0.self_attn.q_proj.weight"].reshape(4, 2, 8, 64).swapaxes(1, 2).reshape(-1)
    np.testing.assert_array_equal(stored["blk.0.attn_q.weight"].view(np.uint16), query)
    norm = bits["model.norm.weight"].astype(np.uint32) << 16
    np.testing.assert_array_equal(stored["output_norm.weight"].view(np.float32), norm.view(np.float32))


def test_a_folder_becomes_a_package_that_trains(folder: Path, tmp_path: Path) -> None:
    (folder / "README.md").write_text("---\nlicense: apache-2.0\nlanguage: en\n---\n# Model\n")
    source = HubSource("organisation/tiny", "ab" * 20, "")
    package = import_path(folder, tmp_path / "package", Wishes("Q4_0", origin=source), say=silent)
    manifest = package.manifest
    assert (manifest.uses, manifest.name, manifest.licence.spdx) == (Uses.TRAINING, "tiny", "Apache-2.0")
    assert manifest.chat_template == TEMPLATE
    assert manifest.quantisation.source_sha256 == folder_sha256(folder)
    assert manifest.source == source
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model", "package"]  # the step between is gone
    with GgufFile.open(package.path("gguf")) as file:
        stored = file.tensor_bytes("blk.0.attn_v.weight").copy()
    values = random_tensors()["model.layers.0.self_attn.v_proj.weight"]
    theirs = gguf.quants.quantize(values, gguf.GGMLQuantizationType.Q4_0)
    np.testing.assert_array_equal(stored, theirs.reshape(-1))


def test_the_same_folder_gives_the_same_package(folder: Path, tmp_path: Path) -> None:
    first = import_path(folder, tmp_path / "a", Wishes(), say=silent)
    assert import_path(folder, tmp_path / "b", Wishes(), say=silent).package_id == first.package_id


def test_shards_are_one_model(folder: Path, tmp_path: Path) -> None:
    convert_folder(folder, tmp_path / "whole.gguf", name="m")
    tensors = random_tensors()
    (folder / "model.safetensors").unlink()
    names = list(tensors)
    for index, part in enumerate([names[:9], names[9:]]):
        save_file({name: tensors[name] for name in part}, folder / f"model-0000{index + 1}-of-00002.safetensors")
    convert_folder(folder, tmp_path / "parts.gguf", name="m")
    assert (tmp_path / "parts.gguf").read_bytes() == (tmp_path / "whole.gguf").read_bytes()
    save_file({names[0]: tensors[names[0]]}, folder / "x.safetensors")
    with pytest.raises(MalformedError, match=r"is in model-00001-of-00002\.safetensors too"):
        convert_folder(folder, tmp_path / "twice.gguf", name="m")


# Tokenizers.


def both_tokenizers(folder: Path, tmp_path: Path) -> tuple[Tokenizer, Tokenizer]:
    convert_folder(folder, tmp_path / "m.gguf", name="m")
    with GgufFile.open(tmp_path / "m.gguf") as file:
        ours = Tokenizer.from_str(tokenizer_json(file, read_vocabulary(file, ROWS)).decode())
    return ours, Tokenizer.from_file(str(folder / "tokenizer.json"))


@pytest.mark.parametrize("pre", list(SPLITS))
def test_byte_level_tokens_are_those_of_the_folder(folder: Path, tmp_path: Path, pre: str) -> None:
    write_byte_level_tokenizer(folder, pre)
    ours, theirs = both_tokenizers(folder, tmp_path)
    for text in [*real_texts()[:300], *llama_check.PROBES, "<|im_start|>hi<|im_end|>"]:
        assert ours.encode(text).ids == theirs.encode(text).ids
    with GgufFile.open(tmp_path / "m.gguf") as file:
        assert file.text("tokenizer.ggml.pre") == pre
        assert file.integer("tokenizer.ggml.eos_token_id") == theirs.token_to_id("<|im_end|>")
        assert file.texts("tokenizer.ggml.tokens")[-1] == f"[PAD{ROWS - 1}]"


def test_sentencepiece_tokens_are_those_of_the_folder(folder: Path, tmp_path: Path) -> None:
    write_sentencepiece_tokenizer(folder)
    ours, theirs = both_tokenizers(folder, tmp_path)
    for text in [*real_texts()[:600], *llama_check.PROBES]:
        assert ours.encode(text).ids == theirs.encode(text).ids


@pytest.mark.llama
@pytest.mark.parametrize("kind", [*SPLITS, "sentencepiece"])
def test_llama_cpp_reads_the_same_tokens(folder: Path, tmp_path: Path, kind: str) -> None:
    if kind == "sentencepiece":
        write_sentencepiece_tokenizer(folder)
    else:
        write_byte_level_tokenizer(folder, kind)
    _, theirs = both_tokenizers(folder, tmp_path)
    expected = [theirs.encode(text, add_special_tokens=False).ids for text in llama_check.PROBES]
    assert llama_check.token_ids(tmp_path / "m.gguf") == expected


def test_a_chat_template_may_lie_in_a_file_of_its_own_or_have_a_name(folder: Path, tmp_path: Path) -> None:
    named = [{"name": "tool_use", "template": "no"}, {"name": "default", "template": "yes"}]
    (folder / "tokenizer_config.json").write_text(json.dumps({"chat_template": named}))
    convert_folder(folder, tmp_path / "a.gguf", name="m")
    (folder / "chat_template.jinja").write_text("file")
    convert_folder(folder, tmp_path / "b.gguf", name="m")
    for name, expected in (("a", "yes"), ("b", "file")):
        with GgufFile.open(tmp_path / f"{name}.gguf") as file:
            assert file.text("tokenizer.chat_template") == expected


# What is refused.


def change(name: str, **changes: object) -> Callable[[Path], object]:
    def apply(folder: Path) -> None:
        document = json.loads((folder / name).read_text())
        (folder / name).write_text(json.dumps(document | changes))

    return apply


def change_tokenizer(edit: Callable[[dict[str, Any]], object]) -> Callable[[Path], object]:
    def apply(folder: Path) -> None:
        document = json.loads((folder / "tokenizer.json").read_text())
        edit(document)
        (folder / "tokenizer.json").write_text(json.dumps(document))

    return apply


def change_tensors(edit: Callable[[dict[str, np.ndarray]], object]) -> Callable[[Path], object]:
    def apply(folder: Path) -> None:
        tensors: dict[str, np.ndarray] = dict(random_tensors())
        edit(tensors)
        save_file(tensors, folder / "model.safetensors")

    return apply


def one_token_more(document: dict[str, Any]) -> None:
    document["model"]["vocab"]["extra"] = ROWS


def other_words(document: dict[str, Any]) -> None:
    document["pre_tokenizer"] = {"type": "Whitespace"}
    document["pre_tokenizer"] = {
        "type": "Sequence",
        "pretokenizers": [{"type": "Punctuation", "behavior": "Isolated"}, {"type": "ByteLevel", "use_regex": False}],
    }


def lower_case(document: dict[str, Any]) -> None:
    document["normalizer"] = {"type": "Lowercase"}


REFUSED: dict[str, tuple[Callable[[Path], object], type[NightshiftError], str]] = {
    "no config": (lambda f: (f / "config.json").unlink(), UsageError, "no config.json"),
    "config no JSON": (lambda f: (f / "config.json").write_text("{"), MalformedError, "not UTF-8 JSON"),
    "config a list": (lambda f: (f / "config.json").write_text("[]"), MalformedError, "expected a JSON object"),
    "architecture": (change("config.json", model_type="gpt2"), IncompatibleError, "architecture 'gpt2'"),
    "activation": (change("config.json", hidden_act="gelu"), IncompatibleError, "activation 'gelu'"),
    "bias": (change("config.json", attention_bias=True), IncompatibleError, "attention_bias"),
    "scaling": (change("config.json", rope_scaling={"type": "yarn"}), IncompatibleError, "rotary scaling 'yarn'"),
    "layers": (change("config.json", num_hidden_layers=3), MalformedError, "model.layers.2.*is missing"),
    "fewer layers": (change("config.json", num_hidden_layers=1), IncompatibleError, "no place for"),
    "no number": (change("config.json", hidden_size="64"), MalformedError, "hidden_size should be"),
    "zero": (change("config.json", num_attention_heads=0), MalformedError, "num_attention_heads should be"),
    "huge": (change("config.json", hidden_size=1 << 40), MalformedError, "dimensions hidden"),
    "width": (change("config.json", intermediate_size=128), MalformedError, r"shape \[96, 64\]"),
    "no weights": (lambda f: (f / "model.safetensors").unlink(), UsageError, "no .safetensors"),
    "a link": (
        lambda f: ((f / "model.safetensors").unlink(), (f / "model.safetensors").symlink_to("/dev/zero")),
        MalformedError,
        "not a regular file",
    ),
    "truncated": (
        lambda f: (f / "model.safetensors").write_bytes((f / "model.safetensors").read_bytes()[:-100]),
        MalformedError,
        "does not lie where it should",
    ),
    "whole numbers": (
        change_tensors(lambda t: t.update({"model.norm.weight": np.ones(64, np.int32)})),
        IncompatibleError,
        "is I32",
    ),
    "a tensor too many": (
        change_tensors(lambda t: t.update({"model.experts": np.ones(4, np.float32)})),
        IncompatibleError,
        "no place for: model.experts",
    ),
    "no tokenizer": (lambda f: (f / "tokenizer.json").unlink(), UsageError, "no tokenizer.json"),
    "word pieces": (
        change_tokenizer(lambda d: d["model"].update(type="WordPiece")),
        IncompatibleError,
        "tokenizer 'WordPiece'",
    ),
    "more tokens than rows": (change_tokenizer(one_token_more), MalformedError, f"the embedding has {ROWS} rows"),
    "other words": (change_tokenizer(other_words), IncompatibleError, "cuts text into words"),
    "merge": (change_tokenizer(lambda d: d["model"]["merges"].append("a b c")), MalformedError, "is no pair"),
    "reads differently": (change_tokenizer(lower_case), IncompatibleError, "cannot be carried over"),
}


@pytest.mark.parametrize("case", list(REFUSED))
def test_a_folder_that_cannot_be_carried_over_is_refused(folder: Path, tmp_path: Path, case: str) -> None:
    edit, kind, message = REFUSED[case]
    edit(folder)
    with pytest.raises(kind, match=message):
        import_path(folder, tmp_path / "package", Wishes(), say=silent)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model"]


SAFETENSORS_LIES = {
    "short": (b"\0" * 4, "too short"),
    "header beyond the end": (struct.pack("<Q", 1 << 60) + bytes(64), "claims a header"),
    "no JSON": (struct.pack("<Q", 4) + b"{{{{", "no JSON"),
    "a list": (struct.pack("<Q", 2) + b"[]", "no list of tensors"),
}


@pytest.mark.parametrize("lie", list(SAFETENSORS_LIES))
def test_a_safetensors_file_that_lies_is_refused(tmp_path: Path, lie: str) -> None:
    content, message = SAFETENSORS_LIES[lie]
    path = tmp_path / "lie.safetensors"
    path.write_bytes(content)
    with pytest.raises(MalformedError, match=message):
        SafetensorsFile(path)


@pytest.mark.parametrize(
    "entry",
    [
        {"dtype": "F32", "shape": [1 << 40, 1 << 40], "data_offsets": [0, 4]},
        {"dtype": "F32", "shape": [1], "data_offsets": [0, 1 << 40]},
        {"dtype": "F32", "shape": [-1], "data_offsets": [0, 4]},
        {"dtype": "F32", "shape": [1], "data_offsets": [4, 0]},
        {"dtype": "F32", "shape": [True], "data_offsets": [0, 4]},
        {"dtype": 7, "shape": [1], "data_offsets": [0, 4]},
        {"shape": [1], "data_offsets": [0, 4]},
        [],
    ],
)
def test_a_tensor_that_cannot_be_there_is_refused(tmp_path: Path, entry: object) -> None:
    header = json.dumps({"x": entry}).encode()
    path = tmp_path / "lie.safetensors"
    path.write_bytes(struct.pack("<Q", len(header)) + header + bytes(4))
    with pytest.raises(MalformedError, match="tensor 'x'"):
        SafetensorsFile(path)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(position=st.integers(0, 4000), values=st.binary(min_size=1, max_size=4))
def test_any_bytes_in_a_safetensors_header_are_read_or_refused(tmp_path: Path, position: int, values: bytes) -> None:
    path = tmp_path / "odd.safetensors"
    if not path.exists():
        save_file(random_tensors(), path)
    original = path.read_bytes()
    damaged = bytearray(original)
    damaged[position : position + len(values)] = values
    other = tmp_path / "other.safetensors"
    other.write_bytes(damaged)
    try:
        with SafetensorsFile(other) as file:
            for name in file.tensors:
                file.tensor_bytes(name)
    except NightshiftError:
        pass


def test_the_shape_is_read_from_either_generation_of_config(folder: Path, tmp_path: Path) -> None:
    convert_folder(folder, tmp_path / "old.gguf", name="m")
    document = {key: value for key, value in CONFIG.items() if key != "rope_theta"}
    document["rope_parameters"] = {"rope_type": "default", "rope_theta": 10000.0}
    (folder / "config.json").write_text(json.dumps(document))
    convert_folder(folder, tmp_path / "new.gguf", name="m")
    assert (tmp_path / "new.gguf").read_bytes() == (tmp_path / "old.gguf").read_bytes()
