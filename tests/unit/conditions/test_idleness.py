"""The last input, as terminals and desktops tell of it."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from edge_client.conditions import Verdict
from edge_client.conditions.idleness import LastInput, Load
from edge_client.conditions.system_bus import SystemBus
from edge_client.machine_files import MachineFiles


def terminal(root: Path, name: str, used_s_ago: float) -> None:
    path = root / "dev" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    moment = time.time() - used_s_ago
    os.utime(path, (moment, moment))


def login(*, idle: bool, since_s_ago: float | None) -> str:
    since = 0 if since_s_ago is None else int((time.time() - since_s_ago) * 1e6)
    values = {"IdleHint": {"type": "b", "data": idle}, "IdleSinceHint": {"type": "t", "data": since}}
    return json.dumps({"type": "a{sv}", "data": [values]})


def test_somebody_who_types_into_a_terminal(tmp_path: Path, no_bus: SystemBus) -> None:
    terminal(tmp_path, "pts/0", 3600)
    terminal(tmp_path, "pts/3", 20)
    terminal(tmp_path, "tty1", 90_000)
    terminal(tmp_path, "pts/ptmx", 0)
    terminal(tmp_path, "tty", 0)
    reading = LastInput(MachineFiles(tmp_path), no_bus, 600).read()
    assert reading.verdict is Verdict.NO
    assert reading.source == "/dev/pts/3"
    assert "20 s ago, 600 s of quiet are wanted" in reading.reason
    assert LastInput(MachineFiles(tmp_path), no_bus, 10).read().verdict is Verdict.OK


def test_a_board_that_nobody_logged_into_is_unknown(tmp_path: Path, no_bus: SystemBus) -> None:
    assert LastInput(MachineFiles(tmp_path), no_bus, 600).read().verdict is Verdict.UNKNOWN


def test_a_terminal_used_in_the_future_says_nothing(tmp_path: Path, no_bus: SystemBus) -> None:
    terminal(tmp_path, "pts/0", -86_400)
    assert LastInput(MachineFiles(tmp_path), no_bus, 600).read().verdict is Verdict.UNKNOWN


@pytest.mark.parametrize(
    ("idle", "since_s_ago", "verdict"),
    [
        (True, 1200, Verdict.OK),
        (True, 300, Verdict.NO),
        (False, 5000, Verdict.NO),  # came back then, and is here since
        (False, None, Verdict.UNKNOWN),  # a desktop that never tells
    ],
)
def test_what_a_desktop_tells_logind(
    tmp_path: Path, bus: Callable[[str], SystemBus], idle: bool, since_s_ago: float | None, verdict: Verdict
) -> None:
    answer = login(idle=idle, since_s_ago=since_s_ago)
    assert LastInput(MachineFiles(tmp_path), bus(answer), 600).read().verdict is verdict


def test_the_last_of_both_witnesses_counts(tmp_path: Path, bus: Callable[[str], SystemBus]) -> None:
    terminal(tmp_path, "pts/0", 5)
    reading = LastInput(MachineFiles(tmp_path), bus(login(idle=True, since_s_ago=9000)), 600).read()
    assert reading.verdict is Verdict.NO


def test_an_owner_who_does_not_care(tmp_path: Path, no_bus: SystemBus) -> None:
    terminal(tmp_path, "pts/0", 0)
    assert LastInput(MachineFiles(tmp_path), no_bus, 0).read().verdict is Verdict.OK


def test_load_is_judged_per_core(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "getloadavg", lambda: (2.0, 0.0, 0.0))
    monkeypatch.setattr(os, "cpu_count", lambda: 4)
    assert Load(0.5).read().verdict is Verdict.OK
    assert Load(0.4).read().verdict is Verdict.NO
