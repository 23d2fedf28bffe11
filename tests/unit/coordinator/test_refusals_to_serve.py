"""`coordinator serve` does not start on what it cannot work with; each refusal says what helps, and it does."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from sqlite3 import connect

import pytest

from coordinator.deployment import bring_up_to_date, opened
from coordinator.home import Home
from coordinator.service.server import serving
from nightshift.protocol.errors import ExitCode, UsageError
from tests.support.coordinators import make_home

YEAR_S = 365 * 86_400


def change(home: Home, *statements: str) -> None:
    with closing(connect(home.database_file)) as database:
        for statement in statements:
            database.execute(statement)
        database.commit()


def command(home: Home, *arguments: str) -> subprocess.CompletedProcess[str]:
    program = [sys.executable, "-c", "from coordinator.cli.main import main; main()", "--data", str(home.directory)]
    return subprocess.run([*program, *arguments], capture_output=True, text=True, timeout=60, check=False)


def refusal(home: Home) -> str:
    """What the refusing process says; nothing listens afterwards."""
    done = command(home, "serve")
    assert done.returncode == ExitCode.USAGE, done
    assert "ready" not in done.stdout
    return done.stderr


def serves(home: Home) -> bool:
    with opened(home.directory) as deployment, serving(deployment):
        return True


@pytest.mark.parametrize(
    ("statements", "says"),
    [
        (["DROP TABLE refusals"], "lacks refusals"),
        (["ALTER TABLE devices DROP COLUMN cleared_unix_s"], "lacks devices.cleared_unix_s"),
        (["DELETE FROM alembic_version"], "no coordinator's"),
        (["UPDATE alembic_version SET version_num = '9999'"], "newer build"),
        (["DELETE FROM settings WHERE key = 'root_sha256'"], "restore it from a backup"),
    ],
    ids=["half of the tables", "half of a table", "no version", "a newer version", "no owner"],
)
def test_a_database_that_is_not_whole(home: Home, statements: list[str], says: str) -> None:
    change(home, *statements)
    assert says in refusal(home)
    if "alembic_version" in statements[0]:
        with pytest.raises(UsageError, match=says):
            bring_up_to_date(home)


def test_an_empty_database(home: Home) -> None:
    for name in ("", "-wal", "-shm"):
        Path(f"{home.database_file}{name}").unlink(missing_ok=True)
    assert "coordinator restore" in refusal(home)


def test_the_database_of_something_else_stays_as_it_is(home: Home) -> None:
    home.database_file.unlink()
    change(home, "CREATE TABLE invoices (number INTEGER)")
    assert "no coordinator's" in refusal(home)
    with pytest.raises(UsageError, match="nothing was changed"):
        bring_up_to_date(home)
    with closing(connect(home.database_file)) as database:
        assert database.execute("SELECT name FROM sqlite_master").fetchall() == [("invoices",)]


def test_the_database_of_another_coordinator(home: Home, tmp_path: Path) -> None:
    other = make_home(tmp_path / "other")
    other.database_file.replace(home.database_file)
    assert "another coordinator" in refusal(home)


def test_a_key_that_others_can_read(home: Home) -> None:
    key = home.keys_directory / "signing.key"
    key.chmod(0o644)
    assert f"chmod 600 {key}" in refusal(home)
    key.chmod(0o600)
    assert serves(home)


def test_an_intermediate_that_has_ended_is_renewed(home: Home, clock: Callable[[float], None]) -> None:
    clock(4 * YEAR_S)
    assert "coordinator ca renew-intermediate" in refusal(home)
    done = command(home, "ca", "renew-intermediate")
    assert done.returncode == ExitCode.OK, done
    assert serves(home)


def test_a_root_that_has_ended(home: Home, clock: Callable[[float], None]) -> None:
    clock(11 * YEAR_S)
    assert "coordinator init" in refusal(home)
