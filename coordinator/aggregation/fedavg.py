"""Federated averaging on opened sums (McMahan et al. 2017, algorithm 1).

Each cohort's sum is decoded by its own plan; `combined` is the one place where the
cohorts of a round meet. Sums are added in the clear: each hides its own contributors already.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from coordinator.aggregation.server_optimisers import ServerMemory, ServerOptimiser
from nightshift.protocol.adapters.layout import AdapterLayout, Side, Tensors
from nightshift.protocol.errors import UsageError
from nightshift.protocol.secagg.encoding import OpenedSum


@dataclass(frozen=True, slots=True)
class CohortSum:
    """What one cohort learned, and what the numbers mean.

    Attributes:
        layout: of the adapter that its plan trained.
        side: which factors.
        opened: the decoded sum.
    """

    layout: AdapterLayout
    side: Side
    opened: OpenedSum


def combined(sums: Sequence[CohortSum]) -> CohortSum:
    """The cohorts of a round as one: weighted deltas, weights, metrics and contributors added up, in this order.

    Raises:
        UsageError: no sum, or sums of different shapes, sides or metrics.
    """
    if not sums:
        raise UsageError("a round without an opened cohort has no sum")
    first = sums[0]
    for other in sums[1:]:
        if (other.layout, other.side, other.opened.metrics.keys()) != (
            first.layout,
            first.side,
            first.opened.metrics.keys(),
        ):
            raise UsageError("the cohorts of a round trained different adapters; their sums cannot be added")
    total = first.opened.weighted_delta.copy()
    for other in sums[1:]:
        total += other.opened.weighted_delta
    return CohortSum(
        first.layout,
        first.side,
        OpenedSum(
            weighted_delta=total,
            weight=sum(each.opened.weight for each in sums),
            metrics={name: sum(each.opened.metrics[name] for each in sums) for name in first.opened.metrics},
            contributors=sum(each.opened.contributors for each in sums),
        ),
    )


def mean_delta(opened: OpenedSum) -> NDArray[np.float32]:
    """The weighted mean of the deltas: float32[D].

    Devices sent weight * delta and weight inside the encrypted sum, so the
    quotient is the mean over examples without anybody's count being known.
    """
    return (opened.weighted_delta / opened.weight).astype(np.float32)


def means(opened: OpenedSum) -> dict[str, float]:
    """What a sum says beside its delta: the weight in all, and each metric's mean over the contributors."""
    return {"weight": opened.weight} | {name: total / opened.contributors for name, total in opened.metrics.items()}


def next_adapter(
    parent: Tensors, learned: CohortSum, server: ServerOptimiser, memory: ServerMemory | None
) -> tuple[dict[str, NDArray[np.float32]], ServerMemory | None]:
    """The parent adapter moved on the side that the plans trained, by what the server makes of the mean delta.

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
    step, remembered = server.step(mean_delta(learned.opened), memory)
    return learned.layout.with_delta(parent, step, learned.side), remembered
