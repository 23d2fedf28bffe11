"""What a sensor says about running now: yes, no, or nothing."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Protocol

from nightshift.host.wording import fact


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

    def to_json(self) -> dict[str, str]:
        """For programs."""
        return {
            "name": self.name,
            "value": self.value,
            "source": self.source,
            "verdict": self.verdict.value,
            "reason": self.reason,
        }

    def __str__(self) -> str:
        return fact(self.name, f"{self.value} ({self.verdict.value}, {self.source})")

    @classmethod
    def judged(cls, name: str, value: str, source: str, *, reason: str) -> Reading:
        """A sensor that spoke: no, for this reason; yes if there is none."""
        return cls(name, value, source, Verdict.NO if reason else Verdict.OK, reason)

    @classmethod
    def unknown(cls, name: str, source: str, *, value: str = "unknown") -> Reading:
        """A sensor that is absent, or says nothing of use; `source` says where it was looked for."""
        return cls(name, value, source, Verdict.UNKNOWN)


class Condition(Protocol):
    """Something that must be so before a pass runs on its own."""

    def read(self) -> Reading:
        """Look once; must not raise for an absent sensor."""
        ...
