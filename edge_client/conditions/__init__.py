"""When a pass may run on its own: readings with value, source and "unknown"."""

from __future__ import annotations

from collections.abc import Iterable

from edge_client.conditions.reading import Condition, Reading, Verdict
from nightshift.protocol.errors import DeclinedError

__all__ = ["Condition", "Reading", "Verdict", "require"]


def require(conditions: Iterable[Condition]) -> list[Reading]:
    """Read every condition.

    Returns:
        The readings; those that are unknown do not block.

    Raises:
        DeclinedError: names each condition that says no, its value and its sensor.
    """
    readings = [condition.read() for condition in conditions]
    blocking = [reading for reading in readings if reading.verdict is Verdict.NO]
    if blocking:
        raise DeclinedError(
            "not now: "
            + "; ".join(
                f"{reading.reason} [{reading.name} = {reading.value}, {reading.source}]" for reading in blocking
            )
            + ". `edge-client run --now` skips these conditions"
        )
    return readings
