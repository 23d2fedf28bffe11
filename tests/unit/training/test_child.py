"""Real processes: what the agent sees when training ends well, badly, or not at all."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import psutil
import pytest

from edge_client.data.errors import DataError
from edge_client.data.prepare import prepare
from edge_client.data.sources import Columns, DataFormat, DataSource
from edge_client.engines import processor
from edge_client.engines.onnx_engine import OnnxEngine
from edge_client.engines.sessions import RuntimeSettings, layout_for
from edge_client.training import exchange
from edge_client.training.allocator import JEMALLOC_DIRECTORIES, Allocator
from edge_client.training.errors import (
    ChildCrashedError,
    ChildOutOfMemoryError,
    ChildTimeoutError,
    NoExamplesError,
    TooLittleTextError,
)
from edge_client.training.evaluate import answer_loss
from edge_client.training.exchange import ChildRequest
from edge_client.training.settings import TrainingSettings
from edge_client.training.supervise import STOP_WITHIN_S, train_in_child
from edge_client.training.trainer import Progress, train
from nightshift.packages.package import ModelPackage
from nightshift.protocol.adapters import Side, TrainedSlots, initialise
from nightshift.protocol.adapters.formats import from_safetensors, layout_of, to_safetensors
from tests.support.stories import commands

pytestmark = pytest.mark.slow

ONE_THREAD = RuntimeSettings(threads=1)

needs_jemalloc = pytest.mark.skipif(
    not any((directory / "libjemalloc.so.2").exists() for directory in JEMALLOC_DIRECTORIES),
    reason="libjemalloc.so.2 is not installed here (package libjemalloc2)",
)


@pytest.fixture
def request_for(stories: ModelPackage, tmp_path: Path) -> Callable[..., ChildRequest]:
    layout = layout_for(stories.manifest, rank=4, alpha=8)
    adapter = to_safetensors(initialise(layout, bytes(32)), layout)
    source = commands(tmp_path / "rows", rows=120)

    def make(*, steps: int = 4, batch_size: int = 8, **fields: object) -> ChildRequest:
        settings = TrainingSettings(steps=steps, batch_size=batch_size, micro_batch_size=batch_size, max_tokens=96)
        request = ChildRequest(stories.directory, adapter, Side.B, settings, (source,), runtime=ONE_THREAD)
        return replace(request, **fields)  # type: ignore[arg-type]  # fields of ChildRequest by name

    return make


LONG = {"steps": 100_000}


def wait_for_step(directory: Path) -> None:
    deadline = time.monotonic() + 60
    while not (directory / exchange.PROGRESS).exists() or not (directory / exchange.PROGRESS).stat().st_size:
        assert time.monotonic() < deadline
        time.sleep(0.02)


def child_of_this_process() -> psutil.Process:
    (child,) = [
        process
        for process in psutil.Process().children()
        if any("edge_client.training.child" in part for part in process.cmdline())
    ]
    return child


def signal_child(directory: Path, number: int) -> threading.Thread:
    """Sends a signal to the training process once it has done a step."""

    def send() -> None:
        wait_for_step(directory)
        child_of_this_process().send_signal(number)

    thread = threading.Thread(target=send)
    thread.start()
    return thread


def test_it_only_measures_where_nothing_is_to_be_trained(
    stories: ModelPackage, request_for: Callable[..., ChildRequest], tmp_path: Path
) -> None:
    request = request_for()
    layout = layout_of(request.adapter)
    moved = {name: tensor + np.float32(0.05) for name, tensor in from_safetensors(request.adapter, layout).items()}
    files = {"one": request.adapter, "other": to_safetensors(moved, layout)}
    result = train_in_child(replace(request, compare=files, measure_only=True), tmp_path / "child")
    assert result.outcome.steps_done == 0
    assert not (tmp_path / "child" / "checkpoint").exists()
    with OnnxEngine(stories, ONE_THREAD) as engine:
        for name, file in files.items():
            engine.set_adapter(from_safetensors(file, layout), layout)
            expected = answer_loss(engine, prepare(stories, request.sources, max_tokens=96).held_out)
            assert result.held_out_losses[name] == expected
    assert result.held_out_losses.keys() == files.keys()
    assert result.held_out_losses["one"] != result.held_out_losses["other"]


def test_the_child_does_what_training_here_does(
    stories: ModelPackage, request_for: Callable[..., ChildRequest], tmp_path: Path
) -> None:
    request = request_for()
    other = replace(request).adapter
    steps: list[Progress] = []
    result = train_in_child(replace(request, compare={"release": other}), tmp_path / "child", on_step=steps.append)
    layout = layout_of(request.adapter)
    data = prepare(stories, request.sources, max_tokens=96)
    here = train(
        stories,
        from_safetensors(request.adapter, layout),
        TrainedSlots.whole(layout, Side.B),
        data.train,
        request.settings,
        runtime=ONE_THREAD,
    )
    for name, tensor in here.adapter.items():
        np.testing.assert_array_equal(result.outcome.adapter[name], tensor)
    assert result.outcome.mean_loss == here.mean_loss
    assert [step.step for step in steps] == [1, 2, 3, 4]
    assert (result.examples, result.held_out, result.skipped) == (len(data.train), len(data.held_out), {})
    losses = result.held_out_losses
    assert set(losses) == {"parent", "trained", "release"}
    assert losses["release"] == losses["parent"]
    assert losses["trained"].mean < losses["parent"].mean


@pytest.mark.parametrize(
    ("jemalloc", "allocator"),
    [
        pytest.param(True, Allocator.JEMALLOC, marks=needs_jemalloc),
        (False, Allocator.TRIMMED_MALLOC),
    ],
)
def test_it_runs_on_jemalloc_where_that_is_found_and_says_what_it_ran_on(
    request_for: Callable[..., ChildRequest], tmp_path: Path, jemalloc: bool, allocator: Allocator
) -> None:
    mapped: list[bool] = []

    def look(_: Progress) -> None:
        if not mapped:
            mapped.append(any("libjemalloc" in part.path for part in child_of_this_process().memory_maps()))

    result = train_in_child(
        request_for(**LONG, jemalloc=jemalloc, trim_malloc=True),
        tmp_path / "child",
        on_step=look,
        should_stop=lambda: "seen" if mapped else None,
    )
    assert mapped[0] is jemalloc
    assert result.outcome.steps_done >= 1
    assert result.allocator is allocator


def test_its_files_are_private_and_hold_no_text(request_for: Callable[..., ChildRequest], tmp_path: Path) -> None:
    request = request_for()
    directory = tmp_path / "child"
    train_in_child(request, directory)
    assert directory.stat().st_mode & 0o777 == 0o700
    words = json.loads((tmp_path / "rows").read_text().splitlines()[0])["prompt"].encode()
    for path in directory.iterdir():
        assert path.stat().st_mode & 0o077 == 0, path.name
        assert words not in path.read_bytes()


def test_a_request_to_stop_is_obeyed_within_the_grace_period_and_the_run_resumes(
    request_for: Callable[..., ChildRequest], tmp_path: Path
) -> None:
    directory = tmp_path / "child"
    request = request_for(**LONG)
    done: list[int] = []
    asked: list[float] = []

    def stop() -> str | None:
        if len(done) < 3:
            return None
        asked.append(time.monotonic())
        return "on battery"

    first = train_in_child(request, directory, should_stop=stop, on_step=lambda step: done.append(step.step))
    assert time.monotonic() - asked[0] < STOP_WITHIN_S
    assert first.outcome.stopped == "on battery"
    assert first.outcome.steps_done >= 3
    done.clear()
    train_in_child(request, directory, should_stop=stop, on_step=lambda step: done.append(step.step))
    assert done[0] == first.outcome.steps_done + 1


def test_a_stop_during_a_long_step_is_obeyed_too(request_for: Callable[..., ChildRequest], tmp_path: Path) -> None:
    directory = tmp_path / "child"
    data = tmp_path / "many"
    data.write_text((tmp_path / "rows").read_text() * 40)
    source = DataSource(data, DataFormat.PROMPT, Columns())
    request = request_for(steps=50, batch_size=4000, sources=(source,))
    started = time.monotonic()
    result = train_in_child(
        request, directory, should_stop=lambda: "too warm" if time.monotonic() - started > 4 else None
    )
    assert time.monotonic() - started < 4 + STOP_WITHIN_S
    assert result.outcome.stopped == "too warm"


def test_a_stop_before_it_has_begun_changes_nothing(request_for: Callable[..., ChildRequest], tmp_path: Path) -> None:
    request = request_for()
    result = train_in_child(request, tmp_path / "child", should_stop=lambda: "unplugged")
    assert (result.outcome.stopped, result.outcome.steps_done) == ("unplugged", 0)
    layout = layout_of(request.adapter)
    assert to_safetensors(result.outcome.adapter, layout) == request.adapter


def test_sigterm_stops_it_with_a_checkpoint(request_for: Callable[..., ChildRequest], tmp_path: Path) -> None:
    directory = tmp_path / "child"
    thread = signal_child(directory, signal.SIGTERM)
    result = train_in_child(request_for(**LONG), directory)
    thread.join()
    assert result.outcome.stopped == "asked to stop"
    assert result.outcome.steps_done >= 1
    assert (directory / "checkpoint").exists()


def test_the_time_limit_stops_it(request_for: Callable[..., ChildRequest], tmp_path: Path) -> None:
    result = train_in_child(request_for(**LONG, time_limit_s=6.0), tmp_path / "child")
    assert result.outcome.stopped == "time limit"


@pytest.mark.parametrize(
    ("number", "word"),
    [(signal.SIGSEGV, "SIGSEGV"), (signal.SIGILL, "another processor"), (signal.SIGKILL, "memory ran out")],
)
def test_a_crash_is_reported_and_the_parent_lives(
    request_for: Callable[..., ChildRequest], tmp_path: Path, number: int, word: str
) -> None:
    directory = tmp_path / "child"
    thread = signal_child(directory, number)
    with pytest.raises(ChildCrashedError, match=word):
        train_in_child(request_for(**LONG), directory)
    thread.join()


def test_an_illegal_instruction_names_what_the_processor_lacks(
    request_for: Callable[..., ChildRequest], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processor, "missing_features", lambda: ["avx2", "fma"])
    directory = tmp_path / "child"
    thread = signal_child(directory, signal.SIGILL)
    with pytest.raises(ChildCrashedError, match="this processor lacks avx2, fma; install one for this one"):
        train_in_child(request_for(**LONG), directory)
    thread.join()


def test_a_child_that_does_not_stop_is_killed(request_for: Callable[..., ChildRequest], tmp_path: Path) -> None:
    directory = tmp_path / "child"
    thread = signal_child(directory, signal.SIGSTOP)
    started: list[float] = []

    def stop() -> str | None:
        if thread.is_alive():
            return None
        started.append(time.monotonic())
        return "morning"

    with pytest.raises(ChildTimeoutError, match="morning"):
        train_in_child(request_for(**LONG), directory, should_stop=stop)
    assert time.monotonic() - started[0] < STOP_WITHIN_S + 1


@pytest.mark.parametrize("limit_mib", [30, 150])
def test_the_memory_ceiling_ends_it_with_the_reason(
    request_for: Callable[..., ChildRequest], tmp_path: Path, limit_mib: int
) -> None:
    """A batch of 4,000 examples needs far more than either ceiling; 30 MiB do not even hold the imports."""
    data = tmp_path / "many"
    data.write_text((tmp_path / "rows").read_text() * 40)
    request = request_for(
        steps=1,
        batch_size=4000,
        sources=(DataSource(data, DataFormat.PROMPT, Columns()),),
        memory_limit_bytes=limit_mib << 20,
    )
    with pytest.raises(ChildOutOfMemoryError, match=rf"ran out of memory.*ceiling is {limit_mib} MiB"):
        train_in_child(request, tmp_path / "child")


def test_a_ceiling_that_suffices_changes_nothing(request_for: Callable[..., ChildRequest], tmp_path: Path) -> None:
    result = train_in_child(request_for(memory_limit_bytes=500 << 20), tmp_path / "child")
    assert result.outcome.steps_done == 4


def test_errors_of_the_child_are_raised_here(request_for: Callable[..., ChildRequest], tmp_path: Path) -> None:
    absent = DataSource(tmp_path / "absent", DataFormat.PROMPT, Columns())
    with pytest.raises(DataError, match="no such file"):
        train_in_child(request_for(sources=(absent,)), tmp_path / "child")
    with pytest.raises(NoExamplesError):
        train_in_child(request_for(sources=()), tmp_path / "child")


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        (
            {"fewest_held_out": 1, "held_out_fraction": 0.0},
            r"120 examples to train on and 0 held out; at least 0 and 1",
        ),
        ({"fewest_examples": 121}, r"examples to train on and \d+ held out; at least 121 and 0 are needed.*about 10%"),
    ],
)
def test_too_little_text_is_said_before_the_first_step(
    request_for: Callable[..., ChildRequest], tmp_path: Path, fields: dict[str, float], reason: str
) -> None:
    with pytest.raises(TooLittleTextError, match=reason):
        train_in_child(request_for(**LONG, **fields), tmp_path / "child")
    assert not (tmp_path / "child" / exchange.PROGRESS).exists()


def test_the_child_does_not_outlive_the_agent(request_for: Callable[..., ChildRequest], tmp_path: Path) -> None:
    """An agent process that is killed leaves no training behind."""
    directory = tmp_path / "child"
    request = request_for(**LONG)
    agent = os.fork()
    if agent == 0:
        try:
            train_in_child(request, directory)
        finally:
            os._exit(0)
    wait_for_step(directory)
    (child,) = psutil.Process(agent).children()
    os.kill(agent, signal.SIGKILL)
    os.waitpid(agent, 0)
    child.wait(timeout=STOP_WITHIN_S)
