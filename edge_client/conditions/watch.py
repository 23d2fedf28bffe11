"""Conditions that are read again and again while training runs."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from edge_client.conditions.reading import Condition, Verdict

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
        self._asked_s: float | None = None
        self._reason: str | None = None

    def __call__(self) -> str | None:
        """The reason to stop; None goes on. The first reason stays."""
        now_s = self._asked_s = self._monotonic_s()
        if self._reason is None and now_s >= self._next_s:
            self._next_s = now_s + INTERVAL_S
            readings = (condition.read() for condition in self._conditions)
            stopping = next((reading for reading in readings if reading.verdict is Verdict.NO), None)
            if stopping is not None:
                self._reason = f"{stopping.reason} [{stopping.name} = {stopping.value}, {stopping.source}]"
        return self._reason

    def request(self, reason: str) -> bool:
        """Stop for another reason than a sensor's.

        Returns:
            Whether somebody asked within the last interval, and so will hear of it.
        """
        self._reason = self._reason or reason
        return self._asked_s is not None and self._monotonic_s() - self._asked_s < INTERVAL_S
