"""The training loop: gradients from the train graph, updates by AdamW in numpy.

What is trained of the adapter is one float32 vector: the gradient, its clipping and the
optimiser's state are of its length. Where it is a whole side, the graph's inputs are views of
it, so an update in place is all that a step has to hand over; where it is some rank
slots of a side, these are copied into the inputs after each step.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import astuple, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edge_client.data.batches import BatchOrder
from edge_client.data.tokens import TokenExample
from edge_client.engines.sessions import RuntimeSettings, runtime_version
from edge_client.training import checkpoint as checkpoints
from edge_client.training.adamw import AdamW, Vector, clip_to_norm
from edge_client.training.checkpoint import Checkpoint
from edge_client.training.errors import DivergedError, NoExamplesError, NothingLearntError
from edge_client.training.interrupt import Interrupt
from edge_client.training.settings import TrainingSettings
from edge_client.training.train_graph import TrainGraph
from nightshift.packages.package import ModelPackage
from nightshift.protocol.adapters import Tensors, TrainedSlots


@dataclass(frozen=True, slots=True)
class Progress:
    """What a finished step reports."""

    step: int
    steps: int
    loss: float
    tokens: int


@dataclass(frozen=True, slots=True, eq=False)
class TrainingOutcome:
    """What a run, finished or stopped, came to.

    Attributes:
        adapter: the complete adapter after training.
        steps_done: optimiser steps done, those before a resume included.
        mean_loss: mean over all steps of the loss on answer tokens.
        last_loss: loss of the last step.
        tokens: tokens seen, padding not counted.
        stopped: why the run ended early, or None.
        losses: loss on answer tokens of every step done, in nats.
    """

    adapter: dict[str, NDArray[np.float32]]
    steps_done: int
    mean_loss: float
    last_loss: float
    tokens: int
    stopped: str | None
    losses: tuple[float, ...] = ()


def train(
    package: ModelPackage,
    adapter: Tensors,
    slots: TrainedSlots,
    examples: Sequence[TokenExample],
    settings: TrainingSettings,
    *,
    checkpoint_directory: Path | None = None,
    should_stop: Callable[[], str | None] = lambda: None,
    on_step: Callable[[Progress], None] | None = None,
    runtime: RuntimeSettings | None = None,
    interrupt: Interrupt | None = None,
) -> TrainingOutcome:
    """Trains some rank slots of one side of an adapter, or all of them, on local examples.

    Args:
        package: the model.
        adapter: the complete adapter to start from; it is not changed.
        slots: of which layout, and what of it moves.
        examples: tokenised examples, none longer than `settings.max_tokens`.
        settings: how long and how fast.
        checkpoint_directory: where the state is kept; a run with the same
            model, data, parent and settings continues from there.
        should_stop: asked before every step; a reason ends the run early.
        on_step: told about every finished step.
        runtime: threads and memory.
        interrupt: lets another thread end the run within a step.

    Raises:
        NoExamplesError: `examples` is empty.
        DivergedError: a loss or gradient is not finite.
        NothingLearntError: all steps were done and the adapter did not move.
        FormatError: the adapter does not match the layout.
        EngineUnavailableError: the train graph does not load or take the adapter.
    """
    if not examples:
        raise NoExamplesError("there are no examples to train on; add data, or lower the held-out fraction")
    slots.layout.check(adapter)
    runtime = runtime or RuntimeSettings()
    interrupt = interrupt or Interrupt()
    state = _State(slots.to_vector(adapter), settings)
    live = _Live(adapter, slots, state.parameters)
    graph = TrainGraph(package, slots=slots, adapter=live.tensors, runtime=runtime, interrupt=interrupt)
    order = BatchOrder([example.length for example in examples], settings.batch_size, settings.seed)
    run = _fingerprint(package, repr((slots, astuple(settings), runtime)), adapter, examples)
    if checkpoint_directory is not None:
        state.resume(checkpoint_directory, run)
        live.refresh()
    stopped: str | None = None
    for step in range(state.steps_done, settings.steps):
        stopped = interrupt.reason or should_stop()
        if stopped is not None:
            break
        chosen = [examples[index] for index in order.indices(step)]
        result = graph.gradient(chosen, settings.micro_batch_size)
        if result is None:
            stopped = interrupt.reason
            break
        state.advance(*result, tokens=sum(example.length for example in chosen))
        live.refresh()
        if on_step is not None:
            on_step(Progress(step + 1, settings.steps, result[0], state.tokens))
        due = settings.checkpoint_every > 0 and (step + 1) % settings.checkpoint_every == 0
        if due and checkpoint_directory is not None:
            state.save(checkpoint_directory, run)
    if stopped is not None and checkpoint_directory is not None:
        state.save(checkpoint_directory, run)
    if stopped is None and not state.has_moved:
        raise NothingLearntError(
            f"{settings.steps} steps left the adapter as it was; check the learning rate "
            f"({settings.learning_rate:g}) and that the parent adapter suits side {slots.side.value!r}"
        )
    return state.outcome({name: live.tensors[name].copy() for name in slots.layout.shapes()}, stopped)


class _Live:
    """The adapter that the graph reads: the parent's, with the parameters in the place of what is trained."""

    def __init__(self, adapter: Tensors, slots: TrainedSlots, parameters: Vector) -> None:
        self._narrow = slots.narrow.from_vector(parameters, slots.side)
        self._shares_memory = slots.are_all
        if slots.are_all:
            self.tensors = {**adapter, **self._narrow}
        else:
            self.tensors = {**adapter, **{name: adapter[name].copy() for name in self._narrow}}
            self._trained = slots.of(self.tensors)

    def refresh(self) -> None:
        """Take over the parameters as they are now."""
        if not self._shares_memory:
            for name, part in self._trained.items():
                part[...] = self._narrow[name]


class _State:
    """The moving part of a run: parameters, optimiser and what was counted."""

    def __init__(self, start: Vector, settings: TrainingSettings) -> None:
        self._start = start
        self._settings = settings
        self._optimiser = AdamW(len(start), weight_decay=settings.weight_decay)
        self._losses: list[float] = []
        self.parameters = start.copy()
        self.tokens = 0

    @property
    def steps_done(self) -> int:
        return len(self._losses)

    @property
    def has_moved(self) -> bool:
        return not np.array_equal(self.parameters, self._start)

    def advance(self, loss: float, gradient: Vector, *, tokens: int) -> None:
        """Does one optimiser step.

        Raises:
            DivergedError: the loss or the gradient is not finite.
        """
        settings = self._settings
        if settings.proximal:
            gradient += np.float32(settings.proximal) * (self.parameters - self._start)
        norm = clip_to_norm(gradient, settings.clip_norm)
        if not (math.isfinite(loss) and math.isfinite(norm)):
            raise DivergedError(
                f"step {self.steps_done + 1} of {settings.steps}: loss {loss}, gradient norm {norm}; "
                f"lower the learning rate ({settings.learning_rate:g}) or the gradient clip norm"
            )
        rate = settings.schedule.rate(settings.learning_rate, self.steps_done, settings.steps)
        self._optimiser.update(self.parameters, gradient, rate)
        self._losses.append(loss)
        self.tokens += tokens

    def save(self, directory: Path, run: bytes) -> None:
        moments = self._optimiser.mean, self._optimiser.square
        state = Checkpoint(self.parameters, *moments, np.array(self._losses), self.tokens)
        checkpoints.save(directory, run, state)

    def resume(self, directory: Path, run: bytes) -> None:
        saved = checkpoints.load(directory, run, len(self.parameters))
        if saved is not None:
            saved.restore(self._optimiser, self.parameters)
            self._losses, self.tokens = saved.losses.tolist(), saved.tokens

    def outcome(self, adapter: dict[str, NDArray[np.float32]], stopped: str | None) -> TrainingOutcome:
        losses = self._losses or [math.nan]
        return TrainingOutcome(
            adapter=adapter,
            steps_done=self.steps_done,
            mean_loss=float(np.mean(losses)),
            last_loss=losses[-1],
            tokens=self.tokens,
            stopped=stopped,
            losses=tuple(self._losses),
        )


def _fingerprint(package: ModelPackage, description: str, adapter: Tensors, examples: Sequence[TokenExample]) -> bytes:
    """SHA-256 over everything that the course of a run depends on."""
    digest = hashlib.sha256(package.package_id)
    digest.update(repr((description, np.__version__, runtime_version())).encode())
    for name in sorted(adapter):
        digest.update(adapter[name].tobytes())
    for example in examples:
        digest.update(example.tokens.tobytes() + b"/" + example.answer.tobytes() + b"/")
    return digest.digest()
