from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from edge_client.agent.local_training import allocator_notes
from edge_client.configuration import TrainingLimits
from edge_client.training.allocator import (
    JEMALLOC_DIRECTORIES,
    Allocator,
    allocator_environment,
    allocator_in_use,
    jemalloc_can_run,
)
from edge_client.training.exchange import ChildResult
from edge_client.training.trainer import TrainingOutcome

ASK = "from edge_client.training.allocator import allocator_in_use; print(allocator_in_use().value)"
needs_jemalloc = pytest.mark.skipif(
    not any((directory / "libjemalloc.so.2").exists() for directory in JEMALLOC_DIRECTORIES),
    reason="libjemalloc.so.2 is not installed here (package libjemalloc2)",
)

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


@pytest.mark.parametrize(
    ("page_size_bytes", "platform", "can"), [(4096, "linux", True), (16384, "linux", False), (4096, "darwin", False)]
)
def test_jemalloc_is_for_linux_with_small_pages(page_size_bytes: int, platform: str, can: bool) -> None:
    assert jemalloc_can_run(page_size_bytes, platform) is can


def asked(environment: dict[str, str]) -> tuple[str, str]:
    """What a process started so says that it runs on, and what it left on stderr."""
    done = subprocess.run([sys.executable, "-c", ASK], env=environment, capture_output=True, text=True, check=True)
    return done.stdout.strip(), done.stderr


@needs_jemalloc
def test_a_process_started_so_runs_on_jemalloc() -> None:
    assert asked(allocator_environment(os.environ, jemalloc=True, trim=True)) == ("jemalloc", "")


def test_a_process_says_what_it_runs_on_without_it() -> None:
    assert asked(allocator_environment(os.environ, jemalloc=False, trim=False))[0] == Allocator.MALLOC
    assert asked(allocator_environment(os.environ, jemalloc=False, trim=True))[0] == Allocator.TRIMMED_MALLOC


@pytest.mark.skipif(sys.platform != "linux", reason="jemalloc is preloaded under Linux only")
def test_a_library_that_does_not_load_is_not_claimed(tmp_path: Path) -> None:
    """The dynamic linker goes on without it (ld.so(8)), and so does training."""
    (tmp_path / "libjemalloc.so.2").write_bytes(b"no library")
    environment = allocator_environment(
        os.environ, jemalloc=True, trim=False, directories=[tmp_path], page_size_bytes=4096
    )
    assert "LD_PRELOAD" in environment
    assert asked(environment)[0] == Allocator.MALLOC


def test_where_the_kernel_lists_nothing_it_is_not_jemalloc(tmp_path: Path) -> None:
    assert allocator_in_use(tmp_path / "absent", {}) is Allocator.MALLOC


@pytest.mark.skipif(not jemalloc_can_run(), reason="no jemalloc is wished for where it cannot run")
@pytest.mark.parametrize(
    ("wished", "used", "said"),
    [
        (True, Allocator.JEMALLOC, False),
        (True, Allocator.MALLOC, True),
        (True, Allocator.TRIMMED_MALLOC, True),
        (False, Allocator.MALLOC, False),
    ],
)
def test_a_run_on_another_allocator_than_wished_is_noted(wished: bool, used: Allocator, said: bool) -> None:
    outcome = TrainingOutcome({}, steps_done=1, mean_loss=1.0, last_loss=1.0, tokens=1, stopped=None)
    notes = allocator_notes(ChildResult(outcome, 1, 1, {}, {}, allocator=used), TrainingLimits(jemalloc=wished))
    assert [f"ran on {used.value}" in note and "libjemalloc2" in note for note in notes] == [True] * said
