"""What passes between the agent and its training process: files in one private directory.

| file | written by | holds |
|---|---|---|
| request.json | parent | what to train, where the data is, limits |
| parent.safetensors | parent | the adapter to start from |
| compare-N.safetensors | parent | further adapters whose held-out loss is wanted |
| stop | parent | its presence asks the child to stop; its text is the reason |
| progress | child | a line of JSON for every step |
| checkpoint | child | state to resume from |
| trained.safetensors | child | the adapter after training |
| result.json | child | the outcome, or the error; written last |

Text of the owner never passes here: only paths of data files do.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from edge_client.data.holdout import DEFAULT_FRACTION
from edge_client.data.sources import Columns, DataFormat, DataSource
from edge_client.engines.sessions import RuntimeSettings
from edge_client.training.adamw import Schedule
from edge_client.training.allocator import Allocator
from edge_client.training.errors import TrainingError
from edge_client.training.evaluate import AnswerLoss
from edge_client.training.settings import TrainingSettings
from edge_client.training.trainer import TrainingOutcome
from nightshift.host.files import write_atomic
from nightshift.protocol.adapters import Side
from nightshift.protocol.adapters.formats import from_safetensors, layout_of

REQUEST, RESULT, STOP, PROGRESS = "request.json", "result.json", "stop", "progress"
EXIT_STOPPED = 75  # stopped before there was anything to report (EX_TEMPFAIL of sysexits.h)
PARENT, TRAINED = "parent.safetensors", "trained.safetensors"


@dataclass(frozen=True, slots=True)
class ChildRequest:
    """What a training process is asked to do.

    Attributes:
        package_directory: the model package, already verified.
        adapter: safetensors bytes of the adapter to start from.
        side: which matrices to train.
        settings: how long and how fast.
        sources: the owner's data files.
        held_out_fraction: share kept out of training and measured on.
        max_examples: rows read at most.
        fewest_examples: with fewer to train on, nothing is trained.
        fewest_held_out: with fewer to measure on, nothing is trained.
        trained_rank: how many rank slots to train; None for all.
        compare: name -> safetensors bytes of adapters to measure on the held-out part too.
        measure_only: train nothing; measure only what `compare` names.
        runtime: threads and recomputation.
        memory_limit_bytes: ceiling of the process's own memory; 0 means none.
        time_limit_s: seconds after which it is asked to stop; 0 means none.
        jemalloc: preload it where it is installed.
        trim_malloc: trade time for memory where jemalloc is missing.
    """

    package_directory: Path
    adapter: bytes
    side: Side
    settings: TrainingSettings
    sources: tuple[DataSource, ...]
    held_out_fraction: float = DEFAULT_FRACTION
    max_examples: int = 100_000
    fewest_examples: int = 0
    fewest_held_out: int = 0
    trained_rank: int | None = None
    compare: Mapping[str, bytes] = field(default_factory=dict)
    measure_only: bool = False
    runtime: RuntimeSettings = field(default_factory=RuntimeSettings)
    memory_limit_bytes: int = 0
    time_limit_s: float = 0.0
    jemalloc: bool = True
    trim_malloc: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class ChildResult:
    """What a training process achieved.

    Attributes:
        outcome: the adapter and the course of the run.
        examples: examples trained on.
        held_out: examples measured on.
        skipped: reason -> rows not used.
        held_out_losses: "parent", "trained" and the names of `compare` -> loss on
            the held-out part; empty if the run was stopped or nothing is held out.
        allocator: what the process ran on.
    """

    outcome: TrainingOutcome
    examples: int
    held_out: int
    skipped: Mapping[str, int]
    held_out_losses: Mapping[str, AnswerLoss]
    allocator: Allocator = Allocator.MALLOC


def write_request(directory: Path, request: ChildRequest) -> None:
    """Writes a request into a directory, clearing what an earlier run left except its checkpoint.

    Raises:
        ResourceError: the disk is full.
    """
    for leftover in (RESULT, TRAINED, STOP, PROGRESS):
        (directory / leftover).unlink(missing_ok=True)
    names = {name: f"compare-{index}.safetensors" for index, name in enumerate(request.compare)}
    write_atomic(directory / PARENT, request.adapter)
    for name, file_name in names.items():
        write_atomic(directory / file_name, request.compare[name])
    record = {
        "package_directory": str(request.package_directory.absolute()),
        "side": request.side.value,
        "settings": {**asdict(request.settings), "schedule": request.settings.schedule.value},
        "sources": [_source_record(source) for source in request.sources],
        "held_out_fraction": request.held_out_fraction,
        "max_examples": request.max_examples,
        "fewest_examples": request.fewest_examples,
        "fewest_held_out": request.fewest_held_out,
        "trained_rank": request.trained_rank,
        "compare": names,
        "measure_only": request.measure_only,
        "runtime": asdict(request.runtime),
        "memory_limit_bytes": request.memory_limit_bytes,
        "time_limit_s": request.time_limit_s,
        "jemalloc": request.jemalloc,
        "trim_malloc": request.trim_malloc,
    }
    _write_json(directory / REQUEST, record)


def read_request(directory: Path) -> ChildRequest:
    """Reads what `write_request` wrote; both ends are the same build, so errors are bugs."""
    record = json.loads((directory / REQUEST).read_bytes())
    settings = record.pop("settings")
    return ChildRequest(
        **{
            **record,
            "package_directory": Path(record["package_directory"]),
            "adapter": (directory / PARENT).read_bytes(),
            "side": Side(record["side"]),
            "settings": TrainingSettings(**{**settings, "schedule": Schedule(settings["schedule"])}),
            "sources": tuple(_parse_source(source) for source in record["sources"]),
            "compare": {name: (directory / file).read_bytes() for name, file in record["compare"].items()},
            "runtime": RuntimeSettings(**record["runtime"]),
        }
    )


def write_result(directory: Path, result: ChildResult, adapter: bytes) -> None:
    """Writes the adapter, then the result that vouches for it."""
    write_atomic(directory / TRAINED, adapter)
    outcome = result.outcome
    record = {
        "steps_done": outcome.steps_done,
        "mean_loss": _finite(outcome.mean_loss),
        "last_loss": _finite(outcome.last_loss),
        "tokens": outcome.tokens,
        "stopped": outcome.stopped,
        "losses": outcome.losses,
        "examples": result.examples,
        "held_out": result.held_out,
        "skipped": dict(result.skipped),
        "held_out_losses": {name: asdict(loss) for name, loss in result.held_out_losses.items()},
        "allocator": result.allocator.value,
    }
    _write_json(directory / RESULT, record)


def write_error(directory: Path, kind: str, message: str) -> None:
    """Writes an error as the result: its class name and a sentence for people."""
    _write_json(directory / RESULT, {"error": kind, "message": message})


def read_result(directory: Path) -> ChildResult | tuple[str, str] | None:
    """Reads the result: a success, (error class name, message), or None where there is none.

    Raises:
        TrainingError: the files do not belong together.
    """
    try:
        record = json.loads((directory / RESULT).read_bytes())
    except FileNotFoundError:
        return None
    if "error" in record:
        return record["error"], record["message"]
    data = (directory / TRAINED).read_bytes()
    layout = layout_of(data)
    if layout != layout_of((directory / PARENT).read_bytes()):
        raise TrainingError(f"{directory / TRAINED}: not the adapter that was asked for; run again")
    outcome = TrainingOutcome(
        adapter=from_safetensors(data, layout),
        steps_done=record["steps_done"],
        mean_loss=_number(record["mean_loss"]),
        last_loss=_number(record["last_loss"]),
        tokens=record["tokens"],
        stopped=record["stopped"],
        losses=tuple(record["losses"]),
    )
    losses = {name: AnswerLoss(**loss) for name, loss in record["held_out_losses"].items()}
    allocator = Allocator(record["allocator"])
    return ChildResult(outcome, record["examples"], record["held_out"], record["skipped"], losses, allocator)


def _source_record(source: DataSource) -> dict[str, Any]:
    return {
        "path": str(source.path.absolute()),
        "format": source.format.value,
        "columns": asdict(source.columns),
        "root": None if source.root is None else str(source.root.absolute()),
    }


def _parse_source(record: Mapping[str, Any]) -> DataSource:
    root = record["root"]
    return DataSource(
        path=Path(record["path"]),
        format=DataFormat(record["format"]),
        columns=Columns(**record["columns"]),
        root=None if root is None else Path(root),
    )


def _write_json(path: Path, record: object) -> None:
    write_atomic(path, json.dumps(record, allow_nan=False).encode())


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _number(value: float | None) -> float:
    return math.nan if value is None else value
