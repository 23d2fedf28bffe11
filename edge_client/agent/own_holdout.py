"""Two adapters on this device's own hold-out, measured in the training process with its limits.

The hold-out is text that this device never trains on, so it tells whether an adapter is good *here*, whatever
it is elsewhere.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from edge_client import policy
from edge_client.agent import local_training
from edge_client.agent.session import Session
from nightshift.protocol.errors import IncompatibleError, NightshiftError, NotFoundError

if TYPE_CHECKING:
    from nightshift.packages.package import ModelPackage

LONGEST_EXAMPLE = 256
"""Tokens; of one example where the owner sets no limit. The same for both adapters."""

FEWEST_EXAMPLES = 4
"""Held-out examples below which a difference says nothing."""

NEW, OLD = "new", "old"


@dataclass(frozen=True, slots=True)
class Losses:
    """Mean loss on the hold-out under two adapters, nats per answer token; None where the hold-out cannot tell."""

    new: float | None
    old: float | None
    examples: int

    def worse_by_more_than(self, nats: float) -> bool:
        """Whether the new one is worse by so much; what cannot be told is not worse."""
        return self.new is not None and self.old is not None and self.new > self.old + nats


def can_compare(session: Session, base_model: bytes) -> bool:
    """Whether there is text to measure on and a model to measure with, without looking closely at either."""
    return (
        session.configuration.training.enabled
        and bool(session.store.records.sources())
        and session.packages.folder(base_model).is_dir()
    )


def compare(session: Session, task: str, base_model: bytes, *, new: bytes, old: bytes) -> Losses | None:
    """Measure two adapters; None where that may work another time.

    Args:
        session: of the pass.
        task: says which of the owner's sources may be used.
        base_model: id of the package both adapters belong to.
        new: safetensors bytes of one adapter.
        old: safetensors bytes of the other.
    """
    try:
        package = session.packages.open(base_model, verify=True)
        package.manifest.require_training()
        losses, examples = _measure(session, package, task, {NEW: new, OLD: old})
    except (NotFoundError, IncompatibleError):
        return None
    except NightshiftError as error:
        # Not again at every pass: it takes minutes on a small machine, and would most likely fail again.
        session.notes.append(f"the adapters of task {task!r} could not be compared on this device's own text: {error}")
        return Losses(None, None, 0)
    if 0 < examples < FEWEST_EXAMPLES:
        return Losses(None, None, examples)
    return Losses(losses[NEW], losses[OLD], examples) if losses.keys() == {NEW, OLD} else None


def _measure(
    session: Session, package: ModelPackage, task: str, adapters: Mapping[str, bytes]
) -> tuple[dict[str, float], int]:
    """Name -> mean loss, and how many examples they were measured on; empty if the measuring was stopped."""
    from edge_client.engines.sessions import RuntimeSettings
    from edge_client.training.exchange import ChildRequest
    from edge_client.training.settings import TrainingSettings
    from edge_client.training.supervise import train_in_child
    from nightshift.protocol.adapters import Side

    limits = session.configuration.training
    allowed = [
        source
        for source in session.store.records.sources()
        if policy.accepts_source(session.configuration.policy, task, source.path)
    ]
    directory = session.home.training / "comparison"
    request = ChildRequest(
        package_directory=package.directory,
        adapter=adapters[OLD],
        side=Side.BOTH,
        settings=TrainingSettings(steps=1, max_tokens=local_training.longest_example(limits, LONGEST_EXAMPLE)),
        sources=tuple(local_training.usable_sources(allowed, session.notes)),
        held_out_fraction=local_training.HELD_OUT_FRACTION,
        compare=adapters,
        measure_only=True,
        runtime=RuntimeSettings(threads=limits.threads),
        memory_limit_bytes=limits.memory_ceiling_mb * 2**20,
        time_limit_s=float(limits.time_ceiling_s),
        jemalloc=limits.jemalloc,
        trim_malloc=limits.trim_malloc,
    )
    try:
        result = train_in_child(request, directory, should_stop=session.should_stop)
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    return {name: loss.mean for name, loss in result.held_out_losses.items() if name in adapters}, result.held_out
