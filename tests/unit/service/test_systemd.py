"""The units as systemd itself reads them, and the commands that install them."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from edge_client.home import Home
from edge_client.service.plan import Scope, ServicePlan, plan_service, require_open_to_all
from edge_client.service.systemd import NAME, Systemd, service_unit, timer_unit
from nightshift.protocol.errors import NightshiftError, UsageError

PROGRAM = Path(sys.executable).with_name("edge-client")
MOST_EXPOSURE = 2.5
"""`systemd-analyze security` rates from 0 (best) to 10; docs/client.md says what was measured."""

needs_systemd = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="systemd-analyze is missing (Debian: apt install systemd)"
)


def plan(scope: Scope, home: str = "") -> ServicePlan:
    return ServicePlan(scope, PROGRAM, home, (Path("/var/lib/nightshift"),))


def write_units(directory: Path, scope: Scope, home: str = "") -> list[str]:
    texts = {"service": service_unit(plan(scope, home)), "timer": timer_unit(plan(scope, home))}
    for kind, text in texts.items():
        # The user that a system service runs as is made when it is installed, not when it is checked.
        (directory / f"{NAME}.{kind}").write_text(re.sub(r"^User=.*\n", "", text, flags=re.MULTILINE))
    return [str(directory / f"{NAME}.{kind}") for kind in texts]


@needs_systemd
@pytest.mark.parametrize("scope", list(Scope))
@pytest.mark.parametrize("home", ["", "/srv/a folder with blanks/100 % $HOME"])
def test_systemd_finds_nothing_to_complain_about(tmp_path: Path, scope: Scope, home: str) -> None:
    manager = "--user" if scope is Scope.USER else "--system"
    command = ["systemd-analyze", "verify", manager, "--man=no", *write_units(tmp_path, scope, home)]
    environment = {**os.environ, "XDG_RUNTIME_DIR": str(tmp_path)}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment, timeout=60)
    ours = [line for line in (done.stdout + done.stderr).splitlines() if NAME in line]
    assert (done.returncode, ours) == (0, []), done.stderr


@needs_systemd
def test_a_mistake_in_a_unit_would_be_found(tmp_path: Path) -> None:
    service, timer = write_units(tmp_path, Scope.SYSTEM)
    text = Path(service).read_text().replace("SystemCallFilter=@system-service", "SystemCallFilter=@no-such-set")
    Path(service).write_text(text.replace("Nice=10", "Nice=1000"))
    command = ["systemd-analyze", "verify", "--system", "--man=no", service, timer]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert any(NAME in line and "1000" in line for line in done.stderr.splitlines()), done.stderr


@needs_systemd
def test_how_exposed_the_system_service_is(tmp_path: Path) -> None:
    service, _ = write_units(tmp_path, Scope.SYSTEM)
    Path(service).write_text(service_unit(plan(Scope.SYSTEM)))
    command = ["systemd-analyze", "security", "--offline=yes", "--no-pager", service]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    match = re.search(r"Overall exposure level for .*: ([0-9.]+) ", done.stdout)
    assert match, done.stdout + done.stderr
    assert float(match[1]) <= MOST_EXPOSURE, done.stdout


def test_what_the_design_asks_of_the_units() -> None:
    """shared/design/operations.md: oneshot, hourly from 1 to 6, its own minute, caught up, quiet exits, no W^X."""
    service, timer = service_unit(plan(Scope.SYSTEM)), timer_unit(plan(Scope.SYSTEM))
    for line in (
        "Type=oneshot",
        "After=network-online.target time-sync.target",
        "SuccessExitStatus=4 11 13",
        "IOSchedulingClass=idle",
        "ProtectSystem=strict",
        "NoNewPrivileges=yes",
        "StateDirectory=nightshift",
        "CapabilityBoundingSet=",
        "SystemCallFilter=@system-service adjtimex",
    ):
        assert line in service.splitlines()
    assert "MemoryMax=" in service
    assert "MemoryDenyWriteExecute" not in service
    for line in ("OnCalendar=*-*-* 01..06:00", "RandomizedDelaySec=50min", "FixedRandomDelay=true", "Persistent=true"):
        assert line in timer.splitlines()
    assert "WantedBy=timers.target" in timer
    assert "[Install]" not in service, "only the timer is enabled: nothing starts at boot and stays"


@needs_systemd
def test_the_timer_fires_six_times_a_night() -> None:
    calendar = re.search(r"OnCalendar=(.*)", timer_unit(plan(Scope.USER)))
    assert calendar
    command = ["systemd-analyze", "calendar", "--iterations=12", calendar[1]]
    shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    hours = re.findall(r" (\d\d):00:00 (?!UTC$)", shown) or re.findall(r" (\d\d):00:00", shown)
    assert set(hours) >= {"01", "02", "03", "04", "05", "06"}
    assert set(hours) <= {"01", "02", "03", "04", "05", "06"}


class Recorded:
    """Stands where systemctl would be, and does as told: installing here would change the machine of the test."""

    def __init__(self, **answers: str) -> None:
        self.commands: list[list[str]] = []
        self.answers = answers
        self.fails = ""

    def __call__(self, command: Sequence[str]) -> subprocess.CompletedProcess[str]:
        self.commands.append(list(command))
        failed = self.fails and self.fails in command
        stdout = next((text for word, text in self.answers.items() if word in command), "")
        return subprocess.CompletedProcess(command, 1 if failed else 0, stdout, "Access denied" if failed else "")


def test_installing_writes_both_units_and_starts_the_timer_alone(tmp_path: Path) -> None:
    run = Recorded(show="ActiveState=active\nNextElapseUSecRealtime=Tue 2026-11-24 01:17:00 CET\n")
    manager = Systemd(Scope.USER, tmp_path / "units", run)
    installed = manager.install(plan(Scope.USER))
    assert [file.name for file in installed.files] == [f"{NAME}.service", f"{NAME}.timer"]
    assert (installed.active, installed.next_run) == (True, "Tue 2026-11-24 01:17:00 CET")
    assert run.commands[:2] == [
        ["systemctl", "--user", "daemon-reload"],
        ["systemctl", "--user", "enable", "--now", f"{NAME}.timer"],
    ]
    assert manager.install(plan(Scope.USER)) == installed
    assert manager.uninstall() is True
    assert not list((tmp_path / "units").iterdir())
    assert manager.uninstall() is False


def test_the_system_service_has_a_user_of_its_own(tmp_path: Path) -> None:
    run = Recorded()
    Systemd(Scope.SYSTEM, tmp_path, run).install(plan(Scope.SYSTEM, "system"))
    assert run.commands[0][:2] == ["useradd", "--system"]
    text = (tmp_path / f"{NAME}.service").read_text()
    assert "User=nightshift\n" in text
    assert "Environment=NIGHTSHIFT_HOME=system\n" in text


def test_a_refusal_of_systemd_is_said(tmp_path: Path) -> None:
    run = Recorded()
    run.fails = "enable"
    with pytest.raises(NightshiftError, match=r"enable --now nightshift-edge.timer failed: Access denied"):
        Systemd(Scope.USER, tmp_path, run).install(plan(Scope.USER))


def test_a_plan_for_this_installation(tmp_path: Path) -> None:
    made = plan_service(Scope.USER, Home.locate(tmp_path))
    assert made.arguments == [str(PROGRAM), "run"]
    assert made.home == str(tmp_path)
    assert plan_service(Scope.SYSTEM, Home.system()).home == "system"
    assert plan_service(Scope.USER, Home.users()).home == ""


def test_a_system_service_keeps_its_things_in_the_system(tmp_path: Path) -> None:
    for scope, home in ((Scope.SYSTEM, Home.locate(tmp_path)), (Scope.USER, Home.system())):
        with pytest.raises(UsageError, match="--system and --home system, or neither"):
            plan_service(scope, home)


def test_home_of_the_system_and_a_folder_that_is_called_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert Home.locate(Path("system")).config_file == Path("/etc/nightshift/config.toml")
    monkeypatch.setenv("NIGHTSHIFT_HOME", "system")
    assert Home.locate(None).cache == Path("/var/cache/nightshift")
    monkeypatch.chdir(tmp_path)
    assert Home.locate(tmp_path / "system").state == tmp_path / "system"


def test_a_program_that_the_services_own_user_cannot_reach(tmp_path: Path) -> None:
    closed = tmp_path / "closed" / "bin" / "edge-client"
    closed.parent.mkdir(parents=True)
    shutil.copy("/bin/sh", closed)
    (tmp_path / "closed").chmod(0o700)
    with pytest.raises(UsageError, match=r"closed to it; install for all users: sudo scripts/install\.sh --system"):
        require_open_to_all(Path("/bin/sh"), closed)
    require_open_to_all(Path("/bin/sh"))
