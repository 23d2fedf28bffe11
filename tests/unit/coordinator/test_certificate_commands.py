"""`coordinator ca`: the root's key goes to a safe, the next intermediate comes from there, devices notice nothing."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from coordinator.cli.main import run_command_line
from coordinator.home import Home
from coordinator.service import tls
from coordinator.service.server import serving
from nightshift.host.console import exit_with
from nightshift.protocol.chains import load_chain
from tests.support.coordinators import make_home, make_token, open_home
from tests.support.operator_commands import Operate
from tests.support.scripted_device import ScriptedDevice

OK, USAGE = 0, 2

Run = Callable[..., Any]


@pytest.fixture
def run(home: Home, operate: Operate) -> Run:
    """Runs `coordinator ... --json` in this process: the object on stdout, or what went to stderr."""

    def command(*words: str, code: int = OK, data: Path = home.directory) -> Any:
        ran = operate(*words, "--json", data=data)
        assert ran.code == code
        return ran.json if code == OK else ran.err

    return command


def intermediate(home: Home) -> x509.Certificate:
    with open_home(home) as deployment:
        return deployment.authority.intermediate


def test_the_authority_is_shown_with_what_expires_when(run: Run, home: Home) -> None:
    shown = run("ca", "show")
    days = {record["role"]: record["days"] for record in shown["certificates"]}
    assert days == pytest.approx({"root": 3650, "intermediate": 1095, "signing": 1095, "server": 397}, abs=1)
    assert shown["root_key_here"] is True


def test_an_intermediate_that_ends_soon_is_told(
    home: Home, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    offset = tmp_path / "clock"
    monkeypatch.setenv("NIGHTSHIFT_CLOCK_OFFSET_FILE", str(offset))
    monkeypatch.setattr(sys, "argv", ["coordinator", "--data", str(home.directory), "status"])
    for days, told in ((1000.5, False), (1010.5, True)):
        offset.write_text(str(days * 86_400), "ascii")
        assert exit_with(run_command_line) == OK
        assert ("the intermediate certificate ends in 84 days" in capsys.readouterr().out) is told


def test_the_exported_root_is_what_devices_trust(run: Run, home: Home, tmp_path: Path) -> None:
    run("ca", "export", str(tmp_path / "root.pem"))
    root = x509.load_pem_x509_certificate((tmp_path / "root.pem").read_bytes())
    with open_home(home) as deployment:
        assert make_token(deployment).root_der == root.public_bytes(serialization.Encoding.DER)
    assert b"PRIVATE" not in (tmp_path / "root.pem").read_bytes()
    assert "exists; name a new file" in run("ca", "export", str(tmp_path / "root.pem"), code=USAGE)


def test_the_roots_key_goes_to_one_file_and_nowhere_else(run: Run, home: Home, tmp_path: Path) -> None:
    key = (home.keys_directory / "root.key").read_bytes()
    run("ca", "offline", str(tmp_path / "safe.pem"), "--yes")
    assert (tmp_path / "safe.pem").stat().st_mode & 0o777 == 0o600
    assert key in (tmp_path / "safe.pem").read_bytes()
    assert not any(key in file.read_bytes() for file in home.directory.rglob("*") if file.is_file())
    assert run("ca", "show")["root_key_here"] is False
    assert "taken offline before" in run("ca", "offline", str(tmp_path / "again.pem"), "--yes", code=USAGE)
    assert "the root's key is offline" in run("ca", "renew-intermediate", code=USAGE)


def test_a_file_that_is_there_is_not_overwritten_and_the_key_stays(run: Run, home: Home, tmp_path: Path) -> None:
    (tmp_path / "safe.pem").write_text("precious", "utf-8")
    assert "name a new file" in run("ca", "offline", str(tmp_path / "safe.pem"), "--yes", code=USAGE)
    assert (tmp_path / "safe.pem").read_text("utf-8") == "precious"
    assert (home.keys_directory / "root.key").exists()


def test_without_the_roots_key_devices_join_and_the_next_intermediate_comes_from_the_safe(
    run: Run, home: Home, tmp_path: Path
) -> None:
    old = intermediate(home)
    with open_home(home) as deployment, serving(deployment):
        early = ScriptedDevice(make_token(deployment))
        early.join()
    safe, request, certificate = (str(tmp_path / name) for name in ("safe.pem", "request.pem", "next.pem"))
    run("ca", "offline", safe, "--yes")
    run("ca", "request", request)
    run("ca", "sign-intermediate", "--root", safe, request, certificate, data=tmp_path / "no coordinator here")
    run("ca", "install", certificate)
    new = intermediate(home)
    assert new.public_key() != old.public_key()
    with open_home(home) as deployment, serving(deployment):
        late = ScriptedDevice(make_token(deployment))
        late.join()
        assert load_chain(late.certificate).intermediate == new
        assert load_chain(early.certificate).intermediate == old
        for device in (early, late):
            device.token = make_token(deployment)
            assert device.check_in(new_prekeys=1).reply.prekeys_held == 1
            device.close()


@pytest.mark.parametrize("spoil", ["another root", "another key", "garbage", "nothing requested"])
def test_a_wrong_intermediate_is_not_installed(run: Run, home: Home, tmp_path: Path, spoil: str) -> None:
    other = make_home(tmp_path / "other")
    safe, theirs = str(tmp_path / "safe.pem"), str(tmp_path / "theirs.pem")
    run("ca", "offline", safe, "--yes")
    run("ca", "offline", theirs, "--yes", data=other.directory)
    mine, foreign = str(tmp_path / "mine.csr"), str(tmp_path / "foreign.csr")
    if spoil != "nothing requested":
        run("ca", "request", mine)
    run("ca", "request", foreign, data=other.directory)
    result = str(tmp_path / "next.pem")
    if spoil == "garbage":
        Path(result).write_text("garbage", "utf-8")
    elif spoil == "another root":
        run("ca", "sign-intermediate", "--root", theirs, mine, result)
    else:
        run("ca", "sign-intermediate", "--root", safe, foreign, result)
    before = intermediate(home)
    said = run("ca", "install", result, code=USAGE)
    expected = {
        "another root": "was not issued by this coordinator's root",
        "another key": "for another key than the one that was requested",
        "garbage": "cannot be installed",
        "nothing requested": "no intermediate was requested here",
    }
    assert expected[spoil] in said
    assert intermediate(home) == before


def test_a_running_service_takes_up_a_new_server_certificate(
    run: Run, home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tls, "LOOK_EVERY_S", 0.0)
    with open_home(home) as deployment, serving(deployment):
        token = make_token(deployment)
        before = _served(token.device_address)
        run("ca", "issue-server")
        after = _served(token.device_address)
        assert before != after
        assert after.public_bytes(serialization.Encoding.PEM) in (home.keys_directory / "server.pem").read_bytes()
        device = ScriptedDevice(token)
        device.join()
        device.check_in()
        device.close()


def _served(address: str) -> x509.Certificate:
    import ssl

    host, _, port = address.rpartition(":")
    return x509.load_pem_x509_certificate(ssl.get_server_certificate((host, int(port))).encode())
