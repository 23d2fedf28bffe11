"""A coordinator comes back from a backup that is older than what its devices saw: they refuse it, and begin anew."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from scripts.night.fleet import Coordinator, Device
from tests.support.fleets import TASK, Fleet, Snapshots, status

pytestmark = pytest.mark.slow

FleetFrom = Callable[[Path], Fleet]
VERIFICATION_FAILED = 14


def restored(fleet: Fleet, backup: Path) -> Coordinator:
    """The same coordinator in another directory, from a backup; its old one is lost but for keys and addresses."""
    old = fleet.coordinator
    directory = old.directory.with_name("restored")
    directory.mkdir(mode=0o700)
    shutil.copytree(old.directory / "keys", directory / "keys")
    shutil.copy(old.directory / "coordinator.toml", directory)
    new = Coordinator(directory, old.environment, ports=old.ports)
    said = new.command("restore", str(backup)).stdout
    assert "until they join again" in said
    return new


def begin_anew(device: Device, token: str) -> None:
    """What its owner is told to do; text, adapters and ledger stay."""
    device.command("leave", "--yes")
    device.command("join", token, "--name", device.home.name)


def test_devices_that_saw_more_refuse_it_join_again_and_learn_on(
    snapshots: Snapshots, fleet_from: FleetFrom, tmp_path: Path
) -> None:
    """Tries: a backup from before the first round; then a whole night whose release two of three devices adopt.

    What stops a second history under one name: a log that does not extend what was seen is refused
    (nightshift/protocol/log.py). What lets learning go on: the parent that all three contributed to comes back under a
    new number, by a logged decision (coordinator/backups/restoring.py), and who left forgets the numbers it saw.
    """
    fleet = fleet_from(snapshots.joined(3))
    backup = tmp_path / "backup"
    fleet.coordinator.command("backup", str(backup))
    fleet.open_round()
    with fleet.serving():
        for device in fleet.devices:
            assert device.run().json["sent"] == [f"{TASK}/1"]
        for device in [*fleet.devices, *fleet.devices[:2]]:
            device.run()
        assert fleet.releases() == [0, 1]
    assert [status(device)["adapters_in_use"] for device in fleet.devices[:2]] == [[f"{TASK}/1"]] * 2

    coordinator = restored(fleet, backup)
    coordinator.serve()
    try:
        for device in fleet.devices:
            refused = device.command("run", "--now", expect=VERIFICATION_FAILED).stderr
            assert "the log shrank" in refused
            assert "edge-client leave" in refused
            assert device.command("status").stdout.startswith("ATTENTION")
        assert coordinator.log_tail().count("was an older backup restored?") >= 3

        token = coordinator.command("token", "create", "--uses", "3", "--json").json["token"]
        for old in coordinator.command("device", "list", "--json").json["devices"]:
            coordinator.command("device", "revoke", old["device_id"], "--yes")
        for device in fleet.devices:
            begin_anew(device, token)
            device.run()
            shown = device.command("status").stdout
            assert not shown.startswith("ATTENTION"), "that was the life before"
            assert "before this device left: the log shrank" in shown, "and is remembered"
        opened = coordinator.command("round", "open", TASK, "--json").json
        for device in fleet.devices:
            assert device.run().json["sent"] == [f"{TASK}/{opened['round']}"]
        for device in fleet.devices:
            device.run()
        (ended,) = coordinator.command("round", "list", "--json").json["rounds"]
        assert ended["state"] == "published", ended
        for device in fleet.devices:
            followed = device.run().json
            assert followed["adopted"] + followed["kept_back"] == [f"{TASK}/2"], "on its own text one may be worse"
        kinds = [row["kind"] for row in coordinator.command("release", "decisions", TASK, "--json").json["decisions"]]
        assert "set aside" in kinds
        coordinator.command("log", "verify")
    finally:
        coordinator.stop()


def test_a_device_that_saw_nothing_more_notices_nothing(
    snapshots: Snapshots, fleet_from: FleetFrom, tmp_path: Path
) -> None:
    """Tries: the same, with one device that was off since the backup: it goes on under the key that it has."""
    fleet = fleet_from(snapshots.joined(3))
    backup = tmp_path / "backup"
    with fleet.serving():
        for device in fleet.devices:
            device.run()
        fleet.coordinator.command("backup", str(backup))
        fleet.open_round()
        assert fleet.devices[0].run().json["sent"] == [f"{TASK}/1"]
    coordinator = restored(fleet, backup)
    coordinator.serve()
    try:
        fleet.devices[0].run(expect=VERIFICATION_FAILED)
        begin_anew(fleet.devices[0], coordinator.command("token", "create", "--json").json["token"])
        for device in fleet.devices:
            device.run()
        coordinator.command("round", "open", TASK)
        for device in fleet.devices:
            assert device.run().json["sent"] == [f"{TASK}/1"]
    finally:
        coordinator.stop()
