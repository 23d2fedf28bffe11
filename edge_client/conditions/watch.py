"""Conditions that are read again and again while training runs."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from edge_client.conditions.reading import Condition, Reading, Verdict

INTERVAL_S = 1.0


class Watch:
    """Asked all the time why training should stop; looks at the sensors once a second.

    With `training.supervise.STOP_WITHIN_S` this keeps fault 7: a second to notice, four to end at a checkpoint.

    Args:
        conditions: to watch.
        monotonic_s: the time since some moment.
    """

    def __init__(self, conditions: Sequence[Condition], monotonic_s: Callable[[], float] = time.monotonic) -> None:
        self._conditions = conditions
        self._monotonic_s = monotonic_s
        self._next_s = monotonic_s()
        self.stopped_by: Reading | None = None

    def __call__(self) -> str | None:
        """The reason to stop; None goes on. The first reason stays."""
        if self.stopped_by is None and self._monotonic_s() >= self._next_s:
            self._next_s = self._monotonic_s() + INTERVAL_S
            readings = (condition.read() for condition in self._conditions)
            self.stopped_by = next((reading for reading in readings if reading.verdict is Verdict.NO), None)
        return None if self.stopped_by is None else self.stopped_by.reason
