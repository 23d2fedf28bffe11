"""Federated averaging on opened sums (McMahan et al. 2017, algorithm 1), rank slot by rank slot.

Each cohort's sum is decoded by its own plan; `combined` is the one place where the
cohorts of a round meet. Sums are added in the clear: each hides its own contributors already.

Cohorts of a round may train more or fewer rank slots (`nightshift.protocol.adapters.slots`). The mean is over all
devices of the round, and one that did not train a slot counts as no change to it: the zero padding of HetLoRA (Cho
et al., EMNLP 2024), but of changes, and without that paper's weights by norm, which need each device's update in the
clear. So a few strong devices move the slots that they alone train by their share of the round, not by their whole
step. docs/adr/0011 says what was measured of it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from coordinator.aggregation.server_optimisers import ServerMemory, ServerOptimiser
from nightshift.protocol.adapters.layout import AdapterLayout, Side, Tensors
from nightshift.protocol.adapters.slots import TrainedSlots
from nightshift.protocol.errors import UsageError
from nightshift.protocol.secagg.encoding import OpenedSum


@dataclass(frozen=True, slots=True)
class CohortSum:
    """What one cohort learned, and what the numbers mean.

    Attributes:
        slots: of which adapter its plan trained what.
        opened: the decoded sum; its delta is over those slots.
    """

    slots: TrainedSlots
    opened: OpenedSum


@dataclass(frozen=True, slots=True, eq=False)
class RoundSum:
    """What the cohorts of a round learned together.

    Attributes:
        layout: of the whole adapter.
        side: which matrices were trained.
        mean_delta: float32[D], D = layout.vector_length(side): the weighted mean over all devices of
            their changes, 0 in the slots that a device did not train.
        trained: bool[D], which values somebody trained.
        weight: the sum of all contributors' weights.
        metrics: name -> the plain sum over all contributors.
        contributors: of all cohorts.
    """

    layout: AdapterLayout
    side: Side
    mean_delta: NDArray[np.float32]
    trained: NDArray[np.bool_]
    weight: float
    metrics: dict[str, float]
    contributors: int


def combined(sums: Sequence[CohortSum]) -> RoundSum:
    """The cohorts of a round as one.

    Devices sent weight * delta and weight inside the encrypted sum, so the quotient is the
    mean over examples without anybody's count being known.

    Raises:
        UsageError: no sum, or sums of different adapters, sides or metrics.
    """
    if not sums:
        raise UsageError("a round without an opened cohort has no sum")
    layout, side, names = _meaning(sums[0])
    if any(_meaning(other) != (layout, side, names) for other in sums[1:]):
        raise UsageError("the cohorts of a round trained different adapters; their sums cannot be added")
    total = np.zeros(layout.vector_length(side), dtype=np.float32)
    for each in sums:
        total += each.slots.spread(each.opened.weighted_delta)
    weight = sum(each.opened.weight for each in sums)
    # Slots are nested: what anybody trained, the cohort of the largest rank trained.
    widest = max((each.slots for each in sums), key=lambda slots: slots.rank)
    return RoundSum(
        layout=layout,
        side=side,
        mean_delta=total / np.float32(weight),
        trained=widest.spread(np.ones(widest.length, dtype=np.float32)) > 0,
        weight=weight,
        metrics={name: sum(each.opened.metrics[name] for each in sums) for name in sums[0].opened.metrics},
        contributors=sum(each.opened.contributors for each in sums),
    )


def _meaning(each: CohortSum) -> tuple[AdapterLayout, Side, frozenset[str]]:
    return each.slots.layout, each.slots.side, frozenset(each.opened.metrics)


class Totals(Protocol):
    """What a cohort's sum and a round's have in common beside the delta."""

    @property
    def weight(self) -> float:
        """The sum of the weights."""

    @property
    def metrics(self) -> Mapping[str, float]:
        """Name -> the plain sum over contributors."""

    @property
    def contributors(self) -> int:
        """How many."""


def means(totals: Totals) -> dict[str, float]:
    """What a sum says beside its delta: the weight in all, and each metric's mean over the contributors."""
    return {"weight": totals.weight} | {name: total / totals.contributors for name, total in totals.metrics.items()}


def next_adapter(
    parent: Tensors, learned: RoundSum, server: ServerOptimiser, memory: ServerMemory | None
) -> tuple[dict[str, NDArray[np.float32]], ServerMemory | None]:
    """The parent adapter moved where the plans trained it, by what the server makes of the mean delta.

    Args:
        parent: the adapter that devices started from.
        learned: the round's sum.
        server: the task's optimiser.
        memory: of this side, from the parent release.

    Returns:
        The adapter, and this side's memory after it.

    Raises:
        FormatError: a value is not finite.
    """
    step, remembered = server.step(learned.mean_delta, memory, trained=learned.trained)
    return learned.layout.with_delta(parent, step, learned.side), remembered
