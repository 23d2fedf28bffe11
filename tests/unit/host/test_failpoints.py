"""A failpoint kills like a power cut, at the pass that was asked for, and otherwise does nothing."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from nightshift.host import failpoints
from nightshift.host.failpoints import ENVIRONMENT_VARIABLE, failpoint

ROOT = Path(__file__).resolve().parents[3]
PASSES = """
import atexit, sys
from nightshift.host.failpoints import failpoint
atexit.register(lambda: print("goodbye", flush=True))
try:
    for number in range(1, 6):
        print(number, end="", flush=True)
        failpoint("here")
        failpoint("there")
finally:
    print("finally", flush=True)
"""


def passes(setting: str | None) -> tuple[int, str]:
    environment = {name: value for name, value in os.environ.items() if name != ENVIRONMENT_VARIABLE}
    if setting is not None:
        environment[ENVIRONMENT_VARIABLE] = setting
    done = subprocess.run(
        [sys.executable, "-c", PASSES],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.stderr == ""
    return done.returncode, done.stdout


@pytest.mark.parametrize(
    ("setting", "reached"), [("here", "1"), ("there", "1"), ("here:1", "1"), ("here:3", "123"), ("there:5", "12345")]
)
def test_the_process_dies_at_that_pass_without_a_goodbye(setting: str, reached: str) -> None:
    assert passes(setting) == (-signal.SIGKILL, reached)


@pytest.mark.parametrize("setting", [None, "", "elsewhere", "here:6", "her", "here "])
def test_the_process_lives_where_nothing_is_asked_for(setting: str | None) -> None:
    assert passes(setting) == (0, "12345finally\ngoodbye\n")


def test_an_unset_failpoint_costs_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(failpoints, "_name", "")
    begin = time.process_time()
    for _ in range(100_000):
        failpoint("contribution.persisted")
    assert time.process_time() - begin < 0.5, "more than 5 microseconds for a comparison"
