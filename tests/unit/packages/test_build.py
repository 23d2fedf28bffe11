"""Building: deterministic, whole or not at all, and clear about what it cannot do."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from nightshift.packages import gguf_writer
from nightshift.packages.build import build_package
from nightshift.packages.gguf_file import GgufFile, TensorType, ValueType
from nightshift.packages.package import ModelPackage, file_sha256
from nightshift.packages.package_folder import FILE_NAMES
from nightshift.packages.random_model import SMALL, sentencepiece_entries, write_random_model
from nightshift.protocol.errors import IncompatibleError, MalformedError, NightshiftError, UsageError
from nightshift.protocol.manifest import Licence
from nightshift.protocol.openness import Component, MofClass, WeightsFreedom


def write_gguf(
    path: Path,
    source: Path,
    *,
    replace: dict[str, bytes] | None = None,
    drop: tuple[str, ...] = (),
    tensors: Callable[[str, np.ndarray], np.ndarray | None] = lambda _, data: data,
) -> Path:
    """A copy of `source` with other metadata entries, or with tensors changed or left out."""
    replace = replace or {}
    with GgufFile.open(source) as file:
        entries = [
            replace.get(key, file.raw_entry(key))
            for key in file.keys()  # noqa: SIM118 - not a dict
            if key not in drop
        ]
        entries += [value for key, value in replace.items() if key not in file]
        kept = {name: tensors(name, file.tensor_bytes(name).copy()) for name in file.tensors}
        plans = [
            gguf_writer.TensorPlan(name, file.tensors[name].shape, file.tensors[name].type or TensorType.F32)
            for name, data in kept.items()
            if data is not None
        ]
    with gguf_writer.GgufWriter(path, entries, plans) as writer:
        for plan in plans:
            data = kept[plan.name]
            assert data is not None
            writer.write(plan.name, data)
    return path


@pytest.mark.parametrize("scheme", ["Q8_0", "Q4_0", "F16"])
def test_the_same_source_gives_the_same_bytes(
    stories: Callable[[str], ModelPackage], stories_source: Path, tmp_path: Path, scheme: str
) -> None:
    first, second = stories(scheme), build_package(stories_source, tmp_path / "again", quantisation=scheme)
    assert second.package_id == first.package_id
    for role in FILE_NAMES:
        assert second.path(role).read_bytes() == first.path(role).read_bytes()


def test_the_manifest_says_what_was_built(stories: Callable[[str], ModelPackage], stories_source: Path) -> None:
    manifest = stories("Q8_0").manifest
    d = manifest.dimensions
    assert (d.family, d.layers, d.hidden, d.ffn, d.heads, d.kv_heads, d.head_dim) == ("llama", 5, 64, 172, 8, 4, 8)
    assert (d.vocabulary, d.context, d.rope_theta, d.tied_embeddings) == (512, 512, 10000.0, True)
    assert d.rms_eps == pytest.approx(1e-5)
    assert manifest.quantisation.source_sha256 == file_sha256(stories_source)
    assert (manifest.tokenizer.bos, manifest.tokenizer.eos, manifest.tokenizer.add_bos) == (1, 2, True)
    assert manifest.licence.spdx == "MIT"
    assert manifest.openness.weights_freedom is WeightsFreedom.FREE
    assert manifest.openness.mof_class is MofClass.UNKNOWN
    assert manifest.openness.component(Component.DATASETS).state == "unknown"
    assert manifest.lora_shapes()["layers.4.down_proj.lora_a"] == ("r", 172)
    assert manifest.lora_shapes()["layers.0.k_proj.lora_b"] == (32, "r")
    assert len(manifest.lora_shapes()) == 5 * 7 * 2


@pytest.mark.parametrize("scheme", ["Q8_0", "Q4_0", "F16"])
def test_a_package_can_be_built_from_the_gguf_of_a_package(
    stories: Callable[[str], ModelPackage], tmp_path: Path, scheme: str
) -> None:
    source = stories(scheme)
    again = build_package(source.path("gguf"), tmp_path / "again", quantisation=scheme)
    assert again.path("weights").read_bytes() == source.path("weights").read_bytes()
    with GgufFile.open(source.path("gguf")) as first, GgufFile.open(again.path("gguf")) as second:
        for name in first.tensors:
            np.testing.assert_array_equal(first.tensor_bytes(name), second.tensor_bytes(name))


def test_a_quantised_source_is_not_quantised_again(stories: Callable[[str], ModelPackage], tmp_path: Path) -> None:
    with pytest.raises(IncompatibleError, match=r"is Q4_0, the package wants Q8_0.*quantisation=Q4_0"):
        build_package(stories("Q4_0").path("gguf"), tmp_path / "package", quantisation="Q8_0")
    assert list(tmp_path.iterdir()) == []


def test_the_source_is_not_touched_and_no_half_package_is_left(stories_source: Path, tmp_path: Path) -> None:
    before = file_sha256(stories_source)
    damaged = tmp_path / "damaged.gguf"
    damaged.write_bytes(stories_source.read_bytes()[:-1000])
    with pytest.raises(MalformedError, match=r"damaged\.gguf"):
        build_package(damaged, tmp_path / "package")
    assert [path.name for path in tmp_path.iterdir()] == ["damaged.gguf"]
    assert file_sha256(stories_source) == before


def test_a_taken_destination_is_left_alone(stories_source: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/notes.txt").write_text("keep")
    with pytest.raises(UsageError, match="is there already"):
        build_package(stories_source, tmp_path / "mine")
    assert (tmp_path / "mine/notes.txt").read_text() == "keep"
    (tmp_path / "empty").mkdir()
    assert build_package(stories_source, tmp_path / "empty").path("gguf").exists()


def test_arguments_that_cannot_work_are_refused(stories_source: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="Q8_0, Q4_0, F16"):
        build_package(stories_source, tmp_path / "package", quantisation="Q5_K")
    with pytest.raises(UsageError, match="lora_targets"):
        build_package(stories_source, tmp_path / "package", lora_targets=("q_proj", "lm_head"))
    with pytest.raises(UsageError, match="lora_targets"):
        build_package(stories_source, tmp_path / "package", lora_targets=())


def test_licence_and_targets_are_the_callers_to_state(stories_source: Path, tmp_path: Path) -> None:
    licence = Licence("LicenseRef-Test", ("Name the author.",), ("research",))
    package = build_package(stories_source, tmp_path / "package", licence=licence, lora_targets=("v_proj", "q_proj"))
    assert package.manifest.licence == licence
    assert package.manifest.lora_targets == ("q_proj", "v_proj")
    assert package.manifest.openness.weights_freedom is WeightsFreedom.RESTRICTED


def test_progress_is_told_in_words(stories_source: Path, tmp_path: Path) -> None:
    told: list[str] = []
    build_package(stories_source, tmp_path / "package", progress=told.append)
    assert told[0] == "reading stories260K-f32.gguf"
    assert "writing train-recompute.onnx" in told


REFUSED = {
    "family": ({"general.architecture": gguf_writer.entry("general.architecture", "gptj")}, "architecture 'gptj'"),
    "scaling": (
        {"llama.rope.scaling.type": gguf_writer.entry("llama.rope.scaling.type", "yarn")},
        "rotary scaling 'yarn'",
    ),
    "heads": ({"llama.attention.head_count": gguf_writer.entry("llama.attention.head_count", 0)}, "0 attention heads"),
    "kv heads": (
        {"llama.attention.head_count_kv": gguf_writer.entry("llama.attention.head_count_kv", 3)},
        "no multiple of 3",
    ),
    "layers": ({"llama.block_count": gguf_writer.entry("llama.block_count", 6)}, r"blk\.5\..* is missing"),
    "too many layers": ({"llama.block_count": gguf_writer.entry("llama.block_count", 1 << 31)}, "layers is 2147483648"),
    "fewer layers": ({"llama.block_count": gguf_writer.entry("llama.block_count", 4)}, "no place for: blk.N"),
    "width": (
        {"llama.feed_forward_length": gguf_writer.entry("llama.feed_forward_length", 176)},
        r"shape \[172, 64\], the metadata ask for \[176, 64\]",
    ),
    "tokenizer": ({"tokenizer.ggml.model": gguf_writer.entry("tokenizer.ggml.model", "bert")}, "tokenizer 'bert'"),
    "bos": ({"tokenizer.ggml.bos_token_id": gguf_writer.entry("tokenizer.ggml.bos_token_id", 512)}, "outside the voc"),
    "few tokens": (
        {"tokenizer.ggml.tokens": gguf_writer.array_entry("tokenizer.ggml.tokens", ValueType.STRING, ["a"])},
        "1 tokens for an embedding of 512",
    ),
    "equal tokens": (
        {"tokenizer.ggml.tokens": gguf_writer.array_entry("tokenizer.ggml.tokens", ValueType.STRING, ["a"] * 512)},
        "holds a token twice",
    ),
    "few scores": (
        {"tokenizer.ggml.scores": gguf_writer.array_entry("tokenizer.ggml.scores", ValueType.FLOAT32, [0.0])},
        "1 scores for 512",
    ),
    "score that is no number": (
        {
            "tokenizer.ggml.scores": gguf_writer.array_entry(
                "tokenizer.ggml.scores", ValueType.FLOAT32, [float("nan")] * 512
            )
        },
        "a score that is infinite",
    ),
    "types": (
        {"tokenizer.ggml.token_type": gguf_writer.array_entry("tokenizer.ggml.token_type", ValueType.INT32, [9] * 512)},
        "known type for each token",
    ),
}


@pytest.mark.parametrize("case", list(REFUSED))
def test_a_source_that_cannot_be_expressed_is_refused(stories_source: Path, tmp_path: Path, case: str) -> None:
    replace, message = REFUSED[case]
    source = write_gguf(tmp_path / "odd.gguf", stories_source, replace=replace)
    with pytest.raises(NightshiftError, match=message):
        build_package(source, tmp_path / "package")
    assert not (tmp_path / "package").exists()


def test_weights_that_are_no_numbers_are_refused(stories_source: Path, tmp_path: Path) -> None:
    def poison(name: str, data: np.ndarray) -> np.ndarray:
        if name == "blk.1.attn_v.weight":
            data.view(np.float32)[5] = np.nan
        return data

    source = write_gguf(tmp_path / "odd.gguf", stories_source, tensors=poison)
    with pytest.raises(MalformedError, match=r"blk\.1\.attn_v\.weight holds infinite or undefined"):
        build_package(source, tmp_path / "package")


def test_a_missing_tensor_is_named(stories_source: Path, tmp_path: Path) -> None:
    source = write_gguf(
        tmp_path / "odd.gguf",
        stories_source,
        tensors=lambda name, data: None if name == "blk.2.ffn_norm.weight" else data,
    )
    with pytest.raises(MalformedError, match=r"blk\.2\.ffn_norm\.weight is missing"):
        build_package(source, tmp_path / "package")


def test_a_sliding_window_shortens_the_context(stories_source: Path, tmp_path: Path) -> None:
    window = {"llama.attention.sliding_window": gguf_writer.entry("llama.attention.sliding_window", 128)}
    package = build_package(write_gguf(tmp_path / "w.gguf", stories_source, replace=window), tmp_path / "package")
    assert package.manifest.dimensions.context == 128


def test_chat_template_and_a_licence_of_its_own_travel(stories_source: Path, tmp_path: Path) -> None:
    replace = {
        "tokenizer.chat_template": gguf_writer.entry("tokenizer.chat_template", "{{ messages }}"),
        "general.license": gguf_writer.entry("general.license", "llama3"),
    }
    source = write_gguf(tmp_path / "t.gguf", stories_source, replace=replace)
    manifest = build_package(source, tmp_path / "package").manifest
    assert manifest.chat_template == "{{ messages }}"
    assert manifest.licence.spdx == "LicenseRef-llama3"
    assert manifest.openness.weights_freedom is WeightsFreedom.RESTRICTED


def test_random_models_are_reproducible(tmp_path: Path) -> None:
    for name in "ab":
        write_random_model(tmp_path / name, SMALL, seed=4)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    write_random_model(tmp_path / "c", dataclasses.replace(SMALL, family="qwen2"), seed=4, matrix_type=TensorType.F32)
    assert build_package(tmp_path / "c", tmp_path / "package").manifest.dimensions.family == "qwen2"
    with pytest.raises(ValueError, match="at least 354"):
        sentencepiece_entries(300)


def test_the_end_token_of_an_endless_random_model_is_all_zero_and_nothing_else_is(tmp_path: Path) -> None:
    write_random_model(tmp_path / "plain", SMALL, seed=4)
    write_random_model(tmp_path / "endless", SMALL, seed=4, endless=True)
    with GgufFile.open(tmp_path / "plain") as plain, GgufFile.open(tmp_path / "endless") as endless:
        end_token = endless.integer("tokenizer.ggml.eos_token_id")
        shape = (SMALL.vocabulary, SMALL.hidden)
        for name in plain.tensors:
            before, after = plain.tensor_bytes(name).copy(), endless.tensor_bytes(name).copy()
            if name == "token_embd.weight":
                assert not after.view(np.float16).reshape(shape)[end_token].any()
                before.view(np.float16).reshape(shape)[end_token] = 0
            assert (before == after).all(), name
    untied = dataclasses.replace(SMALL, tied_embeddings=False)
    with pytest.raises(ValueError, match="tied embeddings"):
        write_random_model(tmp_path / "untied", untied, seed=4, endless=True)
