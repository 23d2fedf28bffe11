"""`coordinator model add`: what an operator may name, and what is recorded of it."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import huggingface_hub.constants
import huggingface_hub.file_download
import pytest

from coordinator.home import Home
from nightshift.packages.gguf_types import TensorType
from nightshift.packages.random_model import SMALL, write_random_model
from tests.support.hugging_face import write_folder
from tests.support.model_hub import Repository, model_hub
from tests.support.operator_commands import Operate
from tests.support.stories import STORIES


def test_a_hugging_face_folder_is_added(operate: Operate, home: Home, tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "tiny-0.5B")
    (folder / "README.md").write_text("---\nlicense: mit\n---\n")
    added = operate("model", "add", str(folder), "--json")
    assert added.code == 0, added.err
    assert {key: added.json[key] for key in ("alias", "quantisation", "uses", "licence", "source")} == {
        "alias": "tiny-0.5B",
        "quantisation": "Q8_0",
        "uses": "training",
        "licence": "MIT",
        "source": None,
    }
    assert list(home.directory.glob("package-*")) == []


def test_a_hub_name_is_added_with_its_commit(operate: Operate, home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    with model_hub({"tiny/stories": Repository({"s-f32.gguf": STORIES.read_bytes()}, licence="mit")}) as hub:
        monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", hub.address)
        template = hub.address + "/{repo_id}/resolve/{revision}/{filename}"
        for module in (huggingface_hub.constants, huggingface_hub.file_download):
            monkeypatch.setattr(module, "HUGGINGFACE_CO_URL_TEMPLATE", template, raising=False)
        added = operate("model", "add", "tiny/stories@v1.0:s-f32.gguf", "--quantisation", "Q4_0", "--json")
        assert added.code == 0, added.err
        commit = hub.repositories["tiny/stories"].commit
        assert added.json["source"] == f"tiny/stories@{commit}:s-f32.gguf"
        assert (added.json["alias"], added.json["licence"], added.json["quantisation"]) == ("stories", "MIT", "Q4_0")
        assert "is private; check the spelling" in operate("model", "add", "tiny/other").err
    assert [path for path in (home.directory / "hub").rglob("*") if path.is_file()] == []


TERMS = """
[licence]
spdx = "Apache-2.0"
obligations = ["Say thanks."]

[components]
architecture = "Apache-2.0"
technical_report = "CC-BY-4.0"
evaluation_results = "CC-BY-4.0"
model_card = "CC-BY-4.0"
data_card = "CC-BY-4.0"
datasets = "closed"
"""


def test_a_publisher_states_what_is_open(operate: Operate, tmp_path: Path) -> None:
    (tmp_path / "terms.toml").write_text(TERMS)
    added = operate("model", "add", str(STORIES), "--openness", str(tmp_path / "terms.toml"), "--json").json
    assert (added["licence"], added["openness_class"], added["weights_licence"]) == ("Apache-2.0", "III", "free")
    (tmp_path / "terms.toml").write_text('[components]\nsoul = "MIT"\n')
    refused = operate("model", "add", str(STORIES), "--openness", str(tmp_path / "terms.toml"))
    assert refused.code == 2
    assert "soul" in refused.err


@pytest.mark.llama
def test_k_quants_are_for_inference_and_no_task_can_be_made_of_them(operate: Operate, tmp_path: Path) -> None:
    import llama_cpp

    shape = dataclasses.replace(SMALL, hidden=256, ffn=512, heads=4, kv_heads=2, head_dim=64)
    write_random_model(tmp_path / "r.gguf", shape, seed=1, matrix_type=TensorType.F32)
    settings = llama_cpp.llama_model_quantize_default_params()
    settings.ftype = 17  # Q5_K_M
    quantised = tmp_path / "small.gguf"
    assert llama_cpp.llama_model_quantize(str(tmp_path / "r.gguf").encode(), str(quantised).encode(), settings) == 0
    added = operate("model", "add", str(quantised), "--json")
    assert (added.json["quantisation"], added.json["uses"]) == ("Q5_K_M", "llama.cpp")
    assert "training needs Q8_0 or Q4_0" in added.err
    (tmp_path / "task.toml").write_text('name = "a"\nmodel = "small"\n')
    refused = operate("task", "create", "-f", str(tmp_path / "task.toml"))
    assert refused.code == 15
    assert "cannot be trained" in refused.err
