from __future__ import annotations

import subprocess
import sys
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest

from edge_client.data.sources import Columns, DataFormat, DataSource
from edge_client.engines.sessions import RuntimeSettings
from edge_client.training import exchange
from edge_client.training.adamw import Schedule
from edge_client.training.allocator import Allocator
from edge_client.training.errors import TrainingError
from edge_client.training.evaluate import AnswerLoss
from edge_client.training.exchange import ChildRequest, ChildResult
from edge_client.training.settings import TrainingSettings
from edge_client.training.trainer import TrainingOutcome
from nightshift.protocol.adapters import AdapterLayout, Side, Target, initialise
from nightshift.protocol.adapters.formats import to_safetensors

LAYOUT = AdapterLayout(layers=1, targets=(Target("q_proj", 6, 4),), rank=2, alpha=4)
ADAPTER = initialise(LAYOUT, bytes(32))
REQUEST = ChildRequest(
    package_directory=Path("/packages/one"),
    adapter=to_safetensors(ADAPTER, LAYOUT),
    side=Side.A,
    settings=TrainingSettings(steps=3, schedule=Schedule.COSINE, learning_rate=0.25, proximal=0.5),
    sources=(
        DataSource(Path("/data/a"), DataFormat.CSV, Columns(prompt="x", completion="y"), root=Path("/data")),
        DataSource(Path("/data/b"), DataFormat.TEXT, Columns(text="z")),
    ),
    held_out_fraction=0.2,
    max_examples=7,
    fewest_examples=3,
    fewest_held_out=2,
    trained_rank=1,
    compare={"the release": b"bytes", "another": b"more"},
    measure_only=True,
    runtime=RuntimeSettings(threads=3, recompute=True),
    memory_limit_bytes=1 << 30,
    time_limit_s=12.5,
    jemalloc=False,
    trim_malloc=True,
)


def test_a_request_arrives_as_it_was_sent(tmp_path: Path) -> None:
    defaults = ChildRequest(REQUEST.package_directory, b"", Side.B, TrainingSettings(steps=1), ())
    # Every field differs from its default, so a field that does not travel cannot hide.
    assert all(getattr(REQUEST, field.name) != getattr(defaults, field.name) for field in fields(REQUEST)[1:])
    exchange.write_request(tmp_path, REQUEST)
    assert exchange.read_request(tmp_path) == REQUEST


def outcome(**changes: object) -> TrainingOutcome:
    whole = TrainingOutcome(
        ADAPTER, steps_done=2, mean_loss=1.5, last_loss=1.25, tokens=99, stopped="why", losses=(1.75, 1.25)
    )
    return replace(whole, **changes)  # type: ignore[arg-type]  # fields of TrainingOutcome by name


def test_a_result_arrives_as_it_was_sent(tmp_path: Path) -> None:
    exchange.write_request(tmp_path, REQUEST)
    losses = {"parent": AnswerLoss(12.5, 4)}
    sent = ChildResult(outcome(), 5, 2, {"empty text": 3}, losses, allocator=Allocator.JEMALLOC)
    exchange.write_result(tmp_path, sent, to_safetensors(ADAPTER, LAYOUT))
    found = exchange.read_result(tmp_path)
    assert isinstance(found, ChildResult)
    assert (found.examples, found.held_out, found.skipped, found.held_out_losses) == (5, 2, {"empty text": 3}, losses)
    assert found.allocator is Allocator.JEMALLOC
    for field in fields(TrainingOutcome):
        if field.name != "adapter":
            assert getattr(found.outcome, field.name) == getattr(sent.outcome, field.name)
    for name, tensor in ADAPTER.items():
        np.testing.assert_array_equal(found.outcome.adapter[name], tensor)


def test_no_steps_have_no_loss(tmp_path: Path) -> None:
    exchange.write_request(tmp_path, REQUEST)
    nothing = outcome(mean_loss=float("nan"), last_loss=float("nan"), steps_done=0)
    exchange.write_result(tmp_path, ChildResult(nothing, 0, 0, {}, {}), to_safetensors(ADAPTER, LAYOUT))
    found = exchange.read_result(tmp_path)
    assert isinstance(found, ChildResult)
    assert np.isnan([found.outcome.mean_loss, found.outcome.last_loss]).all()


def test_the_adapter_of_another_run_is_not_taken_for_the_result(tmp_path: Path) -> None:
    exchange.write_request(tmp_path, REQUEST)
    other = AdapterLayout(layers=2, targets=LAYOUT.targets, rank=2, alpha=4)
    exchange.write_result(
        tmp_path, ChildResult(outcome(), 1, 0, {}, {}), to_safetensors(initialise(other, bytes(32)), other)
    )
    with pytest.raises(TrainingError, match="not the adapter that was asked for"):
        exchange.read_result(tmp_path)


def test_a_new_request_clears_the_old_result_but_keeps_the_checkpoint(tmp_path: Path) -> None:
    for name in (exchange.RESULT, exchange.STOP, exchange.PROGRESS, exchange.TRAINED, "checkpoint"):
        (tmp_path / name).write_text("old")
    exchange.write_request(tmp_path, REQUEST)
    assert exchange.read_result(tmp_path) is None
    assert not (tmp_path / exchange.STOP).exists()
    assert not (tmp_path / exchange.PROGRESS).exists()
    assert (tmp_path / "checkpoint").read_text() == "old"


def test_an_error_arrives_as_its_class_and_sentence(tmp_path: Path) -> None:
    exchange.write_error(tmp_path, "DataError", "no such file")
    assert exchange.read_result(tmp_path) == ("DataError", "no such file")


def test_the_parent_of_a_training_process_loads_no_runtime() -> None:
    script = (
        "import sys, edge_client.training.supervise\n"
        "print([name for name in ('onnxruntime', 'tokenizers', 'llama_cpp', 'onnx') if name in sys.modules])\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
