"""The clock that a test can move for every process at once."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from nightshift.host.clock import ENVIRONMENT_VARIABLE, now, now_unix_s

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def offset_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "offset"
    monkeypatch.setenv(ENVIRONMENT_VARIABLE, str(path))
    return path


def test_the_real_time_where_no_file_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(ENVIRONMENT_VARIABLE, raising=False)
    assert abs(now() - time.time()) < 5
    assert isinstance(now_unix_s(), int)


@pytest.mark.parametrize("offset_s", [0.0, 3600.0, -86_400.0, 14 * 86_400.5])
def test_the_file_moves_the_time(offset_file: Path, offset_s: float) -> None:
    offset_file.write_text(f"{offset_s}\n")
    assert abs(now() - time.time() - offset_s) < 5
    assert abs(now_unix_s() - time.time() - offset_s) < 6


def test_the_file_is_read_each_time(offset_file: Path) -> None:
    offset_file.write_text("0")
    before = now_unix_s()
    offset_file.write_text("1000")
    assert 1000 <= now_unix_s() - before < 1010
    offset_file.unlink()
    assert now_unix_s() - before < 10


@pytest.mark.parametrize("content", [b"", b"soon", b"nan", b"inf", b"-inf", b"1e999", b"\xff\xfe"])
def test_a_file_that_says_nothing_moves_nothing(offset_file: Path, content: bytes) -> None:
    offset_file.write_bytes(content)
    assert abs(now_unix_s() - time.time()) < 5


def test_another_process_sees_the_same_time(offset_file: Path) -> None:
    offset_file.write_text("1000000")
    code = "from nightshift.host.clock import now_unix_s; print(now_unix_s())"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=dict(os.environ), capture_output=True, text=True, check=True
    )
    assert abs(int(done.stdout) - now_unix_s()) < 20
