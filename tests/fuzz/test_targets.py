"""A short fuzz of every decoder: hypothesis mutates honest bytes, everywhere; atheris follows the code's branches.

A longer run of one target: `python -m tests.fuzz plan --seconds 600` (tests/fuzz/__main__.py).
"""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.fuzz.targets import Target, all_targets, attempt

ROOT = Path(__file__).parents[2]
ATHERIS_SECONDS = 12
MEMORY_BYTES = 64 << 20
"""What reading a few kilobytes of anything may take at its peak."""

# fmt: off
NAMES = [
    "plan", "release", "release-offer", "decision", "decision-offer", "checkpoint", "log-entry",
    "consistency-proof", "revocations",
    "signed-checkpoint", "device-certificate", "chain", "signing-certificate", "public-key", "signing-request",
    "contribution", "ciphertext", "running-sum", "bundle-entry", "answer", "share", "sealed-share", "prekey",
    "prekey-point", "erasure-statement", "refusal", "void-proof", "gguf", "manifest", "package", "adapter",
    "adapter-layout", "data-prompt", "data-chat", "data-text", "data-csv", "join-token", "api-chat", "api-completion",
    "metadata-root", "metadata-timestamp", "metadata-adapters", "signed-note", "log-head", "whole-log",
]
# fmt: on


@pytest.fixture(scope="module")
def targets(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Target]:
    return all_targets(tmp_path_factory.mktemp("fuzz"))


def test_every_target_is_run(targets: dict[str, Target]) -> None:
    assert sorted(targets) == sorted(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_honest_bytes_are_read(name: str, targets: dict[str, Target]) -> None:
    """A target that refuses its own seeds would be fuzzed no further than its first check."""
    for seed in targets[name].seeds:
        assert attempt(targets[name], seed)


Edit = tuple[float, int, bytes, int]
EDITS = st.lists(
    st.tuples(st.floats(0, 1), st.integers(0, 12), st.binary(max_size=9), st.integers(1, 40)), min_size=1, max_size=5
)


def edited(seed: bytes, edits: list[Edit]) -> bytes:
    """Replace, remove, repeat or insert pieces; places are fractions of what is there."""
    data = seed
    for where, removed, inserted, times in edits:
        place = int(where * len(data))
        data = data[:place] + inserted * times + data[place + removed :]
    return data


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(edits=EDITS, which=st.integers(0, 3), fresh=st.binary(max_size=300))
def test_hostile_bytes(name: str, targets: dict[str, Target], edits: list[Edit], which: int, fresh: bytes) -> None:
    target = targets[name]
    seeds = (*target.seeds, fresh)
    tracemalloc.start()
    try:
        attempt(target, edited(seeds[which % len(seeds)], edits))
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak_bytes < MEMORY_BYTES


@pytest.mark.slow
@pytest.mark.skipif(
    importlib.util.find_spec("atheris") is None,
    reason="atheris has no wheel for this platform; the hypothesis pass above covers every target",
)
def test_a_short_run_guided_by_coverage(tmp_path: Path) -> None:
    """All targets in one process of libFuzzer; its corpus begins with the seeds."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.fuzz", "all", "--seconds", str(ATHERIS_SECONDS), "--corpus", str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-8000:]
    assert "Done " in done.stderr, "libFuzzer says how many runs it made"
