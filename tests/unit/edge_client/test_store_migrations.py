"""Every store that was ever written can be read by this build, and a newer one is left alone."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from importlib import resources
from pathlib import Path

import pytest

from edge_client.store import migrations, open_store
from edge_client.store.database import Database
from edge_client.store.migrations import SCHEMA_VERSION, migrate, version_of
from edge_client.store.traffic import Traffic, night_of
from nightshift.host import failpoints
from nightshift.protocol.errors import NightshiftError
from tests.unit.edge_client.test_command_line import Device

NOW_UNIX_S = 1_800_000_000


def first_store(path: Path) -> None:
    """A store as the first schema made it, with something in it."""
    connection = sqlite3.connect(path)
    connection.executescript(resources.files("edge_client.store").joinpath("schema.sql").read_text("utf-8"))
    connection.executescript(
        f"""INSERT INTO meta VALUES ('epoch', {NOW_UNIX_S});
        INSERT INTO ledger (time, kind, size_bytes, recipient, sentence, details)
            VALUES ({NOW_UNIX_S}, 'join', 1, 'host:1', 'joined', '{{}}');
        INSERT INTO sources (path, format, columns, added_at) VALUES ('notes.txt', 'text', '{{}}', 1);
        PRAGMA user_version = 1;"""
    )
    connection.close()


def schema_of(path: Path) -> list[tuple[str, str]]:
    connection = sqlite3.connect(path)
    rows = connection.execute("SELECT name, sql FROM sqlite_master WHERE name NOT LIKE 'sqlite_%' ORDER BY name")
    found = rows.fetchall()
    connection.close()
    return found


def test_a_store_of_the_first_schema_is_brought_to_this_one_and_keeps_what_it_knows(tmp_path: Path) -> None:
    old, fresh = tmp_path / "old", tmp_path / "fresh"
    first_store(old)
    assert "traffic" not in dict(schema_of(old)), "this test must begin before a migration"
    database = Database.open(old, now_unix_s=NOW_UNIX_S + 1, expected=True)
    assert database.number("epoch") == NOW_UNIX_S
    assert database.lost_at_unix_s is None
    assert [row["sentence"] for row in database.rows("SELECT sentence FROM ledger")] == ["joined"]
    assert [row["path"] for row in database.rows("SELECT path FROM sources")] == ["notes.txt"]
    Traffic(database).add(1, sent_bytes=1, received_bytes=2)
    database.close()
    Database.open(fresh, now_unix_s=NOW_UNIX_S, expected=False).close()
    assert schema_of(old) == schema_of(fresh)


def test_killed_between_two_steps_the_next_start_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "store.sqlite3"
    first_store(path)
    code = (
        "import sys; from pathlib import Path; from edge_client.store.database import Database;"
        f"Database.open(Path(sys.argv[1]), now_unix_s={NOW_UNIX_S}, expected=True)"
    )
    environment = {**os.environ, failpoints.ENVIRONMENT_VARIABLE: "device.store.migrated"}
    killed = subprocess.run([sys.executable, "-c", code, str(path)], env=environment, check=False)
    assert killed.returncode == -9
    database = Database.open(path, now_unix_s=NOW_UNIX_S, expected=True)
    assert database.number("epoch") == NOW_UNIX_S
    assert [row["user_version"] for row in database.rows("PRAGMA user_version")] == [SCHEMA_VERSION]
    database.close()


def test_a_step_that_fails_leaves_the_version_before_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "store.sqlite3"
    first_store(path)
    broken = tmp_path / "0002-broken.sql"
    broken.write_text("CREATE TABLE half (x INTEGER);\nCREATE TABLE meta (y INTEGER);\n")
    monkeypatch.setattr(migrations, "_STEPS", [migrations._STEPS[0], broken])
    with pytest.raises(NightshiftError, match="already exists"):
        Database.open(path, now_unix_s=NOW_UNIX_S, expected=True)
    connection = sqlite3.connect(path)
    assert version_of(connection) == 1
    assert "half" not in dict(schema_of(path))
    connection.close()


def test_two_processes_that_migrate_at_once_do_each_step_once(tmp_path: Path) -> None:
    path = tmp_path / "store.sqlite3"
    first_store(path)
    late = sqlite3.connect(path, isolation_level=None)
    assert version_of(late) == 1
    Database.open(path, now_unix_s=NOW_UNIX_S, expected=True).close()
    migrate(late)
    assert version_of(late) == SCHEMA_VERSION
    late.close()


def test_a_newer_store_is_left_as_it_is(tmp_path: Path) -> None:
    device = Device(tmp_path)
    device("data", "list")
    connection = sqlite3.connect(tmp_path / "store.sqlite3")
    connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
    connection.close()
    before = (tmp_path / "store.sqlite3").read_bytes()
    assert "upgrade edge-client" in device("data", "list", code=15).stderr
    assert (tmp_path / "store.sqlite3").read_bytes() == before


def test_traffic_is_counted_by_night_and_old_nights_are_forgotten(tmp_path: Path) -> None:
    database = Database.open(tmp_path / "store", now_unix_s=NOW_UNIX_S, expected=False)
    traffic = Traffic(database)
    traffic.add(100, sent_bytes=10, received_bytes=1)
    traffic.add(100, sent_bytes=5, received_bytes=2)
    assert traffic.of(100).total_bytes == 18
    traffic.add(200, sent_bytes=1, received_bytes=1)
    assert traffic.of(100).total_bytes == 0
    assert traffic.of(150).total_bytes == 0
    database.close()


def test_a_night_goes_from_noon_to_noon_in_local_time(monkeypatch: pytest.MonkeyPatch) -> None:
    import time

    monkeypatch.setenv("TZ", "Europe/Berlin")
    time.tzset()
    try:
        noon = 1_795_431_600  # 2026-11-23 12:00 in Berlin, 11:00 UTC
        assert night_of(noon - 1) + 1 == night_of(noon) == night_of(noon + 86_399)
        assert night_of(noon + 86_400) == night_of(noon) + 1
    finally:
        monkeypatch.undo()
        time.tzset()


def test_the_store_that_commands_open_is_of_this_version(tmp_path: Path) -> None:
    from edge_client.home import Home

    with open_store(Home(tmp_path / "c", tmp_path / "s", tmp_path / "k")) as store:
        assert store.traffic.of(0).total_bytes == 0
