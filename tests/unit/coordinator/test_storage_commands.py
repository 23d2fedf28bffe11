"""`coordinator backup`, `restore` and `migrate` as an operator types them."""

from __future__ import annotations

from pathlib import Path

import pytest
from sqlalchemy import select

from coordinator.home import Home
from coordinator.storage.rows import AuditRow, Token
from nightshift.protocol.errors import ExitCode
from tests.support.coordinators import make_home, make_token, open_home
from tests.support.operator_commands import Operate


@pytest.fixture
def passphrase(tmp_path: Path) -> Path:
    file = tmp_path / "passphrase"
    file.touch(mode=0o600)
    file.write_text("correct horse battery staple\n", "utf-8")
    return file


def test_a_coordinator_comes_back_from_a_backup_and_its_keys(
    operate: Operate, tmp_path: Path, passphrase: Path
) -> None:
    home = make_home(tmp_path / "old")
    with open_home(home) as deployment:
        make_token(deployment)
        origin = deployment.log.origin
    sealed = ("--keys", str(tmp_path / "keys.sealed"), "--passphrase-file", str(passphrase))
    backup = operate("backup", str(tmp_path / "backup"), *sealed, "--json", data=home.directory)
    assert backup.code == ExitCode.OK, backup.err
    assert backup.json["key_files"] > 4
    assert (tmp_path / "backup").stat().st_mode & 0o777 == 0o700
    secrets = [path.read_bytes() for path in home.keys_directory.rglob("*.key")]
    copied = [path for path in (tmp_path / "backup").rglob("*") if path.is_file()]
    assert not [path for path in copied if any(secret in path.read_bytes() for secret in secrets)]

    restored = operate("restore", str(tmp_path / "backup"), *sealed, "--json", data=tmp_path / "new")
    assert restored.code == ExitCode.OK, restored.err
    with open_home(Home(tmp_path / "new")) as deployment, deployment.database.reading() as session:
        assert deployment.log.origin == origin
        assert len(session.scalars(select(Token)).all()) == 1
        assert "restore" in session.scalars(select(AuditRow.verb)).all()
    keys = [path for path in (tmp_path / "new" / "keys").rglob("*") if path.is_file()]
    assert {path.stat().st_mode & 0o077 for path in keys} == {0}

    again = operate("restore", str(tmp_path / "backup"), data=tmp_path / "new")
    assert again.code == ExitCode.USAGE
    assert "nothing was changed" in again.err


def test_a_backup_without_the_keys_says_so(operate: Operate, tmp_path: Path) -> None:
    home = make_home(tmp_path / "old")
    done = operate("backup", str(tmp_path / "backup"), data=home.directory)
    assert done.code == ExitCode.OK, done.err
    assert "without the private keys" in done.out
    refused = operate("restore", str(tmp_path / "backup"), data=tmp_path / "new")
    assert refused.code == ExitCode.USAGE
    assert "is missing" in refused.err


@pytest.mark.parametrize(
    ("phrase", "mode", "says"), [("short", 0o600, "at least 12"), ("long enough to be taken", 0o644, "chmod 600")]
)
def test_a_passphrase_must_be_long_and_private(
    operate: Operate, tmp_path: Path, phrase: str, mode: int, says: str
) -> None:
    home = make_home(tmp_path / "old")
    file = tmp_path / "passphrase"
    file.write_text(phrase, "utf-8")
    file.chmod(mode)
    keys = tmp_path / "keys.sealed"
    done = operate(
        "backup", str(tmp_path / "backup"), "--keys", str(keys), "--passphrase-file", str(file), data=home.directory
    )
    assert done.code == ExitCode.USAGE
    assert says in done.err
    assert not keys.exists()


def test_migrate_says_what_it_did(operate: Operate, tmp_path: Path) -> None:
    home = make_home(tmp_path / "old")
    assert "already" in operate("migrate", data=home.directory).out
    for name in ("", "-wal", "-shm"):
        Path(f"{home.database_file}{name}").unlink(missing_ok=True)
    done = operate("migrate", "--json", data=home.directory)
    assert done.json["before"] == ""
    with pytest.raises(Exception, match="restore it from a backup"), open_home(home):
        """An empty schema is nobody's coordinator."""
