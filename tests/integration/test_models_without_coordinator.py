"""`edge-client model` as a person uses it who has no coordinator: files, hub names, the cache's limits."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from nightshift.packages.gguf_types import TensorType
from nightshift.packages.package import file_sha256
from nightshift.packages.random_model import SMALL, write_random_model
from tests.support.local_api import adopt, command, environment
from tests.support.model_hub import ModelHub, Repository, model_hub
from tests.support.stories import STORIES, build_stories, commands

NAME = "tiny/stories"
KILLED = {"NIGHTSHIFT_FAILPOINT": "hub.file.partial"}


class Device:
    """A home directory and the program on it."""

    def __init__(self, home: Path) -> None:
        self.home = home

    def __call__(self, *arguments: str, code: int = 0, **settings: str) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            command(self.home, *arguments),
            capture_output=True,
            text=True,
            env=environment({"EDGE_CLIENT_DEVICE_PROFILE": "generic-x86", **settings}),
            timeout=120,
            check=False,
        )
        assert done.returncode == code, f"{arguments}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        assert "Traceback" not in done.stderr
        return done

    def json(self, *arguments: str, **settings: str) -> Any:
        return json.loads(self(*arguments, "--json", **settings).stdout)

    def files(self) -> list[Path]:
        return [path for path in (self.home / "cache").rglob("*") if path.is_file()]


@pytest.fixture
def device(tmp_path: Path) -> Device:
    return Device(tmp_path / "home")


@pytest.fixture(scope="module")
def wide_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A float model of 30 MB: several of the pieces in which the hub's client takes a file."""
    path = tmp_path_factory.mktemp("wide") / "wide-f32.gguf"
    shape = dataclasses.replace(SMALL, layers=8, hidden=256, ffn=768, heads=4, kv_heads=2, head_dim=64)
    write_random_model(path, shape, seed=3, matrix_type=TensorType.F32)
    assert path.stat().st_size > 25_000_000
    return path


@pytest.fixture
def hub(wide_model: Path) -> Iterator[ModelHub]:
    with model_hub(
        {
            NAME: Repository({"README.md": b"# Stories", "stories-f32.gguf": STORIES.read_bytes()}, licence="mit"),
            "tiny/wide": Repository({"wide-f32.gguf": wide_model.read_bytes()}),
        }
    ) as served:
        yield served


def test_a_file_becomes_a_model_that_answers_and_learns(device: Device, tmp_path: Path) -> None:
    imported = device.json("model", "import", str(STORIES))
    assert (imported["uses"], imported["quantisation"]) == ("training", "Q4_0")  # the profile's for a float file
    (listed,) = device.json("model", "list")
    assert (listed["id"], listed["in_use"]) == (imported["id"], False)
    assert "Keep the copyright notice" in device("model", "show", "stories260K").stdout
    device("model", "verify")
    for engine in ("onnx", "llama"):
        assert device("generate", "Once upon a time", "--engine", engine, "--max-tokens", "5").stdout.strip()
    source = commands(tmp_path / "text.jsonl", rows=40)
    device("data", "add", str(source.path), "--format", "prompt")
    trained = device.json("train", "--local", "--steps", "2", "--model", "stories260K")
    assert trained["adapter"].startswith("personal/")
    assert (trained["steps"], len(trained["losses"])) == (2, 2)
    assert not (device.home / "cache/import").exists()


def test_importing_again_changes_nothing(device: Device) -> None:
    first = device.json("model", "import", str(STORIES), "--quantisation", "Q8_0")
    before = {path: path.stat().st_ino for path in device.files()}
    assert device.json("model", "import", str(STORIES), "--quantisation", "Q8_0") == first
    assert {path: path.stat().st_ino for path in device.files()} == before


def test_a_package_folder_moves_from_machine_to_machine(device: Device, tmp_path: Path) -> None:
    package = build_stories(tmp_path / "package")
    (package.directory / "notes.txt").write_text("not part of it")
    imported = device.json("model", "import", str(package.directory))
    assert imported["id"] == package.package_id.hex()
    assert not (Path(imported["directory"]) / "notes.txt").exists()
    assert (package.directory / "model.gguf").is_file()  # copied, not moved


@pytest.mark.parametrize("how", ["link out", "changed", "parent folder", "missing"])
def test_a_package_folder_that_lies_is_refused(device: Device, tmp_path: Path, how: str) -> None:
    folder = build_stories(tmp_path / "package").directory
    weights = folder / "weights.bin"
    secret = tmp_path / "secret"
    shutil.copy(weights, secret)
    if how == "link out":
        weights.unlink()
        weights.symlink_to(secret)
    elif how == "changed":
        weights.write_bytes(weights.read_bytes()[:-1] + b"\x00\x01"[-1:])
    elif how == "missing":
        weights.unlink()
    else:
        manifest = folder / "manifest.json"
        manifest.write_bytes(manifest.read_bytes().replace(b'"weights.bin"', b'"../secret"'))
    said = device("model", "import", str(folder), code=2 if how == "missing" else 14).stderr
    assert {
        "link out": "regular file",
        "changed": "SHA-256",
        "missing": "missing",
        "parent folder": "without any folder",
    }[how] in said
    assert device.json("model", "list") == []


def test_k_quants_answer_through_llama_cpp_and_say_what_training_needs(device: Device, tmp_path: Path) -> None:
    llama_cpp = pytest.importorskip("llama_cpp", reason="needs the llama extra (llama-cpp-python)")
    shape = dataclasses.replace(SMALL, hidden=256, ffn=512, heads=4, kv_heads=2, head_dim=64)
    write_random_model(tmp_path / "r.gguf", shape, seed=1, matrix_type=TensorType.F32)
    settings = llama_cpp.llama_model_quantize_default_params()
    settings.ftype = 15  # Q4_K_M
    quantised = tmp_path / "r-q4_k_m.gguf"
    assert llama_cpp.llama_model_quantize(str(tmp_path / "r.gguf").encode(), str(quantised).encode(), settings) == 0
    done = device("model", "import", str(quantised))
    assert "training needs Q8_0 or Q4_0" in done.stdout + done.stderr
    (model,) = device.json("model", "list")
    assert (model["quantisation"], model["uses"]) == ("Q4_K_M", "llama.cpp")
    stored = Path(model["path"])
    assert (stored / "model.gguf").read_bytes() == quantised.read_bytes()
    assert sorted(path.name for path in stored.iterdir()) == ["manifest.json", "model.gguf", "tokenizer.json"]
    device("generate", "hello", "--max-tokens", "3", "--engine", "llama")
    source = commands(tmp_path / "text.jsonl", rows=40)
    device("data", "add", str(source.path), "--format", "prompt")
    assert "training needs Q8_0 or Q4_0" in device("train", "--local", "--steps", "2", code=15).stderr
    said = device("model", "import", str(quantised), "--quantisation", "Q4_0", code=15).stderr
    assert "cannot become a Q4_0 package: tensor" in said


@pytest.mark.parametrize(
    ("make", "code", "words"),
    [
        (lambda path: path.write_bytes(STORIES.read_bytes()[:500_000]), 14, "truncated"),
        (lambda path: path.write_bytes(b"GGML" + bytes(100)), 14, "not a GGUF file"),
        (lambda path: path.write_bytes(b""), 14, "empty file"),
        (lambda path: path.mkdir(), 2, "config.json"),
        (lambda path: None, 2, "no such file"),
    ],
    ids=["truncated", "magic", "empty", "folder of nothing", "nothing"],
)
def test_what_is_no_model_is_refused_with_a_sentence(
    device: Device, tmp_path: Path, make: Callable[[Path], object], code: int, words: str
) -> None:
    make(tmp_path / "model.gguf")
    assert words in device("model", "import", str(tmp_path / "model.gguf"), code=code).stderr
    assert device.json("model", "list") == []


def test_the_owners_minimum_counts_for_imports_too(device: Device) -> None:
    said = device("model", "import", str(STORIES), code=4, EDGE_CLIENT_POLICY_MINIMUM_OPENNESS="III").stderr
    assert "openness class unknown is below the owner's minimum, class III" in said
    assert device.json("model", "list") == []


# From a hub.


def test_a_hub_name_gives_a_model_with_its_commit(device: Device, hub: ModelHub) -> None:
    done = device("model", "import", NAME, **hub.environment())
    commit = hub.repositories[NAME].commit
    assert f"at commit {commit[:12]}" in done.stderr
    shown = device.json("model", "show", NAME)
    assert shown["source"] == {"repository": NAME, "revision": commit, "file": "stories-f32.gguf"}
    assert shown["licence"] == "MIT"
    assert commit in device("model", "show", NAME).stdout
    assert [path for path in (device.home / "cache/hub").rglob("*") if path.is_file()] == []
    # `pull` understands the same name.
    assert device.json("model", "pull", f"{NAME}@v1.0", **hub.environment())["id"] == shown["id"]


def test_a_download_that_was_killed_goes_on_where_it_ended(device: Device, hub: ModelHub, wide_model: Path) -> None:
    killed = device(
        "model",
        "import",
        "tiny/wide",
        code=-signal.SIGKILL,
        NIGHTSHIFT_FAILPOINT="hub.file.partial",
        **hub.environment(),
    )
    assert killed.stdout == ""
    (partial,) = (device.home / "cache/hub").glob("*.partial")
    begun = partial.stat().st_size
    assert 0 < begun < wide_model.stat().st_size
    assert "unfinished" in device("model", "list").stdout
    imported = device.json("model", "import", "tiny/wide", **hub.environment())
    assert hub.ranges() == ["", f"bytes={begun}-"]
    shown = device.json("model", "show", imported["id"])
    assert shown["source"]["revision"] == hub.repositories["tiny/wide"].commit
    assert not partial.exists()
    manifest = json.loads((Path(imported["directory"]) / "manifest.json").read_bytes())
    assert manifest["quantisation"]["source_sha256"] == file_sha256(wide_model)


def test_what_was_interrupted_can_be_thrown_away(device: Device, hub: ModelHub) -> None:
    device(
        "model",
        "import",
        "tiny/wide",
        code=-signal.SIGKILL,
        NIGHTSHIFT_FAILPOINT="hub.file.partial",
        **hub.environment(),
    )
    assert device.json("model", "rm", "--unfinished")["freed_bytes"] > 1_000_000
    assert "unfinished" not in device("model", "list").stdout


def test_without_a_network_it_says_what_to_do(device: Device) -> None:
    said = device("model", "import", NAME, code=13, HF_ENDPOINT="http://127.0.0.1:9").stderr
    assert "fetch the file on another machine and import its path" in said
    said = device("model", "pull", NAME, code=13, HF_HUB_OFFLINE="1").stderr
    assert "HF_HUB_OFFLINE is set" in said


# The cache.


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Three models of which two fit into 7 MiB."""
    shape = dataclasses.replace(SMALL, layers=4, hidden=128, ffn=512, heads=4, kv_heads=2, head_dim=32)
    paths = []
    for seed in range(3):
        path = tmp_path_factory.mktemp("three") / f"model-{seed}.gguf"
        write_random_model(path, shape, seed=seed)
        paths.append(path)
    return paths


def imported_with_quota(device: Device, path: Path, code: int = 0) -> str:
    done = device(
        "model", "import", str(path), "--quantisation", "Q8_0", "--json", code=code, EDGE_CLIENT_CACHE_QUOTA_MB="7"
    )
    return str(json.loads(done.stdout)["id"]) if code == 0 else done.stderr


def test_the_least_recently_used_model_makes_room(device: Device, three: list[Path]) -> None:
    first, second = (imported_with_quota(device, path) for path in three[:2])
    device("generate", "x", "--model", first, "--max-tokens", "1", "--engine", "onnx")  # used after the second
    device("model", "verify", second)  # looking is not using
    third = imported_with_quota(device, three[2])
    assert {model["id"] for model in device.json("model", "list")} == {first, third}
    assert second not in {path.name for path in (device.home / "cache/packages").iterdir()}
    device("model", "verify")
    assert "unfinished" not in device("model", "list").stdout  # nothing of the second is left


def test_a_model_that_serves_now_stays(device: Device, three: list[Path]) -> None:
    first, _ = (imported_with_quota(device, path) for path in three[:2])
    serving = subprocess.Popen(
        command(device.home, "serve", "--model", first, "--port", "0", "--engine", "onnx", "--json"),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=environment({}),
    )
    try:
        assert serving.stdout is not None
        assert "url" in serving.stdout.readline()
        os.utime(device.home / "cache/in-use" / first, (1, 1))  # the oldest by far
        (held,) = [model for model in device.json("model", "list") if model["in_use"]]
        assert held["id"] == first
        assert "in use by a running command" in device("model", "rm", first, "--yes", code=11).stderr
        third = imported_with_quota(device, three[2])
        assert {model["id"] for model in device.json("model", "list")} == {first, third}
    finally:
        serving.kill()
        serving.communicate()
    assert device.json("model", "rm", first, "--yes")["removed"] == first  # the kernel dropped the lock


def test_a_model_that_an_adapter_in_use_builds_on_stays(device: Device, three: list[Path]) -> None:
    from nightshift.packages.package import ModelPackage

    first = imported_with_quota(device, three[0])
    adopt(device.home, ModelPackage.open(device.home / "cache/packages" / first), "tale/1", seed=1)
    second = imported_with_quota(device, three[1])
    os.utime(device.home / "cache/in-use" / first, (1, 1))
    third = imported_with_quota(device, three[2])
    listed = {model["id"]: model["needed"] for model in device.json("model", "list")}
    assert listed == {first: True, third: False}
    assert second not in listed


def test_a_model_larger_than_the_quota_costs_no_other(device: Device, three: list[Path], wide_model: Path) -> None:
    first = imported_with_quota(device, three[0])
    said = imported_with_quota(device, wide_model, code=16)
    assert "raise the quota or choose a smaller model" in said
    assert [model["id"] for model in device.json("model", "list")] == [first]


def test_a_model_is_removed_when_asked_and_confirmed(device: Device) -> None:
    model = device.json("model", "import", str(STORIES))["id"]
    device("model", "rm", model, code=130)  # no terminal: nobody said yes
    assert device("model", "rm", model, "--yes").stdout.startswith(f"removed {model[:16]}")
    assert device.json("model", "list") == []
    assert [path for path in device.files() if path.parent.name in ("files", model)] == []
    assert "no model package" in device("model", "rm", model, "--yes", code=2).stderr
    assert "name a model" in device("model", "rm", code=2).stderr


def test_two_imports_at_once_do_not_meet(device: Device) -> None:
    import fcntl

    (device.home / "cache").mkdir(parents=True)
    with (device.home / "cache/import.lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert "another run holds" in device("model", "import", str(STORIES), code=11).stderr


def test_memory_stays_bounded_whatever_a_header_claims(tmp_path: Path) -> None:
    """A file of 16 GiB of holes, full of claims, is refused in the memory that an honest small file takes."""
    import struct

    claims = {
        "texts": struct.pack("<IIQ", 9, 8, 1 << 31),
        "numbers": struct.pack("<IIQ", 9, 0, 15 << 30),
        "text": struct.pack("<IQ", 8, 14 << 30),
    }
    script = (
        "import resource, sys\n"
        "from pathlib import Path\n"
        "from nightshift.packages.gguf_file import GgufFile\n"
        "from nightshift.packages.recognition import recognise\n"
        "from nightshift.protocol.errors import NightshiftError\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "try:\n"
        "    with GgufFile.open(Path(sys.argv[1])) as file:\n"
        "        recognise(file); file.value(next(file.keys()))\n"
        "except NightshiftError as error:\n"
        "    print(error, file=sys.stderr)\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)\n"
    )
    for name, value in claims.items():
        path = tmp_path / f"{name}.gguf"
        with path.open("wb") as file:
            file.write(b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + struct.pack("<Q", 1) + b"k" + value)
            file.truncate(16 << 30)
        started = time.monotonic()
        done = subprocess.run(
            [sys.executable, "-c", script, str(path)], capture_output=True, text=True, timeout=60, check=True
        )
        path.unlink()
        assert "at most" in done.stderr
        assert int(done.stdout) < 32_768  # KiB
        assert time.monotonic() - started < 30
