"""One line of a check-up."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum

from nightshift.protocol.errors import ExitCode, NightshiftError


class Grade(Enum):
    """How a check came out."""

    OK = "ok"
    UNKNOWN = "unknown"
    WARNING = "warning"
    PROBLEM = "problem"


@dataclass(frozen=True, slots=True)
class Finding:
    """What a check found.

    Attributes:
        name: of the check.
        grade: how it came out.
        value: what was seen.
        fix: what to do; empty where nothing has to be done.
        exit_code: of `doctor`, where this is the first problem.
    """

    name: str
    grade: Grade
    value: str
    fix: str = ""
    exit_code: ExitCode = ExitCode.OK

    @classmethod
    def ok(cls, name: str, value: str) -> Finding:
        """Nothing to do."""
        return cls(name, Grade.OK, value)

    @classmethod
    def unknown(cls, name: str, value: str) -> Finding:
        """Nothing says."""
        return cls(name, Grade.UNKNOWN, value)

    @classmethod
    def warning(cls, name: str, value: str, fix: str) -> Finding:
        """It works, less well than it could."""
        return cls(name, Grade.WARNING, value, fix)

    @classmethod
    def problem(cls, name: str, value: str, fix: str, exit_code: ExitCode) -> Finding:
        """The program would fail, or not run."""
        return cls(name, Grade.PROBLEM, value, fix, exit_code)

    @classmethod
    def of_error(cls, name: str, error: NightshiftError) -> Finding:
        """An error of this project says what to do in its last sentence."""
        value, parted, fix = str(error).rpartition("; ")
        if not parted:
            return cls.problem(name, str(error), "see the message", error.exit_code)
        return cls.problem(name, value, fix, error.exit_code)

    def __str__(self) -> str:
        line = f"{self.grade.value:8}{self.name}: {self.value}"
        return f"{line}\n        -> {self.fix}" if self.fix else line


def exit_code(findings: Iterable[Finding]) -> ExitCode:
    """That of the first problem: the checks come in the order in which they build on each other."""
    return next((finding.exit_code for finding in findings if finding.grade is Grade.PROBLEM), ExitCode.OK)
