"""Each row of the table of exit codes in docs/client.md, brought about and compared with what the program says."""

from __future__ import annotations

import fcntl
import re
import shlex
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from edge_client.agent import pace
from edge_client.home import Home
from edge_client.store import open_store
from edge_client.store.migrations import SCHEMA_VERSION
from nightshift.host.clock import now_unix_s
from nightshift.protocol.errors import ExitCode
from tests.support.authority import DAY_S
from tests.unit.edge_client.test_command_line import Device
from tests.unit.edge_client.test_pass_conditions import QUIET

PAGE = Path(__file__).parents[3] / "docs" / "client.md"
ROWS = {
    int(code): said
    for code, said in re.findall(r"^\| (\d+) \| `([^`]+)` \|", PAGE.read_text("utf-8"), flags=re.MULTILINE)
}
ELSEWHERE = {
    ExitCode.INTERNAL: "tests/unit/host/test_console.py",
    ExitCode.PARTIAL: "tests/unit/edge_client/test_uploads.py",
    ExitCode.VERIFICATION_FAILED: "tests/unit/packages/test_package.py",
}
"""Brought about in tests of their own, whose sentence is compared with the table's below."""


def test_the_table_has_every_code_once() -> None:
    assert list(ROWS) == [int(code) for code in ExitCode]


@pytest.fixture
def device(tmp_path: Path) -> Device:
    made = Device(tmp_path / "home")
    made.join_nobody()
    return made


def says(device: Device, *arguments: str, code: ExitCode, **environment: str) -> None:
    done = device(*arguments, code=int(code), **environment)
    assert ROWS[int(code)] in done.stdout + done.stderr


def test_ok(device: Device) -> None:
    with open_store(Home.locate(device.home)) as store:
        store.database.put(**{pace.NEXT_CHECK_IN: now_unix_s() + 3000})
    says(device, "run", code=ExitCode.OK, **QUIET)


def test_usage(device: Device) -> None:
    (device.home / "config.toml").write_text("[training]\nthread = 1\n")
    says(device, "run", code=ExitCode.USAGE)


def test_not_now(device: Device) -> None:
    device("pause")
    says(device, "run", code=ExitCode.NOT_NOW, **QUIET)


def test_not_joined(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    says(Device(tmp_path / "empty"), "run", code=ExitCode.NOT_JOINED)


def test_locked(device: Device) -> None:
    with (device.home / "lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        says(device, "run", code=ExitCode.LOCKED)


def test_revoked(tmp_path: Path) -> None:
    device = Device(tmp_path / "home")
    device.join_nobody(from_s=-2 * DAY_S, until_s=-DAY_S)
    says(device, "doctor", "--no-network", code=ExitCode.REVOKED)


def test_unreachable(device: Device) -> None:
    says(device, "run", "--now", code=ExitCode.UNREACHABLE)


def test_incompatible(device: Device) -> None:
    device("ledger")
    with sqlite3.connect(device.home / "store.sqlite3") as connection:
        connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
    connection.close()
    says(device, "run", code=ExitCode.INCOMPATIBLE)


def test_no_space(device: Device) -> None:
    """No file may grow: what a full disk looks like to a process."""
    device("ledger")
    program = shlex.join([sys.executable, "-m", "edge_client.cli.main", "--home", str(device.home), "pause"])
    done = subprocess.run(
        ["bash", "-c", f"ulimit -f 0 && exec {program}"], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == int(ExitCode.NO_SPACE), done.stderr
    assert ROWS[int(ExitCode.NO_SPACE)] in done.stderr


@pytest.mark.parametrize("code", sorted(ELSEWHERE))
def test_the_others_are_said_by_the_program_and_tested_elsewhere(code: ExitCode) -> None:
    root = PAGE.parents[1]
    sources = "".join(
        path.read_text("utf-8") for room in ("edge_client", "nightshift") for path in (root / room).rglob("*.py")
    )
    assert ROWS[int(code)] in re.sub(r'"\s*\n\s*f?"', "", sources)
    assert (root / ELSEWHERE[code]).exists()
