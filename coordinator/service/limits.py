"""How often, and how much at once, one caller may ask: token buckets and a count of calls under way.

Both tables are bounded. Whoever floods them with keys of its own pushes out
the keys that were quiet longest, which had nothing left to wait for.
"""

from __future__ import annotations

import threading
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Hashable

MOST_KEYS = 10_000


class TokenBuckets:
    """One bucket for each key: a call takes a token, and tokens drip back at a steady rate.

    Args:
        per_minute: tokens that come back in a minute.
        burst: tokens of a full bucket.
        monotonic: seconds that only grow; for tests.
    """

    def __init__(self, *, per_minute: int, burst: int, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._rate_per_s = per_minute / 60
        self._burst = float(burst)
        self._monotonic = monotonic
        self._guard = threading.Lock()
        self._buckets: OrderedDict[Hashable, tuple[float, float]] = OrderedDict()

    def take(self, key: Hashable) -> float:
        """Take a token: 0.0, or the seconds until there is one again."""
        now_s = self._monotonic()
        with self._guard:
            tokens, then_s = self._buckets.pop(key, (self._burst, now_s))
            tokens = min(self._burst, tokens + (now_s - then_s) * self._rate_per_s)
            allowed = tokens >= 1.0
            self._buckets[key] = (tokens - 1.0 if allowed else tokens, now_s)
            if len(self._buckets) > MOST_KEYS:
                self._buckets.popitem(last=False)
        return 0.0 if allowed else (1.0 - tokens) / self._rate_per_s


class CallsUnderWay:
    """How many calls each key has under way, never more than a few.

    Args:
        at_once: most calls of one key.
    """

    def __init__(self, at_once: int) -> None:
        self._at_once = at_once
        self._guard = threading.Lock()
        self._counts: Counter[Hashable] = Counter()

    def enter(self, key: Hashable) -> bool:
        """Count a call in, unless its key has as many as it may have."""
        with self._guard:
            if self._counts[key] >= self._at_once:
                return False
            self._counts[key] += 1
            return True

    def leave(self, key: Hashable) -> None:
        """Count it out."""
        with self._guard:
            self._counts[key] -= 1
            if self._counts[key] <= 0:
                del self._counts[key]
