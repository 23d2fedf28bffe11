"""One thread at a time for one key, such as a cohort whose sum is being extended."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager


class KeyedLocks:
    """Locks that exist while somebody holds or awaits them.

    They only spare this process double work; that nothing is counted twice is
    decided by the database, which other processes also ask.
    """

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._locks: dict[tuple[str, bytes], tuple[threading.Lock, int]] = {}

    @contextmanager
    def holding(self, purpose: str, key: bytes) -> Iterator[None]:
        """Wait for the key's lock, and hold it for the length of a block."""
        with self._guard:
            lock, users = self._locks.get((purpose, key), (threading.Lock(), 0))
            self._locks[purpose, key] = (lock, users + 1)
        try:
            with lock:
                yield
        finally:
            with self._guard:
                lock, users = self._locks[purpose, key]
                if users == 1:
                    del self._locks[purpose, key]
                else:
                    self._locks[purpose, key] = (lock, users - 1)
