"""`coordinator backup`, `restore` and `migrate` as an operator types them."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from coordinator.cli.main import _run
from coordinator.home import Home
from coordinator.storage.rows import AuditRow, Token
from nightshift.host.console import exit_with
from nightshift.protocol.errors import ExitCode
from tests.support.coordinators import make_home, make_token, open_home


@dataclass(frozen=True)
class Ran:
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


Run = Callable[..., Ran]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs a command on a directory, in this process."""

    def command(data: Path, *words: str) -> Ran:
        monkeypatch.setattr(sys, "argv", ["coordinator", "--data", str(data), *words])
        capsys.readouterr()
        code = exit_with(_run)
        captured = capsys.readouterr()
        return Ran(code, captured.out, captured.err)

    return command


@pytest.fixture
def passphrase(tmp_path: Path) -> Path:
    file = tmp_path / "passphrase"
    file.touch(mode=0o600)
    file.write_text("correct horse battery staple\n", "utf-8")
    return file


def test_a_coordinator_comes_back_from_a_backup_and_its_keys(run: Run, tmp_path: Path, passphrase: Path) -> None:
    home = make_home(tmp_path / "old")
    with open_home(home) as deployment:
        make_token(deployment)
        origin = deployment.log.origin
    sealed = ("--keys", str(tmp_path / "keys.sealed"), "--passphrase-file", str(passphrase))
    backup = run(home.directory, "backup", str(tmp_path / "backup"), *sealed, "--json")
    assert backup.code == ExitCode.OK, backup.err
    assert backup.json["key_files"] > 4
    assert (tmp_path / "backup").stat().st_mode & 0o777 == 0o700
    secrets = [path.read_bytes() for path in home.keys_directory.rglob("*.key")]
    copied = [path for path in (tmp_path / "backup").rglob("*") if path.is_file()]
    assert not [path for path in copied if any(secret in path.read_bytes() for secret in secrets)]

    restored = run(tmp_path / "new", "restore", str(tmp_path / "backup"), *sealed, "--json")
    assert restored.code == ExitCode.OK, restored.err
    with open_home(Home(tmp_path / "new")) as deployment, deployment.database.reading() as session:
        assert deployment.log.origin == origin
        assert len(session.scalars(select(Token)).all()) == 1
        assert "restore" in session.scalars(select(AuditRow.verb)).all()
    keys = [path for path in (tmp_path / "new" / "keys").rglob("*") if path.is_file()]
    assert {path.stat().st_mode & 0o077 for path in keys} == {0}

    again = run(tmp_path / "new", "restore", str(tmp_path / "backup"))
    assert again.code == ExitCode.USAGE
    assert "nothing was changed" in again.err


def test_a_backup_without_the_keys_says_so(run: Run, tmp_path: Path) -> None:
    home = make_home(tmp_path / "old")
    done = run(home.directory, "backup", str(tmp_path / "backup"))
    assert done.code == ExitCode.OK, done.err
    assert "without the private keys" in done.out
    refused = run(tmp_path / "new", "restore", str(tmp_path / "backup"))
    assert refused.code == ExitCode.USAGE
    assert "is missing" in refused.err


@pytest.mark.parametrize(
    ("phrase", "mode", "says"), [("short", 0o600, "at least 12"), ("long enough to be taken", 0o644, "chmod 600")]
)
def test_a_passphrase_must_be_long_and_private(run: Run, tmp_path: Path, phrase: str, mode: int, says: str) -> None:
    home = make_home(tmp_path / "old")
    file = tmp_path / "passphrase"
    file.write_text(phrase, "utf-8")
    file.chmod(mode)
    keys = tmp_path / "keys.sealed"
    done = run(home.directory, "backup", str(tmp_path / "backup"), "--keys", str(keys), "--passphrase-file", str(file))
    assert done.code == ExitCode.USAGE
    assert says in done.err
    assert not keys.exists()


def test_migrate_says_what_it_did(run: Run, tmp_path: Path) -> None:
    home = make_home(tmp_path / "old")
    assert "already" in run(home.directory, "migrate").out
    for name in ("", "-wal", "-shm"):
        Path(f"{home.database_file}{name}").unlink(missing_ok=True)
    done = run(home.directory, "migrate", "--json")
    assert done.json["before"] == ""
    with pytest.raises(Exception, match="restore it from a backup"), open_home(home):
        """An empty schema is nobody's coordinator."""
