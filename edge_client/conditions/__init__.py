"""When a pass may run on its own: readings with value, source and "unknown".

`checklist` says which conditions are asked when, the other modules read one
kind of sensor each, and `watch` reads on while training runs.
"""

from __future__ import annotations

from collections.abc import Iterable

from edge_client.conditions.reading import Condition, Reading, Verdict
from nightshift.protocol.errors import DeclinedError

__all__ = ["Condition", "Reading", "Verdict", "require"]


def require(readings: Iterable[Reading], *, advice: str) -> None:
    """Go on only where no condition says no; those that are unknown do not block.

    Args:
        readings: of all conditions.
        advice: what the owner can do beside changing what is said no to.

    Raises:
        DeclinedError: names each condition that says no, its value and its sensor.
    """
    blocking = [reading for reading in readings if reading.verdict is Verdict.NO]
    if blocking:
        said = "; ".join(
            f"{reading.reason} [{reading.name} = {reading.value}, {reading.source}]" for reading in blocking
        )
        raise DeclinedError(f"not now: {said}" + (f". {advice}" if advice else ""))
