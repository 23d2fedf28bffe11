"""The unit file: what systemd itself says of it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from coordinator.cli.main import run_command_line
from coordinator.systemd import unit_text
from nightshift.host.console import exit_with
from nightshift.protocol.errors import UsageError

needs_systemd = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed (apt package systemd)"
)


def unit(tmp_path: Path) -> Path:
    program = tmp_path / "coordinator"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    file = tmp_path / "nightshift-coordinator.service"
    file.write_text(unit_text(Path("/var/lib/nightshift"), user="root", program=program))
    return file


def run(*command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, capture_output=True, text=True, timeout=60, check=False, env={**os.environ, **environment}
    )


@needs_systemd
def test_systemd_finds_nothing_wrong(tmp_path: Path) -> None:
    done = run("systemd-analyze", "verify", "--man=no", str(unit(tmp_path)))
    assert (done.returncode, done.stderr) == (0, "")


@needs_systemd
def test_a_wrong_setting_would_be_found(tmp_path: Path) -> None:
    file = unit(tmp_path)
    file.write_text(file.read_text().replace("ProtectSystem=strict", "ProtectSystem=perhaps"))
    done = run("systemd-analyze", "verify", "--man=no", str(file))
    assert "protect system" in done.stderr


@needs_systemd
def test_how_exposed_it_is(tmp_path: Path) -> None:
    """systemd's own score, 0 to 10; below 2.5 is called OK."""
    done = run("systemd-analyze", "security", "--offline=true", "--threshold=25", str(unit(tmp_path)))
    assert done.returncode == 0, done.stdout[-400:]


def test_what_a_unit_file_would_misread_is_refused() -> None:
    for path in ("/srv/two words", "/srv/100%", '/srv/"quoted"', "/srv/$HOME"):
        with pytest.raises(UsageError, match="mean something in a unit file"):
            unit_text(Path(path), user="nightshift")


def test_the_command_prints_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["coordinator", "--data", str(tmp_path), "service", "print", "--user", "night"])
    assert exit_with(run_command_line) == 0
    text = capsys.readouterr().out
    assert f"--data {tmp_path} serve\n" in text
    assert "User=night\n" in text
    assert f"ReadWritePaths={tmp_path}\n" in text


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion(shell: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["coordinator", "completion", shell])
    assert exit_with(run_command_line) == 0
    assert "_COORDINATOR_COMPLETE" in capsys.readouterr().out


def test_completion_completes() -> None:
    """As a shell asks: `coordinator round w` and a tab."""
    environment = {"_COORDINATOR_COMPLETE": "bash_complete", "COMP_WORDS": "coordinator round w", "COMP_CWORD": "2"}
    done = run(sys.executable, "-c", "from coordinator.cli.main import main; main()", **environment)
    assert done.stdout.strip() == "plain,watch", done.stderr
