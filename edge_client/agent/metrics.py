"""The numbers that this device adds to a sum beside its delta; nobody sees them but summed up over the cohort.

What each means is said in docs/protocol.md, how large it may be in `nightshift.protocol.metrics`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from nightshift.protocol.errors import DeclinedError, IncompatibleError
from nightshift.protocol.metrics import (
    BETTER,
    DEVICES_BETTER,
    LOSS_AFTER,
    LOSS_BEFORE,
    LOSS_SERVED,
    ROLLED_BACK,
    TOKENS,
)

if TYPE_CHECKING:
    from edge_client.training.exchange import ChildResult
    from nightshift.protocol.plan import PlanDocument

SERVED = "served"
"""Under this name the training process measures what devices serve (`exchange.ChildRequest.compare`)."""


@dataclass(frozen=True, slots=True)
class Night:
    """What the metrics are made of.

    Attributes:
        result: of the training process.
        weight: of this device in the sum, 1/8 to 1.
        rolled_back: whether this device keeps another adapter than the served one, which is worse on its own hold-out.
    """

    result: ChildResult
    weight: float
    rolled_back: bool

    def loss(self, name: str) -> float:
        """Mean loss on the hold-out under an adapter, nats per answer token."""
        return self.result.held_out_losses[name].mean

    @property
    def better(self) -> bool:
        """Whether the plan's parent is better here than what devices serve."""
        return self.loss("parent") < self.loss(SERVED)


_KNOWN: Mapping[str, Callable[[Night], float]] = {
    LOSS_BEFORE: lambda night: night.loss("parent"),
    LOSS_AFTER: lambda night: night.loss("trained"),
    LOSS_SERVED: lambda night: night.loss(SERVED),
    TOKENS: lambda night: night.result.outcome.tokens / 1000,
    BETTER: lambda night: night.weight if night.better else 0.0,
    DEVICES_BETTER: lambda night: float(night.better),
    ROLLED_BACK: lambda night: float(night.rolled_back),
}


def require_known(document: PlanDocument) -> None:
    """Refuse a plan that asks for more than this build measures; before anything is trained.

    Raises:
        IncompatibleError: names the metric.
    """
    unknown = [name for name in document.vector.metrics if name not in _KNOWN]
    if unknown:
        raise IncompatibleError(
            f"the plan asks for the metric {unknown[0]!r}, this build knows {', '.join(_KNOWN)}; upgrade edge-client"
        )


def measured(document: PlanDocument, night: Night) -> dict[str, float]:
    """What the plan asks for, each within its limit.

    Raises:
        DeclinedError: a value is not finite.
    """
    values = {}
    for name, limit in zip(document.vector.metrics, document.vector.limits, strict=True):
        value = _KNOWN[name](night)
        if not math.isfinite(value):
            raise DeclinedError(f"the metric {name!r} came out as {value}; nothing was sent")
        values[name] = min(max(value, 0.0), limit)
    return values
