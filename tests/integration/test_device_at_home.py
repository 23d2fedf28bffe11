"""A joined device between the nights: joining again, a lost store, a damaged model, its own adapter, its revocation.

Real commands against a real coordinator.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from scripts.night.fleet import Device
from tests.support.fleets import TASK, Fleet, Snapshots, copy_fleet, device_id, query, status

pytestmark = pytest.mark.slow

KEPT = 8


@pytest.fixture(scope="module")
def fleet(snapshots: Snapshots, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """Three joined devices with the model, and a serving coordinator that opens no round."""
    copied = copy_fleet(snapshots.joined(3), tmp_path_factory.mktemp("home") / "fleet")
    with copied.serving():
        yield copied


def unspent(fleet: Fleet, device: Device) -> int:
    """Prekeys of the device that the coordinator holds."""
    return len(query(fleet.database, "SELECT 1 FROM prekeys WHERE lower(hex(device_id)) = ?", device_id(device)))


def new_device(fleet: Fleet, tmp_path: Path) -> tuple[Device, str]:
    token = fleet.coordinator.command("token", "create", "--json").json["token"]
    return Device(tmp_path / "device9", dict(fleet.devices[0].environment)), token


def test_joining_makes_a_key_publishes_prekeys_and_enters_both_in_the_ledger(fleet: Fleet, tmp_path: Path) -> None:
    device, token = new_device(fleet, tmp_path)
    joined = device.command("join", token, "--name", "küche", "--json").json
    assert joined["new"] is True
    assert (device.home / "identity.pem").stat().st_mode & 0o777 == 0o600
    assert unspent(fleet, device) == KEPT
    entries = device.command("ledger", "--json").json
    assert [entry["kind"] for entry in entries] == ["join", "check-in"]
    assert "'küche'" in entries[0]["sentence"]


def test_joining_the_same_coordinator_again_changes_nothing(fleet: Fleet, tmp_path: Path) -> None:
    device, token = new_device(fleet, tmp_path)
    first = device.command("join", token, "--json").json
    files = {path: path.read_bytes() for path in device.home.glob("*.*") if path.name != "store.sqlite3"}
    again = device.command("join", token, "--json").json
    assert again == {**first, "new": False}
    assert {path: path.read_bytes() for path in files} == files


def test_a_lost_store_begins_a_new_epoch_and_the_identity_stays(fleet: Fleet, tmp_path: Path) -> None:
    device, token = new_device(fleet, tmp_path)
    device.command("join", token)
    before = device_id(device)
    (device.home / "store.sqlite3").unlink()
    device.run()
    shown = status(device)
    assert shown["device_id"] == before
    assert shown["store_lost_at"] is not None
    assert shown["prekeys"] == KEPT


def test_the_log_is_verified_from_the_head_seen_last(fleet: Fleet, tmp_path: Path) -> None:
    device, token = new_device(fleet, tmp_path)
    device.command("join", token)
    seen = status(device)["log_size"]
    new_device(fleet, tmp_path / "other")[0].command("join", new_device(fleet, tmp_path)[1])
    shown = device.command("log", "verify", "--json").json
    assert shown["before"] == seen
    assert shown["size"] > seen
    assert shown["consistent"] is True


def test_two_devices_compare_what_they_were_shown(fleet: Fleet, tmp_path: Path) -> None:
    """One reads its head aloud and sends its note, the other has seen more since; then one of them was deceived."""
    first, second = fleet.devices[0], fleet.devices[1]
    for device in (first, second):
        device.run()
    head = first.command("log", "head", "--json").json
    sent = tmp_path / "head-of-the-first.txt"
    sent.write_text(first.command("log", "head").stdout, "utf-8")
    new_device(fleet, tmp_path)[0].command("join", new_device(fleet, tmp_path)[1])
    shown = second.command("log", "verify", "--head", head["short"], "--head", str(sent), "--json").json
    assert shown["compared"] == [head["size"], head["size"]]
    assert shown["remembered"] > 0
    operators = fleet.coordinator.command("log", "verify", "--head", str(sent), "--json").json
    assert operators["compared"] == [head["size"]]
    assert (operators["size"], operators["root"]) == (shown["size"], shown["root"])
    size, _, letters = head["short"].partition("-")
    other_history = f"{int(size) - 1}-{letters}"
    assert "the log forked" in second.command("log", "verify", "--head", other_history, expect=14).stderr
    assert "the log forked" in fleet.coordinator.command("log", "verify", "--head", other_history, expect=14).stderr
    mistyped = head["short"][:-1] + ("A" if head["short"][-1] != "A" else "B")
    assert "look at group 5" in second.command("log", "verify", "--head", mistyped, expect=2).stderr


def test_a_log_that_is_not_the_one_seen_before_exits_14_and_is_remembered(fleet: Fleet, tmp_path: Path) -> None:
    device, token = new_device(fleet, tmp_path)
    device.command("join", token)
    # What this device saw differs from what the coordinator shows now: the same as a fork.
    with sqlite3.connect(device.home / "store.sqlite3") as connection:
        connection.execute("UPDATE meta SET value = ? WHERE name = 'log_root'", (bytes(32),))
    connection.close()
    report = device.run(expect=14).json
    assert report["problems"][0]["reason"] == "LOG_INCONSISTENT"
    (event,) = status(device)["security_events"]
    assert event["kind"] == "LOG_INCONSISTENT"
    assert status(device)["health"].startswith("ATTENTION")


def test_nothing_due_is_exit_0(fleet: Fleet) -> None:
    device = fleet.devices[0]
    device.run()
    report = device.run().json
    assert report["exit_code"] == 0
    assert report["summary"] == "nothing was due"
    assert device.command("policy", "check").stdout == f"1. {TASK}: no plan waits; within the limits\n"


def test_a_dry_run_says_what_it_would_do_and_does_none_of_it(fleet: Fleet, tmp_path: Path) -> None:
    device, token = new_device(fleet, tmp_path)
    device.command("join", token)
    report = device.command("run", "--now", "--dry-run", "--json").json
    assert report["would"] == [f"would adopt {TASK}/0"]
    assert report["adopted"] == []
    assert device.command("adapter", "list", "--json").json == []
    assert not list((device.home / "adapters").iterdir())


def test_a_model_is_shown_verified_and_repaired(fleet: Fleet) -> None:
    device = fleet.devices[1]
    (model,) = device.command("model", "list", "--json").json
    shown = device.command("model", "show", model["id"][:6], "--json").json
    assert shown["licence"] == "MIT"
    device.command("model", "verify")
    weights = Path(shown["directory"]) / "weights.bin"
    good = weights.read_bytes()
    weights.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
    assert "weights.bin" in device.command("model", "verify", expect=14).stderr
    assert "run again to fetch it" in device.command("model", "pull", TASK, expect=14).stderr
    device.command("model", "pull", TASK)
    assert weights.read_bytes() == good
    assert hashlib.sha256(good).hexdigest() in {path.name for path in (device.home / "cache" / "files").iterdir()}


def test_a_personal_adapter_is_trained_used_and_never_sent(fleet: Fleet) -> None:
    device = fleet.devices[2]
    device.run()
    entries_before = device.command("ledger", "--json").json
    trained = device.command("train", "--local", "--steps", "4", "--json").json
    assert trained["examples"] > 0
    assert trained["loss_after"] < trained["loss_before"]
    prompt = ("generate", "turn the lights off", "--max-tokens", "8", "--engine", "onnx", "--json")
    answers = {
        name: device.command(*prompt, *flags).json
        for name, flags in (("base", ["--base"]), ("shared", []), ("own", ["--adapter", trained["adapter"]]))
    }
    assert answers["base"]["adapter"] is None
    # The shared adapter answers unless the personal one is named; as trained from nothing, it is the base.
    assert answers["shared"]["adapter"] == f"{TASK}/0"
    assert answers["shared"]["text"] == answers["base"]["text"]
    assert answers["own"]["adapter"] == trained["adapter"]
    assert device.command("ledger", "--json").json == entries_before


def test_an_adapter_file_that_is_gone_is_fetched_again(fleet: Fleet) -> None:
    device = fleet.devices[0]
    device.run()
    (path,) = (device.home / "adapters").iterdir()
    content = path.read_bytes()
    path.unlink()
    report = device.run().json
    assert report["notes"] == [f"the file of adapter {TASK}/0 was gone and has been fetched again"]
    assert path.read_bytes() == content


@pytest.mark.parametrize("format_", ["safetensors", "peft", "gguf", "onnx"])
def test_an_adapter_is_taken_along_but_overwrites_nothing(fleet: Fleet, tmp_path: Path, format_: str) -> None:
    device = fleet.devices[0]
    device.run()
    destination = tmp_path / "taken"
    export = ("adapter", "export", f"{TASK}/0", str(destination), "--format", format_)
    device.command(*export)
    if format_ == "peft":
        config = json.loads((destination / "adapter_config.json").read_text())
        assert config["r"] == 8
    else:
        head = destination.read_bytes()[:4]
        assert head == b"GGUF" if format_ == "gguf" else destination.stat().st_size > 1000
    assert "exists already" in device.command(*export, expect=2).stderr


def test_a_revoked_device_is_told_so_and_goes_on_alone(fleet: Fleet, tmp_path: Path) -> None:
    device, token = new_device(fleet, tmp_path)
    device.command("join", token)
    device.command("model", "pull", TASK)
    fleet.coordinator.command("device", "revoke", device_id(device), "--yes")
    report = device.run(expect=12).json
    assert "revoked" in report["problems"][0]["message"]
    # What is on the device goes on working without the coordinator.
    device.command("generate", "hello", "--base", "--max-tokens", "2", "--engine", "onnx")
