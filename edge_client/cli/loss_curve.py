"""A loss curve in one line of text."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

BARS = "▁▂▃▄▅▆▇█"
MOST_POINTS = 60


def thinned(losses: Sequence[float], points: int = MOST_POINTS) -> list[float]:
    """The means of at most `points` equal stretches of a run, in order.

    Args:
        losses: loss of every step.
        points: stretches; no more than there are steps.
    """
    points = min(points, len(losses))
    edges = [len(losses) * index // points for index in range(points + 1)] if points else []
    return [sum(losses[start:end]) / (end - start) for start, end in itertools.pairwise(edges)]


def sparkline(values: Sequence[float]) -> str:
    """One bar for each value, from the lowest to the highest of them."""
    low, high = min(values), max(values)
    if low == high:
        return BARS[0] * len(values)
    return "".join(BARS[round((value - low) / (high - low) * (len(BARS) - 1))] for value in values)
