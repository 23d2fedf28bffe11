"""The numbers that every device adds to the sum beside its delta: their names, and how large each may be.

A limit is part of the encoding (`secagg.encoding`): the resolution is limit / 2^32, and one contributor who
lies moves a sum by the limit at most, as long as it stays in its own slots. So no limit is larger than honest
values want.
Devices report only sums over n_min of them or more; no number of one device leaves it in the clear.
"""

from __future__ import annotations

from collections.abc import Iterable
from types import MappingProxyType
from typing import Final

LOSS_BEFORE: Final = "loss_before"
LOSS_AFTER: Final = "loss_after"
LOSS_SERVED: Final = "loss_served"
TOKENS: Final = "tokens"
BETTER: Final = "better"
DEVICES_BETTER: Final = "devices_better"
ROLLED_BACK: Final = "rolled_back"

LOSS_LIMIT = 16.0
"""Nats per answer token. Guessing evenly among 262,144 tokens, the largest vocabulary in use, costs 12.5."""

DEFAULT_LIMIT = float(1 << 20)

LIMITS = MappingProxyType(
    {
        LOSS_BEFORE: LOSS_LIMIT,
        LOSS_AFTER: LOSS_LIMIT,
        LOSS_SERVED: LOSS_LIMIT,
        TOKENS: DEFAULT_LIMIT,
        BETTER: 1.0,
        DEVICES_BETTER: 1.0,
        ROLLED_BACK: 1.0,
    }
)
"""Name -> largest value; docs/protocol.md says what each means. A name that is not here has the default limit."""

ALWAYS = (LOSS_BEFORE, LOSS_AFTER, TOKENS, ROLLED_BACK)
"""What every plan asks for."""

COMPARING = (LOSS_SERVED, BETTER, DEVICES_BETTER)
"""What a plan asks for beside it whose parent is not yet what devices serve."""


def limits_of(names: Iterable[str]) -> tuple[float, ...]:
    """The largest value of each of these metrics."""
    return tuple(LIMITS.get(name, DEFAULT_LIMIT) for name in names)
