"""A package is what its manifest says, or it is refused, and the message names the file."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from nightshift.packages.package import ModelPackage
from nightshift.packages.package_folder import FILE_NAMES
from nightshift.packages.session import open_session, session_options
from nightshift.protocol.errors import HashMismatchError, MalformedError, NotFoundError, UsageError
from nightshift.protocol.manifest import PackageId


@pytest.fixture
def copy(stories: Callable[[str], ModelPackage], tmp_path: Path) -> Path:
    return Path(shutil.copytree(stories("Q8_0").directory, tmp_path / "copy"))


def test_an_intact_package_opens(stories: Callable[[str], ModelPackage], copy: Path) -> None:
    package = ModelPackage.open(copy)
    assert package.package_id == stories("Q8_0").package_id
    assert package.manifest == stories("Q8_0").manifest
    assert package.path("train_recompute") == copy / "train-recompute.onnx"
    assert ModelPackage.open(copy, expected=package.package_id) == package


@pytest.mark.parametrize("name", list(FILE_NAMES.values()))
def test_one_flipped_bit_in_any_file_is_found(copy: Path, name: str) -> None:
    data = bytearray((copy / name).read_bytes())
    data[len(data) // 2] ^= 1
    (copy / name).write_bytes(data)
    with pytest.raises(HashMismatchError, match=rf"{name}: SHA-256"):
        ModelPackage.open(copy)
    ModelPackage.open(copy, verify=False)  # sizes alone cannot tell


@pytest.mark.parametrize("name", list(FILE_NAMES.values()))
def test_a_short_or_missing_file_is_found_without_hashing(copy: Path, name: str) -> None:
    (copy / name).write_bytes((copy / name).read_bytes()[:-1])
    with pytest.raises(HashMismatchError, match=rf"{name}: \d+ bytes"):
        ModelPackage.open(copy, verify=False)
    (copy / name).unlink()
    with pytest.raises(NotFoundError, match=rf"{name}: missing"):
        ModelPackage.open(copy, verify=False)


def test_a_link_or_folder_in_place_of_a_file_is_refused(copy: Path, tmp_path: Path) -> None:
    shutil.move(copy / "model.gguf", tmp_path / "elsewhere.gguf")
    os.symlink(tmp_path / "elsewhere.gguf", copy / "model.gguf")
    with pytest.raises(HashMismatchError, match=r"model\.gguf: not a regular file"):
        ModelPackage.open(copy)
    (copy / "model.gguf").unlink()
    (copy / "model.gguf").mkdir()
    with pytest.raises(HashMismatchError, match=r"model\.gguf: not a regular file"):
        ModelPackage.open(copy)


def test_another_package_than_the_expected_one_is_refused(copy: Path) -> None:
    with pytest.raises(HashMismatchError, match="expected 0000"):
        ModelPackage.open(copy, expected=PackageId(bytes(32)))


def test_a_folder_without_manifest_or_with_a_bad_one_is_refused(copy: Path, tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="build or pull"):
        ModelPackage.open(tmp_path / "nothing")
    manifest = copy / "manifest.json"
    document = json.loads(manifest.read_bytes())
    document["files"][0]["name"] = "../../etc/passwd"
    manifest.write_text(json.dumps(document, sort_keys=True, separators=(",", ":")))
    with pytest.raises(MalformedError, match=r"manifest\.json: .*without any folder"):
        ModelPackage.open(copy)
    manifest.write_bytes(b" " * (2 << 20))
    with pytest.raises(MalformedError, match="at most"):
        ModelPackage.open(copy)


def test_opening_needs_neither_onnx_nor_gguf_nor_torch(copy: Path) -> None:
    program = (
        "import sys; from pathlib import Path\n"
        "from nightshift.packages.package import ModelPackage\n"
        "from nightshift.packages.session import open_session\n"
        "package = ModelPackage.open(Path(sys.argv[1]))\n"
        "light = {'onnx', 'gguf', 'torch', 'onnxruntime', 'numpy'} & set(sys.modules)\n"
        "assert not light, light\n"
        "open_session(package, 'evaluate', threads=1)\n"
        "heavy = {'onnx', 'gguf', 'torch'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    subprocess.run([sys.executable, "-c", program, str(copy)], check=True, timeout=60)


def test_only_graphs_open_as_sessions(stories: Callable[[str], ModelPackage]) -> None:
    with pytest.raises(UsageError, match="weights is no graph"):
        open_session(stories("Q8_0"), "weights")


def test_the_options_that_keep_sessions_small_are_set() -> None:
    options = session_options(threads=2)
    assert not options.enable_mem_reuse
    assert not options.enable_cpu_mem_arena
    assert not options.enable_mem_pattern
    assert options.intra_op_num_threads == 2
    assert options.get_session_config_entry("session.intra_op.allow_spinning") == "0"
