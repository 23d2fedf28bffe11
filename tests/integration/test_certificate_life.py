"""A device's certificate from its first day to long after its last, over real TLS and with real processes.

Time is moved by the clock file, TLS is not: a device that joined under a clock
40 days slow holds a certificate that has truly expired when the clock is put right.
"""

from __future__ import annotations

import json
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from nightshift.host import clock
from scripts.night.fleet import Coordinator, Device
from tests.support import certificate_failpoints

pytestmark = pytest.mark.slow

SIGKILLED = -9
PARTIAL, NOT_NOW, NOT_JOINED, REVOKED = 3, 4, 10, 12


@dataclass
class World:
    """A serving coordinator, and the clock that everyone reads."""

    directory: Path
    coordinator: Coordinator

    @property
    def environment(self) -> dict[str, str]:
        return {clock.ENVIRONMENT_VARIABLE: str(self.directory / "clock")}

    def set_clock(self, days: float) -> None:
        (self.directory / "clock").write_text(str(days * 86_400), "ascii")

    def join(self, name: str = "device") -> Device:
        device = Device(self.directory / name, self.environment)
        device.command("join", self.token())
        return device

    def join_long_ago(self, days: float) -> Device:
        """Join under a clock so slow that TLS, which goes by the true time, takes the certificate for expired."""
        self.set_clock(-days)
        device = Device(self.directory / "device", self.environment)
        assert "first check-in failed" in device.command("join", self.token(), expect=PARTIAL).stderr
        return device

    def token(self) -> str:
        word: str = self.coordinator.command("token", "create", "--json").json["token"]
        return word

    def device(self) -> dict[str, Any]:
        """The only device, as the operator sees it."""
        (shown,) = self.coordinator.command("device", "list", "--json").json["devices"]
        return dict(shown)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    (tmp_path / "clock").write_text(str(-200 * 86_400), "ascii")
    environment = {clock.ENVIRONMENT_VARIABLE: str(tmp_path / "clock")}
    made = World(tmp_path, Coordinator.init(tmp_path / "coordinator", environment))
    made.coordinator.serve()
    yield made
    made.coordinator.stop()


def certificate(device: Device) -> dict[str, str]:
    membership = json.loads((device.home / "membership.json").read_bytes())
    return {name: membership[name] for name in ("certificate", "next_certificate")}


def run(device: Device, *, expect: int = 0, **environment: str) -> dict[str, Any]:
    report: dict[str, Any] = device.command("run", "--now", "--json", expect=expect, **environment).json
    return report


def problem(device: Device, code: int) -> str:
    (found,) = run(device, expect=code)["problems"]
    return str(found["message"])


# In time


def test_a_certificate_is_renewed_at_two_thirds_of_its_life(world: World) -> None:
    world.set_clock(-21)
    device = world.join()
    first, expires = certificate(device), world.device()["certificate_expires"]
    world.set_clock(-2)
    assert run(device)["notes"] == []
    assert certificate(device) == first
    world.set_clock(0)
    assert run(device)["notes"] == ["this device's certificate has been renewed"]
    second = certificate(device)
    assert second["certificate"] != first["certificate"]
    assert second["next_certificate"] == ""
    assert world.device()["certificate_expires"] > expires
    assert run(device)["notes"] == []
    kinds = [entry["kind"] for entry in device.command("ledger", "--json").json]
    assert kinds.count("renewal") == 2, "asked once, and once over the new certificate"


@pytest.mark.parametrize("place", certificate_failpoints.RENEWING)
def test_a_device_that_dies_while_it_renews_has_one_certificate_that_works(world: World, place: str) -> None:
    world.set_clock(-21)
    device = world.join()
    world.set_clock(0)
    first = certificate(device)["certificate"]
    device.command("run", "--now", expect=SIGKILLED, NIGHTSHIFT_FAILPOINT=place)
    assert certificate(device)["certificate"] == first
    assert run(device)["notes"] == ["this device's certificate has been renewed"]
    assert certificate(device)["certificate"] != first
    assert certificate(device)["next_certificate"] == ""
    assert run(device)["notes"] == []


def test_a_coordinator_that_dies_after_it_renewed_gives_the_same_certificate_again(world: World) -> None:
    world.set_clock(-21)
    device = world.join()
    world.set_clock(0)
    world.coordinator.stop()
    world.coordinator.serve({"NIGHTSHIFT_FAILPOINT": certificate_failpoints.RENEWED})
    run(device, expect=13)
    world.coordinator.kill()
    expires = world.device()["certificate_expires"]
    world.coordinator.serve()
    assert run(device)["notes"] == ["this device's certificate has been renewed"]
    assert world.device()["certificate_expires"] == expires


# Late


def test_an_expired_certificate_is_renewed_with_the_same_key(world: World) -> None:
    device = world.join_long_ago(40)
    before = world.device()
    world.set_clock(0)
    assert run(device)["notes"] == ["this device's certificate had expired and has been renewed"]
    after = world.device()
    assert after["device_id"] == before["device_id"]
    assert after["certificate_expires"] > before["certificate_expires"]
    assert run(device)["notes"] == []


@pytest.mark.parametrize("place", certificate_failpoints.COMING_BACK)
def test_a_device_that_dies_while_it_comes_back_comes_back(world: World, place: str) -> None:
    device = world.join_long_ago(40)
    world.set_clock(0)
    device.command("run", "--now", expect=SIGKILLED, NIGHTSHIFT_FAILPOINT=place)
    run(device)
    assert run(device)["notes"] == []


def test_a_coordinator_that_dies_while_a_device_comes_back_gives_the_same_certificate_again(world: World) -> None:
    device = world.join_long_ago(40)
    world.set_clock(0)
    world.coordinator.stop()
    world.coordinator.serve({"NIGHTSHIFT_FAILPOINT": certificate_failpoints.RENEWED_LATE})
    run(device, expect=13)
    world.coordinator.kill()
    expires = world.device()["certificate_expires"]
    world.coordinator.serve()
    assert run(device)["notes"] == ["this device's certificate had expired and has been renewed"]
    assert world.device()["certificate_expires"] == expires


def test_a_clock_that_is_ahead_is_told_from_a_certificate_that_expired(world: World) -> None:
    world.set_clock(0)
    device = world.join()
    before = certificate(device)
    ahead = world.directory / "clock-of-the-device"
    ahead.write_text(str(60 * 86_400), "ascii")
    (found,) = run(device, expect=NOT_NOW, **{clock.ENVIRONMENT_VARIABLE: str(ahead)})["problems"]
    assert "set the clock" in found["message"]
    assert certificate(device) == before
    assert run(device)["problems"] == []


def test_past_the_grace_period_only_a_new_token_helps(world: World) -> None:
    device = world.join_long_ago(130)
    identity = world.device()["device_id"]
    world.set_clock(0)
    said = problem(device, REVOKED)
    assert "more than 90 days ago" in said
    assert "edge-client join TOKEN" in said
    assert device.command("join", world.token(), "--json").json["new"] is True
    assert run(device)["problems"] == []
    assert world.device()["device_id"] == identity


def test_a_revoked_device_is_not_renewed(world: World) -> None:
    device = world.join_long_ago(40)
    world.coordinator.command("device", "revoke", world.device()["device_id"], "--yes")
    world.set_clock(0)
    assert "revoked by the operator" in problem(device, REVOKED)
    before = certificate(device)
    assert "revoked by the operator" in device.command("join", world.token(), expect=REVOKED).stderr
    assert certificate(device) == before


# Clones


def copy_of(device: Device, name: str) -> Device:
    home = device.home.with_name(name)
    shutil.copytree(device.home, home)
    return Device(home, device.environment)


def test_two_devices_with_one_identity_are_both_held_until_the_operator_looked(world: World) -> None:
    world.set_clock(0)
    device = world.join()
    clone = copy_of(device, "clone")
    run(clone)
    assert "in use twice" in problem(device, REVOKED)
    assert "in use twice" in problem(clone, REVOKED)
    shown = world.device()
    assert shown["state"] == "held"
    assert shown["held_since"] is not None
    world.coordinator.command("device", "clear", shown["device_id"], "--yes")
    assert run(device)["problems"] == []
    assert world.device()["state"] == "enrolled"
    assert "in use twice" in problem(clone, REVOKED)


def test_a_restored_backup_is_told_what_to_do_and_may_be_cleared(world: World) -> None:
    world.set_clock(0)
    device = world.join()
    backup = copy_of(device, "backup")
    run(device)
    run(device)
    shutil.rmtree(device.home)
    said = problem(backup, REVOKED)
    assert "restored from an older copy" in said
    assert "coordinator device clear" in said
    world.coordinator.command("device", "clear", world.device()["device_id"], "--yes")
    assert run(backup)["problems"] == []
    assert run(backup)["problems"] == []


@pytest.mark.parametrize("place", ["device.check-in.prepared", "device.check-in.sent"])
def test_a_device_that_died_around_its_check_in_is_no_clone(world: World, place: str) -> None:
    world.set_clock(0)
    device = world.join()
    for _ in range(2):
        device.command("run", "--now", expect=SIGKILLED, NIGHTSHIFT_FAILPOINT=place)
    assert run(device)["problems"] == []
    assert run(device)["problems"] == []


def test_a_coordinator_that_died_after_the_nonce_takes_the_same_check_in_again(world: World) -> None:
    world.set_clock(0)
    device = world.join()
    world.coordinator.stop()
    world.coordinator.serve({"NIGHTSHIFT_FAILPOINT": "coordinator.check-in.durable"})
    run(device, expect=13)
    world.coordinator.kill()
    world.coordinator.serve()
    assert run(device)["problems"] == []


def test_a_device_that_lost_its_store_begins_anew(world: World) -> None:
    world.set_clock(-1)
    device = world.join()
    run(device)
    (device.home / "store.sqlite3").unlink()
    world.set_clock(0)
    assert run(device)["problems"] == []
    assert world.device()["state"] == "enrolled"


# The way out: a new key


@pytest.mark.parametrize("place", ["", *certificate_failpoints.LEAVING])
def test_leaving_and_joining_again_makes_a_new_key_and_keeps_what_is_the_owners(world: World, place: str) -> None:
    world.set_clock(0)
    device = world.join()
    first = world.device()["device_id"]
    device.command("data", "add", str(Path(__file__)), "--format", "text")
    run(copy_of(device, "clone"))
    assert "edge-client leave" in problem(device, REVOKED)
    if place:
        device.command("leave", "--yes", expect=SIGKILLED, NIGHTSHIFT_FAILPOINT=place)
    assert device.command("leave", "--yes", "--json").json["device_id"] == first
    assert not (device.home / "identity.pem").exists()
    assert device.command("run", "--now", expect=NOT_JOINED).stderr
    device.command("leave", "--yes", expect=NOT_JOINED)
    ledger = device.command("ledger", "--json").json
    device.command("join", world.token())
    assert run(device)["problems"] == []
    devices = world.coordinator.command("device", "list", "--json").json["devices"]
    assert {shown["state"] for shown in devices} == {"held", "enrolled"}
    assert device.command("ledger", "--json").json[: len(ledger)] == ledger
    assert len(device.command("data", "list", "--json").json) == 1


def test_wiping_leaves_models_settings_and_that_something_was_forgotten(world: World) -> None:
    world.set_clock(0)
    device = world.join()
    (device.home / "config.toml").write_text("[policy]\nminimum_cohort = 3\n", "utf-8")
    device.command("leave", "--wipe", "--yes")
    left = {path.name for path in device.home.rglob("*") if path.is_file()}
    assert left == {"config.toml", "lock", "store.sqlite3"}
    assert device.command("ledger", "--json").json == []
    with closing(sqlite3.connect(device.home / "store.sqlite3")) as store:
        names = [name for (name,) in store.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        rows = {name: store.execute(f"SELECT count(*) FROM {name}").fetchone()[0] for name in names}
        # Its new epoch, and when its memory ended: else it could give a second time to what it gave to before.
        assert {name: count for name, count in rows.items() if count} == {"meta": 2}
        assert {name for (name,) in store.execute("SELECT name FROM meta")} == {"epoch", "lost_at"}


# A coordinator that moves


def test_devices_follow_a_coordinator_to_another_address(world: World) -> None:
    world.set_clock(0)
    device = world.join()
    world.coordinator.stop()
    file = world.coordinator.directory / "coordinator.toml"
    old = file.read_text("utf-8")
    file.write_text(old.replace('["127.0.0.1"]', '["nowhere.invalid", "127.0.0.1"]'), "utf-8")
    world.coordinator.serve()
    (said,) = run(device)["notes"]
    assert "moves to nowhere.invalid" in said
    assert "127.0.0.1" in device.command("status", "--json").json["coordinator"]
    world.coordinator.stop()
    file.write_text(old.replace('["127.0.0.1"]', '["localhost", "127.0.0.1"]'), "utf-8")
    world.coordinator.serve()
    (said,) = run(device)["notes"]
    assert "has moved" in said
    assert device.command("status", "--json").json["coordinator"].startswith("localhost:")
    assert run(device)["notes"] == []


def test_a_token_of_the_same_root_brings_the_new_addresses(world: World) -> None:
    world.set_clock(0)
    device = world.join()
    world.coordinator.stop()
    file = world.coordinator.directory / "coordinator.toml"
    port = world.coordinator.ports[0]
    other = Coordinator.init(world.directory / "other").ports[0]
    file.write_text(file.read_text("utf-8").replace(f"port = {port}\n", f"port = {other}\n", 1), "utf-8")
    world.coordinator.serve()
    run(device, expect=13)
    assert device.command("join", world.token(), "--json").json["new"] is False
    assert run(device)["problems"] == []
