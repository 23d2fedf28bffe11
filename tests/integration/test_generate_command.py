"""`edge-client generate` as a real process: which runtime answers, what comes out, and what is missing."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from nightshift.protocol.errors import ExitCode
from tests.support.local_api import adopt, command, environment, put_package
from tests.support.slow_model import build_slow_model
from tests.support.stories import build_stories

SETTINGS = {"EDGE_CLIENT_INFERENCE_THREADS": "1"}
HIDE = """
from importlib.machinery import PathFinder
find = PathFinder.find_spec
def find_spec(name, path=None, target=None):
    return None if name.partition(".")[0] in {hidden!r} else find(name, path, target)
PathFinder.find_spec = find_spec
"""


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("device")
    package = put_package(directory, build_stories(directory / "built"))
    adopt(directory, package, "tale/1", seed=1)
    return directory


def generate(
    home: Path, *arguments: str, without: set[str] | None = None, tmp_path: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """Runs the command, in a Python that cannot find some modules."""
    settings = dict(SETTINGS)
    if without is not None:
        assert tmp_path is not None
        (tmp_path / "sitecustomize.py").write_text(HIDE.format(hidden=without))
        settings["PYTHONPATH"] = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    return subprocess.run(
        command(home, "generate", "Once upon a time", "--max-tokens", "12", *arguments),
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        env=environment(settings),
    )


@pytest.mark.parametrize("engine", ["onnx", pytest.param("llama", marks=pytest.mark.llama)])
def test_the_answer_comes_out_as_text_and_as_json(home: Path, engine: str) -> None:
    plain = generate(home, "--engine", engine)
    assert plain.returncode == 0, plain.stderr
    value = json.loads(generate(home, "--engine", engine, "--json").stdout)
    assert plain.stdout == value["text"] + "\n"
    assert (value["engine"], value["adapter"]) == (engine, "tale/1")
    assert 0 < value["tokens"] <= 12
    assert value["finish_reason"] == ("length" if value["tokens"] == 12 else "stop")
    base = json.loads(generate(home, "--engine", engine, "--json", "--base").stdout)
    assert base["adapter"] is None
    assert base["text"] != value["text"]


@pytest.mark.llama
def test_auto_takes_llama_and_without_it_the_other_which_it_says(home: Path, tmp_path: Path) -> None:
    assert json.loads(generate(home, "--json").stdout)["engine"] == "llama"
    fallen_back = generate(home, "--json", without={"llama_cpp"}, tmp_path=tmp_path)
    assert json.loads(fallen_back.stdout)["engine"] == "onnx"
    assert "note: llama.cpp is not installed" in fallen_back.stderr


@pytest.mark.llama
def test_without_onnxruntime_llama_answers(home: Path, tmp_path: Path) -> None:
    done = generate(home, "--json", without={"onnxruntime"}, tmp_path=tmp_path)
    assert json.loads(done.stdout)["engine"] == "llama", done.stderr


def test_without_any_runtime_it_says_what_to_install(home: Path, tmp_path: Path) -> None:
    done = generate(home, without={"llama_cpp", "onnxruntime"}, tmp_path=tmp_path)
    assert done.returncode == ExitCode.USAGE
    assert done.stdout == ""
    for word in ("no inference engine is installed", "nightshift[llama]", "pip install onnxruntime"):
        assert word in done.stderr
    assert "Traceback" not in done.stderr


def test_the_one_that_was_asked_for_and_is_missing_is_named_alone(home: Path, tmp_path: Path) -> None:
    done = generate(home, "--engine", "llama", without={"llama_cpp"}, tmp_path=tmp_path)
    assert done.returncode == ExitCode.USAGE
    assert "nightshift[llama]" in done.stderr
    assert "pip install onnxruntime" not in done.stderr


def test_ctrl_c_ends_the_answer_and_keeps_what_was_written(tmp_path: Path) -> None:
    put_package(tmp_path, build_slow_model(tmp_path))
    (tmp_path / "config.toml").write_text("[inference]\ncontext_tokens = 8192\n")
    arguments = command(tmp_path, "generate", "x", "--engine", "onnx", "--max-tokens", "8000", "--temperature", "1")
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, env=environment(SETTINGS)) as process:
        assert process.stdout is not None
        os.read(process.stdout.fileno(), 1)
        time.sleep(0.2)
        process.send_signal(signal.SIGINT)
        rest, _ = process.communicate(timeout=20)
    assert process.returncode == 0
    assert rest.endswith(b"\n")
