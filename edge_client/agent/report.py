"""What a pass did, for people, for programs and for the exit status."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from edge_client.conditions.reading import Reading, Verdict
from nightshift.protocol.errors import ExitCode, NightshiftError

SEVERITY = (
    ExitCode.VERIFICATION_FAILED,
    ExitCode.REVOKED,
    ExitCode.INCOMPATIBLE,
    ExitCode.NO_SPACE,
    ExitCode.INTERNAL,
    ExitCode.USAGE,
    ExitCode.PARTIAL,
    ExitCode.UNREACHABLE,
    ExitCode.NOT_NOW,
)
"""Exit codes that a pass can end with, gravest first."""


@dataclass(frozen=True, slots=True)
class Problem:
    """Something that went wrong in a pass."""

    reason: str
    message: str
    exit_code: int


@dataclass(slots=True)
class PassReport:
    """What a pass did.

    Attributes:
        sent: rounds whose contribution was acknowledged: "task/round".
        answered: cohorts that were answered, hex.
        refused: cohorts with a contributor's share that could not be used, which was said instead, hex.
        laid_to_rest: void cohorts that were stated never to have been answered, hex.
        adopted: adapters that came in use: "task/number".
        kept_back: adapters that are served but worse on this device's own text: "task/number".
        would: in a dry run, what would be done.
        notes: beside the outcome.
        problems: what failed.
        next_check_in: RFC 3339; before it nothing new is expected.
        conditions: as they were read; empty with `--now`, but for the clock.
        waiting_until: RFC 3339; the timer's pass did not connect, because nothing is expected before.
    """

    sent: list[str] = field(default_factory=list)
    answered: list[str] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    laid_to_rest: list[str] = field(default_factory=list)
    adopted: list[str] = field(default_factory=list)
    kept_back: list[str] = field(default_factory=list)
    would: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    next_check_in: str | None = None
    conditions: list[Reading] = field(default_factory=list)
    waiting_until: str | None = None

    def add_problem(self, error: NightshiftError) -> None:
        """A step failed."""
        self.problems.append(Problem(error.reason, str(error), int(error.exit_code)))

    @property
    def exit_code(self) -> ExitCode:
        """The gravest problem's, or OK."""
        codes = {problem.exit_code for problem in self.problems}
        return next((code for code in SEVERITY if int(code) in codes), ExitCode.OK)

    @property
    def achieved(self) -> list[str]:
        """What was done, or in a dry run would be, a sentence each."""
        return [
            *(f"contributed to {name}" for name in self.sent),
            *(f"answered for cohort {cohort[:16]}" for cohort in self.answered),
            *(f"reported unusable shares in cohort {cohort[:16]}" for cohort in self.refused),
            *(f"laid void cohort {cohort[:16]} to rest" for cohort in self.laid_to_rest),
            *(f"adopted {name}" for name in self.adopted),
            *(f"did not keep {name}, which is worse here" for name in self.kept_back),
            *self.would,
        ]

    @property
    def summary(self) -> str:
        """One line for people."""
        failed = [f"failed: {problem.message}" for problem in self.problems]
        return "; ".join([*self.achieved, *failed]) or self.nothing

    @property
    def nothing(self) -> str:
        """Why nothing was done, where nothing went wrong."""
        return "nothing was due" if self.waiting_until is None else f"nothing is due before {self.waiting_until}"

    @property
    def unknown(self) -> list[str]:
        """The conditions whose sensors said nothing."""
        return [f"{r.name}: unknown ({r.source})" for r in self.conditions if r.verdict is Verdict.UNKNOWN]

    def to_json(self) -> dict[str, Any]:
        """For programs."""
        conditions = [reading.to_json() for reading in self.conditions]
        return {
            **asdict(self),
            "conditions": conditions,
            "exit_code": int(self.exit_code),
            "summary": self.summary,
        }
