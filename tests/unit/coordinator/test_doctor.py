"""`coordinator doctor`: each thing that can be wrong is made wrong once, and is found with what mends it."""

from __future__ import annotations

import json
import shutil
import socket
import sqlite3
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from coordinator.cli.main import run_command_line
from coordinator.doctor import stores
from coordinator.doctor.checkup import check_up
from coordinator.home import Home
from coordinator.rounds.plans import open_round
from coordinator.service.server import serving
from coordinator.storage.rows import Task
from nightshift.host.clock import now_unix_s
from nightshift.host.console import exit_with
from nightshift.host.findings import Finding, Grade
from nightshift.protocol.errors import ExitCode
from tests.support.coordinators import TASK, make_home, make_task, make_token, open_home
from tests.support.scripted_device import ScriptedDevice

DAY_S = 86_400


def found(home: Home, name: str) -> Finding:
    """The one finding of a name that is not ok, or the first that is."""
    wanted = [finding for finding in check_up(home) if finding.name == name]
    assert wanted, f"nothing is said of {name}"
    return next((finding for finding in wanted if finding.grade is not Grade.OK), wanted[0])


def test_a_coordinator_that_serves_has_no_problem(tmp_path: Path) -> None:
    home = make_home(tmp_path / "coordinator", operators=True)
    with open_home(home) as deployment, serving(deployment):
        findings = list(check_up(home))
    assert [finding for finding in findings if finding.grade is Grade.PROBLEM] == []
    listeners = [finding.value for finding in findings if finding.name.startswith("listener")]
    assert len(listeners) == 3
    assert all("answers as 127.0.0.1, TLSv1.3" in value for value in listeners)
    assert all(finding.fix for finding in findings if finding.grade is Grade.WARNING)


def test_one_that_does_not_serve_is_told_how_to_begin(home: Home) -> None:
    assert found(home, "service").fix == "start it: coordinator serve"
    assert found(home, "listener port").grade is Grade.OK


def _world_readable(home: Home) -> None:
    (home.keys_directory / "signing.key").chmod(0o644)


def _damaged_key(home: Home) -> None:
    (home.keys_directory / "intermediate.pem").write_bytes(b"junk")


def _misspelt(home: Home) -> None:
    home.configuration_file.write_text("[listen]\nprot = 1\n")


def _empty_database(home: Home) -> None:
    for file in home.directory.glob("coordinator.sqlite3*"):
        file.unlink()


def _foreign_database(home: Home) -> None:
    _empty_database(home)
    with closing(sqlite3.connect(home.database_file)) as connection:
        connection.execute("CREATE TABLE somebody_elses (a)")


def _half_migrated(home: Home) -> None:
    with closing(sqlite3.connect(home.database_file)) as connection:
        connection.execute("DROP TABLE audit")


def _objects_are_a_file(home: Home) -> None:
    shutil.rmtree(home.objects_directory)
    home.objects_directory.write_text("not a directory")


def _no_admin_authority(home: Home) -> None:
    (home.keys_directory / "admin-authority.pem").unlink()


def _name_outside_the_certificate(home: Home) -> None:
    text = home.configuration_file.read_text()
    home.configuration_file.write_text(text + 'public_device_address = "elsewhere.example:443"\n')


@pytest.mark.parametrize(
    ("spoil", "name", "says", "code"),
    [
        (_world_readable, "keys", "chmod 600", ExitCode.USAGE),
        (_damaged_key, "authority", "from a backup", ExitCode.USAGE),
        (_misspelt, "configuration", "did you mean", ExitCode.USAGE),
        (_empty_database, "database", "coordinator migrate", ExitCode.USAGE),
        (_foreign_database, "database", "no coordinator's", ExitCode.USAGE),
        (_half_migrated, "database", "audit", ExitCode.USAGE),
        (_objects_are_a_file, "objects", "cannot create", ExitCode.USAGE),
        (_no_admin_authority, "certificate operators", "from a backup", ExitCode.USAGE),
        (_name_outside_the_certificate, "names", "listen.addresses", ExitCode.USAGE),
    ],
)
def test_what_is_wrong_is_found(
    home: Home, spoil: Callable[[Home], None], name: str, says: str, code: ExitCode
) -> None:
    before = [finding.grade for finding in check_up(home) if finding.name == name]
    assert Grade.PROBLEM not in before, "it was right before"
    spoil(home)
    finding = found(home, name)
    assert finding.grade is Grade.PROBLEM
    assert says in str(finding)
    assert finding.fix
    assert finding.exit_code is code


@pytest.mark.parametrize(
    ("after_days", "grades"),
    [
        (3 * 365 - 30, {"certificate intermediate": Grade.WARNING, "certificate root": Grade.OK}),
        (3 * 365 + 1, {"certificate intermediate": Grade.PROBLEM, "certificate signing": Grade.OK}),
        (3650 + 1, {"certificate root": Grade.PROBLEM, "certificate operators": Grade.PROBLEM}),
    ],
)
def test_certificates_age(
    home: Home, clock: Callable[[float], None], after_days: int, grades: dict[str, Grade]
) -> None:
    clock(after_days * DAY_S)
    assert {name: found(home, name).grade for name in grades} == grades


def test_a_port_that_another_program_holds(home: Home) -> None:
    with open_home(home) as deployment:
        port = deployment.configuration.listen.join_port
    with socket.create_server(("127.0.0.1", port)):
        finding = found(home, "listener join_port")
    assert (finding.grade, finding.exit_code) == (Grade.PROBLEM, ExitCode.USAGE)
    assert "change listen.join_port" in finding.fix


def test_a_listener_that_answers_with_another_certificate(tmp_path: Path) -> None:
    """The keys directory was replaced under a running service."""
    home, other = make_home(tmp_path / "coordinator"), make_home(tmp_path / "other")
    with open_home(home) as deployment, serving(deployment):
        shutil.rmtree(home.keys_directory)
        shutil.copytree(other.keys_directory, home.keys_directory)
        finding = found(home, "listener port")
    assert finding.exit_code is ExitCode.VERIFICATION_FAILED
    assert "restart" in finding.fix


def test_a_full_disk(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(home.directory)
    monkeypatch.setattr(stores.shutil, "disk_usage", lambda _: usage._replace(free=10_000_000))
    assert found(home, "disk").exit_code is ExitCode.NO_SPACE


def test_a_cohort_that_nobody_advances(home: Home, package: Path, clock: Callable[[float], None]) -> None:
    with open_home(home) as deployment:
        make_task(deployment, package)
        with serving(deployment):
            devices = [ScriptedDevice(make_token(deployment)) for _ in range(3)]
            for device in devices:
                device.join()
                device.check_in(new_prekeys=1)
                device.close()
        with deployment.database.transaction() as session:
            open_round(session, deployment, session.get_one(Task, TASK), now_unix_s())
    assert found(home, "deadlines").grade is Grade.OK
    clock(2 * 3600)
    finding = found(home, "deadlines")
    assert finding.grade is Grade.WARNING
    assert "overdue" in finding.value


def test_the_command(home: Home, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["coordinator", "--data", str(home.directory), "doctor", "--json"])
    assert exit_with(run_command_line) == ExitCode.OK
    told = json.loads(capsys.readouterr().out)
    assert told["summary"].startswith("0 problems")
    (home.keys_directory / "signing.key").chmod(0o640)
    monkeypatch.setattr(sys, "argv", ["coordinator", "--data", str(home.directory), "doctor"])
    assert exit_with(run_command_line) == ExitCode.USAGE
    text = capsys.readouterr().out
    assert "problem keys:" in text
    assert "-> chmod 600" in text
