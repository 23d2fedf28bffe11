"""Training on this device's own text, in a child process, within the owner's limits."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from edge_client.configuration import TrainingLimits
from edge_client.store.records import Source
from nightshift.host.failpoints import failpoint
from nightshift.protocol.errors import DeclinedError, ResourceError

if TYPE_CHECKING:
    from edge_client.data.sources import DataSource
    from edge_client.training.exchange import ChildRequest, ChildResult
    from edge_client.training.settings import TrainingSettings
    from nightshift.packages.package import ModelPackage
    from nightshift.protocol.adapters import Tensors, TrainedSlots

HELD_OUT_FRACTION = 0.1
FEWEST_EXAMPLES, FEWEST_HELD_OUT = 2, 1
MICRO_BATCH = 8
"""Examples that pass through the graph at once: what one core keeps in its cache (16 cost up to a third more)."""

OnStep = Callable[[int, int, float], None]
"""Told (steps done, steps in all, loss of the last one)."""


def tell_nobody(step: int, steps: int, loss: float) -> None:
    """Tell nobody."""


@dataclass(frozen=True, slots=True)
class Job:
    """One training run.

    Attributes:
        package: the base model, verified.
        slots: of which layout, and what of it moves.
        adapter: to start from.
        settings: how long and how fast.
        sources: private text.
        directory: for checkpoints; the same job continues there.
        time_limit_s: seconds; 0 means none.
        should_stop: asked all the time; a reason ends the run at a checkpoint.
        compare: name -> safetensors bytes of further adapters whose loss on the hold-out is wanted.
    """

    package: ModelPackage
    slots: TrainedSlots
    adapter: Tensors
    settings: TrainingSettings
    sources: Sequence[DataSource]
    directory: Path
    time_limit_s: float
    should_stop: Callable[[], str | None] = lambda: None
    compare: Mapping[str, bytes] = field(default_factory=dict)


def require_enabled(limits: TrainingLimits) -> None:
    """Refuse to train on a machine that should not.

    Raises:
        DeclinedError: the owner, or the device profile, says so.
    """
    if not limits.enabled:
        raise DeclinedError(
            "this machine does not train (training.enabled = false; edge-client profile detect says why); it still "
            "serves models and answers for committees. To train all the same, set training.enabled = true"
        )


def longest_example(limits: TrainingLimits, wanted: int) -> int:
    """Tokens of the longest example: what is wanted, or less where the machine takes less."""
    return min(wanted, limits.max_tokens or wanted)


def micro_batch_size(limits: TrainingLimits, *, batch_size: int, max_tokens: int) -> int:
    """Examples of at most `max_tokens` tokens that pass through the graph at once.

    The limit is of examples of `limits.max_tokens` tokens; memory goes with tokens, so more of shorter ones fit.
    """
    fits = limits.micro_batch_size or MICRO_BATCH
    if limits.micro_batch_size and limits.max_tokens:
        fits = max(fits, min(MICRO_BATCH, fits * limits.max_tokens // max_tokens))
    return min(batch_size, fits)


def usable_sources(sources: Sequence[Source], notes: list[str]) -> list[DataSource]:
    """The registered files that can be read now; the others are noted.

    Raises:
        DeclinedError: there is none.
    """
    from edge_client.data.errors import DataError
    from edge_client.data.files import resolve

    usable = []
    for source in sources:
        try:
            resolve(Path(source.path))
        except DataError as error:
            notes.append(f"data source {source.number} is left out: {error}")
            continue
        usable.append(as_data_source(source))
    if not usable:
        raise DeclinedError(
            "there is no private text to learn from on this device; "
            "name a file with: edge-client data add PATH --format chat|prompt|text|csv"
        )
    return usable


def as_data_source(source: Source) -> DataSource:
    """A registered file as the data room knows it."""
    from edge_client.data.sources import Columns, DataFormat, DataSource

    return DataSource(Path(source.path), DataFormat(source.format), Columns(**source.columns))


def train(job: Job, limits: TrainingLimits, *, on_step: OnStep = tell_nobody) -> ChildResult:
    """Train to the end; where memory is short, in ever smaller steps (`edge_client.training.fallback`).

    Raises:
        DeclinedError: nothing fit to be used came out; says why.
        TrainingStoppedError: it was told to end; a checkpoint waits.
        ResourceError: not enough memory even for the smallest step.
        TrainingError: the training process failed.
    """
    from edge_client.training.errors import (
        ChildOutOfMemoryError,
        DivergedError,
        NoExamplesError,
        NothingLearntError,
    )
    from edge_client.training.fallback import describe, smaller

    request: ChildRequest | None = _request(job, limits)
    while request is not None:
        try:
            result = _run(request, job, on_step)
        except ChildOutOfMemoryError as error:
            least, request = request, smaller(request)
            if request is None:
                raise ResourceError(f"{error}; and that with {describe(least)}, the least there is") from error
        except (DivergedError, NothingLearntError, NoExamplesError) as error:
            raise DeclinedError(f"training brought nothing that can be used: {error}") from error
        else:
            failpoint("device.training.done")
            return check_complete(result, job.settings.steps)
    raise AssertionError("the last attempt returns or raises")


def _run(request: ChildRequest, job: Job, on_step: OnStep) -> ChildResult:
    from edge_client.training.supervise import train_in_child

    return train_in_child(
        request,
        job.directory,
        should_stop=job.should_stop,
        on_step=lambda progress: on_step(progress.step, progress.steps, progress.loss),
    )


def _request(job: Job, limits: TrainingLimits) -> ChildRequest:
    from edge_client.engines.sessions import RuntimeSettings
    from edge_client.training.exchange import ChildRequest
    from nightshift.protocol.adapters.formats import to_safetensors

    return ChildRequest(
        package_directory=job.package.directory,
        adapter=to_safetensors(job.adapter, job.slots.layout),
        side=job.slots.side,
        trained_rank=job.slots.rank,
        settings=job.settings,
        sources=tuple(job.sources),
        held_out_fraction=HELD_OUT_FRACTION,
        fewest_examples=FEWEST_EXAMPLES,
        fewest_held_out=FEWEST_HELD_OUT,
        compare=job.compare,
        runtime=RuntimeSettings(threads=limits.threads, recompute=limits.recompute),
        memory_limit_bytes=limits.memory_ceiling_mb * 2**20,
        time_limit_s=job.time_limit_s,
        jemalloc=limits.jemalloc,
        trim_malloc=limits.trim_malloc,
    )


def check_complete(result: ChildResult, steps: int) -> ChildResult:
    """Refuse what was cut short.

    Raises:
        TrainingStoppedError: with the reason.
    """
    from edge_client.training.errors import TrainingStoppedError

    outcome = result.outcome
    if outcome.stopped is not None:
        raise TrainingStoppedError(
            f"training stopped after {outcome.steps_done} of {steps} steps ({outcome.stopped}); "
            "nothing was sent, the next run goes on from the last checkpoint"
        )
    return result


def allocator_notes(result: ChildResult, limits: TrainingLimits) -> list[str]:
    """Says so where training ran on another allocator than the device profile or the owner wants."""
    from edge_client.training.allocator import Allocator, jemalloc_can_run

    if not (limits.jemalloc and jemalloc_can_run()) or result.allocator is Allocator.JEMALLOC:
        return []
    return [
        f"training ran on {result.allocator.value}, since jemalloc was not found: it takes more memory or time; "
        "on Debian: apt install libjemalloc2"
    ]


def forget_other_runs(training: Path, keep: Path | None) -> None:
    """Remove the working directories of runs that will not be continued."""
    for directory in training.iterdir():
        if directory != keep and directory.is_dir():
            shutil.rmtree(directory, ignore_errors=True)
