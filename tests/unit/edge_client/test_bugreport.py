"""What is attached to a bug report tells how a device is, and neither whose it is nor what it knows."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path

import pytest

from edge_client.bugreport import Redaction
from tests.unit.edge_client.test_command_line import Device, write

CANARY = "kingfisher-canary-7731"
SECRET = "sk-" + "s3cr3t" * 4


@pytest.fixture
def device(tmp_path: Path) -> Device:
    """A device with a secret of every kind, and passes whose summaries speak of them."""
    made = Device(tmp_path / "home")
    made.join_nobody()
    (made.home / "config.toml").write_text(f'[serving]\napi_key = "{SECRET}"\n')
    text = write(tmp_path / f"diary of {CANARY}.txt", f"{CANARY} wrote this, and more of it, every single day")
    made("data", "add", str(text), "--format", "text")
    identifier = made.json("status")["device_id"]
    key = (made.home / "identity.pem").read_text()
    summaries = [
        f"failed: {text}: line 3: not UTF-8",
        f"device {identifier} at 127.0.0.1:1 and 192.0.2.77 and [2001:db8::17]:7443 is refused",
        f"something printed {key}",
        "token nightshift1AbCdEfGhIjKlMnOpQrStUvWxYz0123456789 was refused",
        f"the file {made.home}/uploads/{'ab' * 32}.contribution is gone",
        "2026-11-23T01:02:03Z is a time, and exit 13 a number",
    ]
    with sqlite3.connect(made.home / "store.sqlite3") as connection:
        connection.executemany(
            "INSERT INTO passes (started_at, ended_at, exit_code, summary) VALUES (1, 2, 13, ?)",
            [(summary,) for summary in summaries],
        )
    connection.close()
    return made


def test_nothing_private_is_in_it(device: Device, tmp_path: Path) -> None:
    device("bugreport", "--output", str(tmp_path / "report.json"))
    path = tmp_path / "report.json"
    assert path.stat().st_mode & 0o777 == 0o600
    text = path.read_text("utf-8")
    identifier = device.json("status")["device_id"]
    private = {
        "canary": CANARY,
        "api key": SECRET,
        "device": identifier,
        "the beginning of its id": identifier[:16],
        "state": str(device.home),
        "a folder above": str(tmp_path),
        "coordinator": "127.0.0.1",
        "another address": "192.0.2.77",
        "an IPv6 address": "2001:db8",
        "log": "nobody/log",
        "key": "PRIVATE KEY",
        "token": "AbCdEfGhIjKlMnOp",
        "hash": "ab" * 32,
    }
    assert [name for name, secret in private.items() if secret.lower() in text.lower()] == []
    key = (device.home / "identity.pem").read_text().splitlines()[1]
    assert key not in text


def test_what_helps_is_in_it(device: Device) -> None:
    report = device.json("bugreport")
    assert report["versions"]["grpcio"]
    assert report["joined"] is True
    assert report["counts"]["data_sources"] == 1
    summaries = [each["summary"] for each in report["passes"]]
    assert "2026-11-23T01:02:03Z is a time, and exit 13 a number" in summaries
    assert any("<data source 1>: line 3: not UTF-8" in summary for summary in summaries)
    assert any("<device> at <coordinator>" in summary for summary in summaries)
    assert report["settings"]["serving.api_key"]["value"] == "**********"
    assert {each["name"] for each in report["doctor"]} >= {"clock", "disk", "certificate", "store"}


def test_a_device_that_never_joined_has_one_too(tmp_path: Path) -> None:
    assert Device(tmp_path).json("bugreport")["joined"] is False


def test_the_longest_name_is_replaced_first() -> None:
    redaction = Redaction({"/srv/data": "<folder>", "/srv/data/diary.txt": "<data source 1>", "pi": "<user>"})
    assert redaction.text("/srv/data/diary.txt in /SRV/DATA") == "<data source 1> in <folder>"
    assert redaction.text("the pixel pipeline") == "the pixel pipeline", "two letters are no secret"
    assert json.dumps(redaction.value({"a": ["/srv/data", 3, None]})) == '{"a": ["<folder>", 3, null]}'
