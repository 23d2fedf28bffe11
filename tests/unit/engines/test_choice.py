"""A package that is made for one runtime is never opened in the other."""

from __future__ import annotations

import dataclasses

import pytest

from edge_client.engines.choice import open_engine, runs_in
from edge_client.engines.engine import EngineKind
from edge_client.engines.errors import EngineUnavailableError
from nightshift.packages.package import ModelPackage
from nightshift.protocol.manifest import FileRole


def with_files(package: ModelPackage, *roles: FileRole) -> ModelPackage:
    files = tuple(file for file in package.manifest.files if file.role in roles)
    manifest = dataclasses.replace(package.manifest, files=files, lora_targets=())
    return dataclasses.replace(package, manifest=manifest)


def test_what_a_package_holds_decides(stories: ModelPackage) -> None:
    for_llama = with_files(stories, FileRole.GGUF, FileRole.TOKENIZER)
    for_onnx = with_files(stories, FileRole.WEIGHTS, FileRole.DECODE, FileRole.EVALUATE, FileRole.TOKENIZER)
    for package, expected in [(stories, {"llama", "onnx"}), (for_llama, {"llama"}), (for_onnx, {"onnx"})]:
        assert {kind.value for kind in EngineKind if runs_in(package, kind)} == expected


def test_the_runtime_it_is_not_made_for_is_refused_with_the_reason(stories: ModelPackage) -> None:
    package = with_files(stories, FileRole.GGUF, FileRole.TOKENIZER)
    with pytest.raises(EngineUnavailableError, match=r"not made for ONNX Runtime: .*llama\.cpp only"):
        open_engine(package, EngineKind.ONNX)


def test_without_its_only_runtime_the_other_is_not_recommended(
    stories: ModelPackage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edge_client.engines.choice.is_installed", lambda kind: kind is EngineKind.ONNX)
    with pytest.raises(EngineUnavailableError) as refused:
        open_engine(with_files(stories, FileRole.GGUF, FileRole.TOKENIZER))
    assert "nightshift[llama]" in str(refused.value)
    assert "pip install onnxruntime" not in str(refused.value)
