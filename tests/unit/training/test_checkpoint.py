from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest

from edge_client.training import checkpoint
from edge_client.training.checkpoint import Checkpoint

RUN = bytes(range(32))


def state(length: int = 5) -> Checkpoint:
    values = np.random.default_rng(0).normal(size=(3, length)).astype(np.float32)
    return Checkpoint(values[0], values[1], values[2], np.array([2.5, 1.25]), tokens=77)


def test_what_is_saved_is_loaded_to_the_bit(tmp_path: Path) -> None:
    checkpoint.save(tmp_path, RUN, state())
    loaded = checkpoint.load(tmp_path, RUN, 5)
    assert loaded is not None
    for name in ("parameters", "mean", "square", "losses"):
        np.testing.assert_array_equal(getattr(loaded, name), getattr(state(), name))
    assert loaded.tokens == 77


def test_only_the_owner_reads_it_and_nothing_else_is_left(tmp_path: Path) -> None:
    checkpoint.save(tmp_path, RUN, state())
    checkpoint.save(tmp_path, RUN, state())
    (path,) = tmp_path.iterdir()
    assert path.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("position", [0, 31, 40, 70, 130, -1])
def test_a_damaged_file_is_ignored(tmp_path: Path, position: int) -> None:
    checkpoint.save(tmp_path, RUN, state())
    path = tmp_path / checkpoint.FILE_NAME
    data = bytearray(path.read_bytes())
    data[position] ^= 1
    path.write_bytes(data)
    assert checkpoint.load(tmp_path, RUN, 5) is None


@pytest.mark.parametrize("size", [0, 10, 64, 100, 130])
def test_a_torn_file_is_ignored(tmp_path: Path, size: int) -> None:
    checkpoint.save(tmp_path, RUN, state())
    path = tmp_path / checkpoint.FILE_NAME
    path.write_bytes(path.read_bytes()[:size])
    assert checkpoint.load(tmp_path, RUN, 5) is None


def test_the_checkpoint_of_another_run_is_ignored(tmp_path: Path) -> None:
    checkpoint.save(tmp_path, RUN, state())
    assert checkpoint.load(tmp_path, bytes(32), 5) is None
    assert checkpoint.load(tmp_path, RUN, 6) is None
    assert checkpoint.load(tmp_path / "absent", RUN, 5) is None


def test_bytes_with_a_right_hash_that_are_no_checkpoint_are_ignored(tmp_path: Path) -> None:
    for body in (b"", b"text", bytes(8 + 60 + 4)):
        sealed = RUN + body
        (tmp_path / checkpoint.FILE_NAME).write_bytes(hashlib.sha256(sealed).digest() + sealed)
        assert checkpoint.load(tmp_path, RUN, 5) is None
