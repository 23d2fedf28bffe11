"""The launch agent for macOS: its property list, and the commands that load it."""

from __future__ import annotations

import plistlib
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from edge_client.service.launchd import LABEL, LATEST_MINUTE, Launchd
from edge_client.service.plan import Scope, ServicePlan
from edge_client.service.platforms import files_to_write
from nightshift.protocol.errors import NightshiftError, UsageError


def plan(tmp_path: Path) -> ServicePlan:
    return ServicePlan(Scope.USER, Path("/opt/a folder/edge-client"), "/Volumes/night", (tmp_path,))


class Launchctl:
    """Stands where launchctl would be; there is none but on a Mac."""

    def __init__(self, failing: str = "") -> None:
        self.failing = failing
        self.verbs: list[str] = []

    def __call__(self, command: Sequence[str]) -> subprocess.CompletedProcess[str]:
        assert command[0] == "launchctl"
        self.verbs.append(command[1])
        return subprocess.CompletedProcess(command, int(command[1] == self.failing), "", "Input/output error")


def test_the_agent_runs_a_pass_each_hour_of_the_night(tmp_path: Path) -> None:
    launchctl = Launchctl()
    agent = Launchd(tmp_path / "agents" / "a.plist", launchctl)
    installed = agent.install(plan(tmp_path))
    assert launchctl.verbs == ["bootout", "bootstrap", "print"]
    content = plistlib.loads(installed.files[0].read_bytes())
    assert content["Label"] == LABEL
    assert content["ProgramArguments"] == ["/opt/a folder/edge-client", "run"]
    assert content["EnvironmentVariables"] == {"NIGHTSHIFT_HOME": "/Volumes/night"}
    assert [entry["Hour"] for entry in content["StartCalendarInterval"]] == [1, 2, 3, 4, 5, 6]
    (minute,) = {entry["Minute"] for entry in content["StartCalendarInterval"]}
    assert 0 <= minute < LATEST_MINUTE
    assert "KeepAlive" not in content
    assert "RunAtLoad" not in content
    assert agent.uninstall() is True
    assert agent.uninstall() is False


def test_what_would_be_written_is_shown_first(tmp_path: Path) -> None:
    shown = files_to_write(plan(tmp_path), system="darwin")
    content = plistlib.loads(shown["agent"].encode())
    assert content["ProgramArguments"] == ["/opt/a folder/edge-client", "run"]
    assert Path(content["StandardOutPath"]).parent == tmp_path
    assert list(files_to_write(plan(tmp_path), system="linux")) == ["service", "timer"]


def test_a_refusal_of_launchd_is_said(tmp_path: Path) -> None:
    with pytest.raises(NightshiftError, match="bootstrap failed: Input/output error"):
        Launchd(tmp_path / "a.plist", Launchctl(failing="bootstrap")).install(plan(tmp_path))


def test_there_is_no_system_service_on_a_mac() -> None:
    with pytest.raises(UsageError, match="leave --system away"):
        Launchd.of(Scope.SYSTEM)
