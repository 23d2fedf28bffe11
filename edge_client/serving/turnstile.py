"""One at a time, in the order of arrival, and a limit on how many may wait."""

from __future__ import annotations

import asyncio
from collections import deque


class TurnstileFullError(Exception):
    """As many wait as may wait."""


class Place:
    """A place in the queue; leave it exactly when the work is over or given up."""

    def __init__(self, queue: deque[Place]) -> None:
        self._queue = queue
        self._called = asyncio.Event()

    async def turn(self) -> None:
        """Waits until everybody before has left."""
        await self._called.wait()

    def call(self) -> None:
        """It is this place's turn."""
        self._called.set()

    def leave(self) -> None:
        """Frees the place and calls the next; safe to call twice."""
        if self not in self._queue:
            return
        self._queue.remove(self)
        if self._queue:
            self._queue[0].call()


class Turnstile:
    """A first-in, first-out queue for one asyncio event loop.

    Args:
        waiting_limit: most that may wait behind the one whose turn it is.
    """

    def __init__(self, waiting_limit: int) -> None:
        self._limit = waiting_limit
        self._queue: deque[Place] = deque()

    @property
    def waiting(self) -> int:
        """How many wait."""
        return max(0, len(self._queue) - 1)

    @property
    def running(self) -> bool:
        """Whether somebody has the turn."""
        return bool(self._queue)

    def enter(self) -> Place:
        """Takes the last place.

        Raises:
            TurnstileFullError: there is none left.
        """
        if len(self._queue) > self._limit:
            raise TurnstileFullError
        place = Place(self._queue)
        self._queue.append(place)
        self._queue[0].call()
        return place
