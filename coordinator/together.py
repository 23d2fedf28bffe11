"""Threads that want the same done at the same time: one of them does it for all that wait (flat combining).

Hendler, Incze, Shavit and Tzafrir (SPAA 2010): whoever gets the lock finds the others' wishes beside its own and
grants them all; the others find theirs granted when their turn comes.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from coordinator.locks import KeyedLocks

T = TypeVar("T")
Outcome = Exception | None
"""Of one item: what its thread raises, or None if it was done."""


@dataclass(eq=False, slots=True)
class _Asked(Generic[T]):
    item: T
    done: bool = False
    outcome: Outcome = None


class Together(Generic[T]):
    """Items that are done a few at a time, in the order in which they came, for one key by one thread at a time.

    Args:
        most: items done at once.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._locks = KeyedLocks()
        self._guard = threading.Lock()
        self._waiting: dict[bytes, deque[_Asked[T]]] = {}

    def ask(self, key: bytes, item: T, work: Callable[[Sequence[T]], Sequence[Outcome]]) -> None:
        """Return when the item was done, by this thread or by another.

        Args:
            key: items of different keys are done independently.
            item: what is to be done.
            work: does several items, and says for each how it ended; what it raises is the outcome of all of them.

        Raises:
            Exception: the item's outcome.
        """
        mine = _Asked(item)
        with self._guard:
            self._waiting.setdefault(key, deque()).append(mine)
        with self._locks.holding("together", key):
            while not mine.done:
                self._do(self._next(key), work)
        if mine.outcome is not None:
            raise mine.outcome

    def waiting(self, key: bytes) -> int:
        """Items of a key that no thread has begun with."""
        with self._guard:
            return len(self._waiting.get(key, ()))

    def _next(self, key: bytes) -> list[_Asked[T]]:
        with self._guard:
            waiting = self._waiting[key]
            taken = [waiting.popleft() for _ in range(min(self._most, len(waiting)))]
            if not waiting:
                del self._waiting[key]
        return taken

    @staticmethod
    def _do(taken: Sequence[_Asked[T]], work: Callable[[Sequence[T]], Sequence[Outcome]]) -> None:
        try:
            outcomes = work([asked.item for asked in taken])
        except Exception as error:  # noqa: BLE001 - every thread that asked raises it
            outcomes = [error] * len(taken)
        for asked, outcome in zip(taken, outcomes, strict=True):
            asked.outcome, asked.done = outcome, True
