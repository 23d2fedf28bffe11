from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from edge_client.training.allocator import JEMALLOC_DIRECTORIES, allocator_environment

TRIMMED = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}


def test_jemalloc_is_preloaded_where_it_is_found(tmp_path: Path) -> None:
    library = tmp_path / "second" / "libjemalloc.so.2"
    library.parent.mkdir()
    library.touch()
    directories = [tmp_path / "first", tmp_path / "second"]
    given = {"HOME": "here"}
    found = allocator_environment(given, jemalloc=True, trim=True, directories=directories, page_size_bytes=4096)
    assert found["LD_PRELOAD"] == str(library)
    assert "narenas:1" in found["MALLOC_CONF"]
    assert found["HOME"] == "here"
    assert "MALLOC_TRIM_THRESHOLD_" not in found
    assert given == {"HOME": "here"}
    more = allocator_environment(
        {"LD_PRELOAD": "other.so", "MALLOC_CONF": "mine"},
        jemalloc=True,
        trim=False,
        directories=directories,
        page_size_bytes=4096,
    )
    assert more["LD_PRELOAD"] == f"{library}:other.so"
    assert more["MALLOC_CONF"] == "mine"


def test_without_jemalloc_thresholds_only_where_the_profile_asks(tmp_path: Path) -> None:
    assert allocator_environment({}, jemalloc=True, trim=False, directories=[tmp_path]) == {}
    assert allocator_environment({}, jemalloc=True, trim=True, directories=[tmp_path]) == TRIMMED


@pytest.mark.parametrize(("jemalloc", "page_size_bytes"), [(False, 4096), (True, 16384)])
def test_jemalloc_stays_out_where_the_profile_or_the_page_size_says_so(
    tmp_path: Path, jemalloc: bool, page_size_bytes: int
) -> None:
    (tmp_path / "libjemalloc.so.2").touch()
    found = allocator_environment(
        {}, jemalloc=jemalloc, trim=True, directories=[tmp_path], page_size_bytes=page_size_bytes
    )
    assert found == TRIMMED


@pytest.mark.skipif(
    not any((directory / "libjemalloc.so.2").exists() for directory in JEMALLOC_DIRECTORIES),
    reason="libjemalloc.so.2 is not installed here (package libjemalloc2)",
)
def test_a_process_started_so_runs_on_jemalloc() -> None:
    script = "print('libjemalloc' in open('/proc/self/maps').read())"
    environment = allocator_environment(os.environ, jemalloc=True, trim=False)
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True)
    assert (done.stdout.strip(), done.stderr) == ("True", "")
