"""What a sensor says about running now: yes, no, or nothing."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Protocol


class Verdict(Enum):
    """What a reading means for tonight.

    A sensor that is absent reads UNKNOWN: it never blocks, and it is always shown.
    """

    OK = "ok"
    NO = "no"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Reading:
    """One condition, read once.

    Attributes:
        name: of the condition: "power".
        value: for people, with its unit.
        source: which sensor says so.
        verdict: whether a pass may run.
        reason: why not, and what would change it; empty unless NO.
    """

    name: str
    value: str
    source: str
    verdict: Verdict
    reason: str = ""


class Condition(Protocol):
    """Something that must be so before a pass runs on its own."""

    def read(self) -> Reading:
        """Look once; must not raise for an absent sensor."""
        ...
