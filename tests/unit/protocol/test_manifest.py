"""The manifest: one meaning, one byte string, and nothing else is read."""

from __future__ import annotations

import copy
import dataclasses
import hashlib
import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nightshift.protocol.errors import IncompatibleError, MalformedError, NightshiftError
from nightshift.protocol.manifest import (
    LORA_PROJECTIONS,
    MANIFEST_BYTES_MAX,
    FileRole,
    HubSource,
    Licence,
    Manifest,
    ModelDimensions,
    PackageFile,
    Quantisation,
    Scheme,
    TokenizerRecord,
    Uses,
    package_id,
)
from nightshift.protocol.openness import Component, ComponentRecord, Openness, OpennessRecord

HASH = "ab" * 32

MANIFEST = Manifest(
    name="tiny é",
    dimensions=ModelDimensions(
        family="llama",
        layers=2,
        hidden=64,
        ffn=96,
        heads=4,
        kv_heads=2,
        head_dim=16,
        vocabulary=300,
        context=128,
        rope_theta=10000.0,
        rms_eps=1e-5,
        tied_embeddings=True,
    ),
    quantisation=Quantisation(Scheme.Q8_0, HASH),
    source=HubSource("organisation/tiny", "ab" * 20, "tiny.gguf"),
    tokenizer=TokenizerRecord(HASH, bos=1, eos=None, add_bos=True),
    chat_template="{{ messages }}\n",
    licence=Licence("MIT", ("Keep the notice.",)),
    openness=OpennessRecord({Component.WEIGHTS: ComponentRecord(Openness.OPEN, "MIT")}),
    lora_targets=("q_proj", "down_proj"),
    files=tuple(PackageFile(f"{role}.bin", role, 10, HASH) for role in FileRole),
)


def canonical(document: object) -> bytes:
    return json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def changed(change: Callable[[Any], object]) -> bytes:
    document = json.loads(MANIFEST.to_bytes())
    change(document)
    return canonical(document)


def test_bytes_and_back() -> None:
    encoded = MANIFEST.to_bytes()
    decoded = Manifest.from_bytes(encoded)
    assert decoded.to_bytes() == encoded
    assert decoded.dimensions == MANIFEST.dimensions
    assert decoded.tokenizer == MANIFEST.tokenizer
    assert decoded.chat_template == MANIFEST.chat_template
    assert decoded.licence == MANIFEST.licence
    assert sorted(decoded.files, key=lambda file: file.name) == sorted(MANIFEST.files, key=lambda file: file.name)


def test_the_bytes_are_canonical_and_the_id_is_their_hash() -> None:
    encoded = MANIFEST.to_bytes()
    assert encoded == canonical(json.loads(encoded))
    assert package_id(encoded) == hashlib.sha256(encoded).digest()
    reordered = dataclasses.replace(MANIFEST, files=tuple(reversed(MANIFEST.files)))
    assert reordered.to_bytes() == encoded


def test_lora_shapes_follow_the_layout_of_peft() -> None:
    assert MANIFEST.lora_shapes() == {
        f"layers.{layer}.{name}": shape
        for layer in range(2)
        for name, shape in [
            ("q_proj.lora_a", ("r", 64)),
            ("q_proj.lora_b", (64, "r")),
            ("down_proj.lora_a", ("r", 96)),
            ("down_proj.lora_b", (64, "r")),
        ]
    }
    assert MANIFEST.dimensions.projection_shape("k_proj") == (32, 64)
    assert MANIFEST.dimensions.projection_shape("o_proj") == (64, 64)
    assert MANIFEST.dimensions.projection_shape("gate_proj") == (96, 64)


def assign(*path: str | int, value: object) -> Callable[[Any], object]:
    def change(document: Any) -> None:
        for step in path[:-1]:
            document = document[step]
        document[path[-1]] = value

    return change


HOSTILE = {
    "unknown key": (assign("extra", value=1), "unknown keys extra"),
    "unknown dimension": (assign("dimensions", "experts", value=8), "unknown keys experts"),
    "missing key": (lambda d: d.pop("licence"), "keys licence"),
    "format": (assign("format", value=2), "update Nightshift"),
    "format bool": (assign("format", value=True), "update Nightshift"),
    "parent folder": (assign("files", 0, "name", value="../weights.bin"), "without any folder"),
    "absolute": (assign("files", 0, "name", value="/etc/passwd"), "without any folder"),
    "backslash": (assign("files", 0, "name", value="a\\b"), "without any folder"),
    "hidden": (assign("files", 0, "name", value=".ssh"), "without any folder"),
    "newline": (assign("files", 0, "name", value="a\n"), "without any folder"),
    "zero byte": (assign("files", 0, "name", value="a\0b"), "without any folder"),
    "the manifest itself": (assign("files", 0, "name", value="Manifest.json"), "share a name"),
    "same name": (lambda d: assign("files", 0, "name", value=d["files"][1]["name"])(d), "share a name"),
    "same role": (lambda d: assign("files", 0, "role", value=d["files"][1]["role"])(d), "one file for each role"),
    "unknown role": (assign("files", 0, "role", value="shell"), "file role"),
    "no files": (assign("files", value=[]), "one file for each role"),
    "many files": (lambda d: assign("files", value=d["files"] * 9)(d), "at most 32"),
    "negative size": (assign("files", 0, "size_bytes", value=-1), "size_bytes is -1"),
    "huge size": (assign("files", 0, "size_bytes", value=1 << 60), "size_bytes is"),
    "size as bool": (assign("files", 0, "size_bytes", value=True), "type int"),
    "upper-case hash": (assign("files", 0, "sha256", value="AB" * 32), "lower-case hex"),
    "short hash": (assign("quantisation", "source_sha256", value="ab"), "lower-case hex"),
    "other tokenizer": (assign("tokenizer", "sha256", value="cd" * 32), "differs from the hash of its file"),
    "bos outside": (assign("tokenizer", "bos", value=300), "outside the vocabulary"),
    "bos missing": (assign("tokenizer", "bos", value=None), "no bos"),
    "scheme": (assign("quantisation", "scheme", value="Q9_9"), "quantisation scheme"),
    "a scheme without graphs": (assign("quantisation", "scheme", value="Q4_K_M"), "Q4_K_M cannot train"),
    "unstated heads": (assign("dimensions", "heads", value=0), "a package that trains states it"),
    "unstated theta": (assign("dimensions", "rope_theta", value=0.0), "a package that trains states it"),
    "a branch for a commit": (assign("source", "revision", value="main"), "commit of 40"),
    "a path for a repository": (assign("source", "repository", value="../x"), "organisation/name"),
    "a source without a file": (lambda d: d["source"].pop("file"), "keys file"),
    "huge model": (assign("dimensions", "hidden", value=1 << 40), "dimensions hidden"),
    "no layers": (assign("dimensions", "layers", value=0), "dimensions layers"),
    "float layers": (assign("dimensions", "layers", value=2.0), "type int"),
    "uneven heads": (assign("dimensions", "kv_heads", value=3), "no multiple"),
    "odd head": (assign("dimensions", "head_dim", value=15), "odd"),
    "negative epsilon": (assign("dimensions", "rms_eps", value=-1.0), "finite number, not negative"),
    "whole theta": (assign("dimensions", "rope_theta", value=10000), "type float"),
    "target order": (assign("lora_targets", value=["down_proj", "q_proj"]), "in this order"),
    "target twice": (assign("lora_targets", value=["q_proj", "q_proj"]), "in this order"),
    "no target": (assign("lora_targets", value=[]), "train graphs, and those need some"),
    "target type": (assign("lora_targets", value=[1]), "type str"),
    "empty name": (assign("name", value=""), "printable"),
    "control in name": (assign("name", value="a\x1b[31m"), "printable"),
    "long obligations": (assign("licence", "obligations", value=["x"] * 65), "at most 64"),
    "long template": (assign("chat_template", value="x" * 200_000), "longer than"),
    "openness": (assign("openness", "weights", "state", value="sometimes"), "state must be"),
    "openness component": (assign("openness", "soul", value={}), "unknown component"),
    "not an object": (assign("dimensions", value=[1]), "must be an object"),
}


@pytest.mark.parametrize("case", list(HOSTILE))
def test_a_hostile_manifest_is_refused_with_its_reason(case: str) -> None:
    change, message = HOSTILE[case]
    with pytest.raises(MalformedError, match=message):
        Manifest.from_bytes(changed(change))


def test_other_encodings_of_the_same_meaning_are_refused() -> None:
    document = json.loads(MANIFEST.to_bytes())
    files = copy.deepcopy(document)
    files["files"].reverse()
    for encoded in (
        json.dumps(document, sort_keys=True, ensure_ascii=False).encode(),
        json.dumps(document, sort_keys=True, separators=(",", ":")).encode(),  # \u escapes
        json.dumps(document, separators=(",", ":"), ensure_ascii=False).encode() + b"\n",
        MANIFEST.to_bytes().replace(b'"layers":2', b'"layers":2,"layers":2'),
        canonical(files),
    ):
        with pytest.raises(MalformedError, match="canonical"):
            Manifest.from_bytes(encoded)


@pytest.mark.parametrize(
    "encoded", [b"", b"{", b"[]", b"null", b"\xff\xfe", b"[" * 100_000, b"1" * 10_000, b'{"format":NaN}']
)
def test_what_is_no_manifest_is_refused(encoded: bytes) -> None:
    with pytest.raises(MalformedError, match="manifest"):
        Manifest.from_bytes(encoded)


def test_size_is_bounded_before_parsing() -> None:
    with pytest.raises(MalformedError, match="at most"):
        Manifest.from_bytes(b" " * (MANIFEST_BYTES_MAX + 1))


def test_half_a_surrogate_pair_is_refused() -> None:
    with pytest.raises(MalformedError, match="surrogate"):
        Manifest.from_bytes(MANIFEST.to_bytes().replace(b"{{ messages }}", b"\\ud800"))


def without_training(*roles: FileRole, **changes: Any) -> Manifest:
    files = tuple(PackageFile(f"{role}.bin", role, 10, HASH) for role in roles)
    return dataclasses.replace(MANIFEST, files=files, lora_targets=(), **changes)


def test_the_files_decide_what_a_package_is_for() -> None:
    assert MANIFEST.uses is Uses.TRAINING
    unstated = dataclasses.replace(
        MANIFEST.dimensions, ffn=0, heads=0, kv_heads=0, head_dim=0, rope_theta=0.0, rms_eps=0.0
    )
    llama = without_training(
        FileRole.GGUF, FileRole.TOKENIZER, dimensions=unstated, quantisation=Quantisation(Scheme.Q4_K_M, HASH)
    )
    assert llama.uses is Uses.LLAMA_CPP
    assert Manifest.from_bytes(llama.to_bytes()).to_bytes() == llama.to_bytes()
    assert llama.lora_shapes() == {}
    with pytest.raises(IncompatibleError, match=r"no train file.*training needs Q8_0 or Q4_0"):
        llama.file(FileRole.TRAIN)
    onnx = without_training(FileRole.WEIGHTS, FileRole.DECODE, FileRole.EVALUATE, FileRole.TOKENIZER)
    assert onnx.uses is Uses.ONNX_RUNTIME
    with pytest.raises(MalformedError, match="one file for each role"):
        without_training(FileRole.GGUF, FileRole.DECODE, FileRole.TOKENIZER)
    with pytest.raises(MalformedError, match="the cache of the decode graph"):
        without_training(FileRole.WEIGHTS, FileRole.DECODE, FileRole.EVALUATE, FileRole.TOKENIZER, dimensions=unstated)
    with pytest.raises(MalformedError, match="lora_targets are for packages with train graphs"):
        dataclasses.replace(llama, lora_targets=("q_proj",))


def test_a_model_from_a_file_has_no_source() -> None:
    local = dataclasses.replace(MANIFEST, source=None)
    assert Manifest.from_bytes(local.to_bytes()).source is None
    assert Manifest.from_bytes(MANIFEST.to_bytes()).source == MANIFEST.source


def test_every_projection_is_a_possible_target() -> None:
    every = dataclasses.replace(MANIFEST, lora_targets=LORA_PROJECTIONS)
    assert len(every.lora_shapes()) == 2 * 7 * 2


@settings(max_examples=300)
@given(st.integers(0, len(MANIFEST.to_bytes()) - 1), st.integers(0, 255))
def test_one_changed_byte_is_refused_or_another_package(position: int, value: int) -> None:
    encoded = bytearray(MANIFEST.to_bytes())
    encoded[position] = value
    try:
        decoded = Manifest.from_bytes(bytes(encoded))
    except NightshiftError:
        return
    assert decoded.to_bytes() == bytes(encoded)
