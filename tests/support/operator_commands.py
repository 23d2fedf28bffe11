"""`coordinator ...` as an operator types it, run in the test's own process."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from coordinator.cli.main import run_command_line
from nightshift.host.console import exit_with


@dataclass(frozen=True)
class Ran:
    """What a command said, and how it ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """The object on its output."""
        return json.loads(self.out)


Operate = Callable[..., Ran]


def operating(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], default: Path) -> Operate:
    """Runs a command: on the directory `data`, or with the credentials of somebody elsewhere."""

    def run(*words: str, data: Path = default, credentials: Path | None = None) -> Ran:
        elsewhere = [] if credentials is None else ["--credentials", str(credentials)]
        monkeypatch.setattr(sys, "argv", ["coordinator", "--data", str(data), *elsewhere, *words])
        capsys.readouterr()
        code = exit_with(run_command_line)
        captured = capsys.readouterr()
        return Ran(code, captured.out, captured.err)

    return run
