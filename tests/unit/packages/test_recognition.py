"""What can be made of a GGUF file: the graphs' families, llama.cpp alone, or nothing, each with the reason."""

from __future__ import annotations

import dataclasses
import struct
from collections.abc import Callable
from pathlib import Path

import pytest

from nightshift.packages import llama_check
from nightshift.packages.gguf_file import GgufFile, TensorType
from nightshift.packages.gguf_writer import GgufWriter, TensorPlan, entry
from nightshift.packages.importing import Wishes, import_path
from nightshift.packages.package import ModelPackage
from nightshift.packages.random_model import SMALL, write_random_model
from nightshift.packages.recognition import Recognised, recognise
from nightshift.protocol.errors import IncompatibleError, MalformedError, UsageError
from nightshift.protocol.manifest import Scheme, Uses

WIDE = dataclasses.replace(SMALL, hidden=256, ffn=512, heads=4, kv_heads=2, head_dim=64)


def silent(_: str) -> None:
    """Say nothing."""


def recognised(path: Path) -> Recognised:
    with GgufFile.open(path) as file:
        return recognise(file)


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("wide") / "wide.gguf"
    write_random_model(path, WIDE, seed=2, matrix_type=TensorType.F32)
    return path


@pytest.fixture(scope="module")
def quantised(wide: Path) -> Callable[[int], Path]:
    """`llama_ftype` -> the model as llama.cpp quantises it."""
    llama_cpp = pytest.importorskip("llama_cpp", reason="needs llama-cpp-python (the llama extra)")

    def make(file_type: int) -> Path:
        path = wide.with_name(f"wide-{file_type}.gguf")
        if not path.exists():
            settings = llama_cpp.llama_model_quantize_default_params()
            settings.ftype = file_type
            assert llama_cpp.llama_model_quantize(str(wide).encode(), str(path).encode(), settings) == 0
        return path

    return make


def renamed_family(source: Path, destination: Path, family: str, **more: float) -> Path:
    """A copy that calls its architecture otherwise."""
    with GgufFile.open(source) as file:
        entries = [entry("general.architecture", family)]
        for key in file.keys():  # noqa: SIM118 - not a dict
            if key.startswith("llama."):
                value = file.value(key)
                assert isinstance(value, int | float)
                entries.append(entry(family + key.removeprefix("llama"), value))
            elif key != "general.architecture":
                entries.append(file.raw_entry(key))
        entries += [entry(f"{family}.{key}", value) for key, value in more.items()]
        plans = [TensorPlan(info.name, info.shape, info.type or TensorType.F32) for info in file.tensors.values()]
        with GgufWriter(destination, entries, plans) as writer:
            for plan in plans:
                writer.write(plan.name, file.tensor_bytes(plan.name))
    return destination


def test_float_files_can_have_any_scheme_and_quantised_ones_their_own(
    stories: Callable[[str], ModelPackage], stories_source: Path
) -> None:
    found = recognised(stories_source)
    assert (found.trains, found.schemes) == (True, (Scheme.Q8_0, Scheme.Q4_0, Scheme.F16))
    for scheme in (Scheme.Q8_0, Scheme.Q4_0):
        found = recognised(stories(scheme).path("gguf"))  # its odd matrices are float16, which changes nothing
        assert (found.trains, found.schemes) == (True, (scheme,))


@pytest.mark.llama
@pytest.mark.parametrize(
    ("file_type", "scheme", "words"),
    [
        (15, Scheme.Q4_K_M, "is Q6_K; training needs Q8_0 or Q4_0"),
        (18, Scheme.Q6_K, "is Q6_K"),
        (8, Scheme.Q5_0, "is Q"),
        (2, Scheme.MIXED, "token_embd.weight is Q6_K"),  # what calls itself Q4_0, made without --pure
    ],
)
def test_k_quants_and_mixed_files_are_for_inference_and_say_why(
    quantised: Callable[[int], Path], tmp_path: Path, file_type: int, scheme: Scheme, words: str
) -> None:
    found = recognised(quantised(file_type))
    assert (found.trains, found.scheme) == (False, scheme)
    assert words in found.obstacle
    said: list[str] = []
    package = import_path(quantised(file_type), tmp_path / "package", Wishes(), say=said.append)
    assert package.manifest.uses is Uses.LLAMA_CPP
    assert package.manifest.dimensions == dataclasses.replace(WIDE, rms_eps=package.manifest.dimensions.rms_eps)
    assert any(found.obstacle in line for line in said)
    assert package.path("gguf").read_bytes() == quantised(file_type).read_bytes()


@pytest.mark.llama
def test_an_architecture_that_llama_cpp_knows_is_for_inference(wide: Path, tmp_path: Path) -> None:
    source = renamed_family(wide, tmp_path / "granite.gguf", "granite", logit_scale=1.0)
    package = import_path(source, tmp_path / "package", Wishes(), say=silent)
    assert (package.manifest.uses, package.manifest.dimensions.family) == (Uses.LLAMA_CPP, "granite")
    assert package.manifest.dimensions.vocabulary == WIDE.vocabulary
    with pytest.raises(IncompatibleError, match="cannot become a Q8_0 package: architecture 'granite'"):
        import_path(source, tmp_path / "other", Wishes("Q8_0"), say=silent)


@pytest.mark.llama
def test_an_architecture_that_nobody_knows_is_refused(wide: Path, tmp_path: Path) -> None:
    source = renamed_family(wide, tmp_path / "new.gguf", "nightmare")
    with pytest.raises(IncompatibleError, match=r"llama\.cpp refuses this file.*nightmare"):
        import_path(source, tmp_path / "package", Wishes(), say=silent)
    assert not (tmp_path / "package").exists()


def test_without_llama_cpp_nobody_can_tell(wide: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = renamed_family(wide, tmp_path / "new.gguf", "nightmare")
    monkeypatch.setattr(llama_check, "is_installed", lambda: False)
    with pytest.raises(IncompatibleError, match=r"only llama\.cpp could run this file, and it is not installed"):
        import_path(source, tmp_path / "package", Wishes(), say=silent)


@pytest.mark.llama
def test_a_tokenizer_that_reads_otherwise_than_llama_cpps_is_refused(
    quantised: Callable[[int], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = llama_check.token_ids(quantised(15))
    monkeypatch.setattr(llama_check, "token_ids", lambda _: [*real[:-1], [*real[-1], 5]])
    with pytest.raises(IncompatibleError, match=r"gives other tokens than llama\.cpp"):
        import_path(quantised(15), tmp_path / "package", Wishes(), say=silent)


def test_what_was_asked_for_must_be_possible(stories: Callable[[str], ModelPackage], tmp_path: Path) -> None:
    with pytest.raises(IncompatibleError, match="a package of it can be Q4_0, not Q8_0"):
        import_path(stories("Q4_0").path("gguf"), tmp_path / "package", Wishes("Q8_0"), say=silent)


def test_without_onnx_it_says_what_to_install(
    stories_source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import importlib.util

    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "onnx" else found(name))
    with pytest.raises(UsageError, match=r"nightshift\[packaging\]"):
        import_path(stories_source, tmp_path / "package", Wishes(), say=silent)


@pytest.mark.parametrize("shape", [(1 << 37, 1 << 5), (1 << 21, 1 << 21), (1, 1 << 42)])
def test_a_tensor_of_huge_dimensions_is_refused_before_anything_is_read(tmp_path: Path, shape: tuple[int, int]) -> None:
    path = tmp_path / "bomb.gguf"
    header = b"GGUF" + struct.pack("<IQQ", 3, 1, 0)
    name = b"token_embd.weight"
    tensor = struct.pack("<Q", len(name)) + name + struct.pack("<IQQIQ", 2, shape[1], shape[0], 8, 0)
    path.write_bytes(header + tensor + bytes(256))
    with pytest.raises(MalformedError, match="truncated or damaged"):
        recognised(path)
