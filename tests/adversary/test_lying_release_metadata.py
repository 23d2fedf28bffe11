"""Release metadata over real gRPC and TLS: the chain of roots, lies, clocks, and a device that was away.

The coordinator tells each lie with the online keys that it has (tests/support/lying_metadata.py); after each one the
device refused with words of its own, kept evidence, and serves the adapter that it served before.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from nightshift.host import clock
from scripts.night.fleet import Device
from tests.support.fleets import TASK, Snapshots, copy_fleet, status
from tests.support.liar import Liar, served_by_a_liar
from tests.support.refusals import NOT_NOW, UNVERIFIED, Standing, refused

pytestmark = pytest.mark.slow

DAY_S = 86_400


@pytest.fixture(scope="module")
def liar(snapshots: Snapshots, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Liar]:
    fleet = copy_fleet(snapshots.joined(3), tmp_path_factory.mktemp("liar") / "fleet")
    with served_by_a_liar(fleet) as served:
        fleet.devices[0].run()
        assert status(fleet.devices[0])["adapters_in_use"] == [f"{TASK}/0"]
        yield served


@pytest.mark.parametrize(
    ("lie", "kind", "because"),
    [
        ("metadata rolled back", "ROLLED_BACK", "the timestamp metadata of releases is older than some that was seen"),
        ("metadata frozen", "FROZEN", "so newer releases may be withheld"),
        ("metadata mixed", "MIXED", "the snapshot metadata of releases"),
        ("metadata withheld", "MIXED", "does not give the snapshot metadata that other metadata names"),
        ("metadata truncated", "MALFORMED", "the timestamp metadata of releases is larger than allowed or unreadable"),
        ("metadata wrongly signed", "SIGNATURE_INVALID", "the timestamp metadata of releases is not signed by enough"),
        ("root of a stranger", "SIGNATURE_INVALID", "the root metadata of releases is not signed by enough"),
    ],
)
def test_a_lie_about_what_is_served(lie: str, kind: str, because: str, liar: Liar) -> None:
    """Tries: what the name says (tests/support/lying_metadata.py), signed by keys that the coordinator really has.

    Stopped by python-tuf's rules, as edge_client/agent/metadata_refusals.py puts them into words.
    """
    device = liar.fleet.devices[0]
    with liar.telling(lie):
        refused(device, UNVERIFIED, kind=kind, because=because)
    # The honest coordinator finds it unharmed.
    assert device.run().json["problems"] == []


def test_rotated_keys_are_followed_by_devices_old_and_new(liar: Liar, tmp_path: Path) -> None:
    """Tries: a timestamp by another role's key, after four roots; the service ran on and signs with the new keys.

    Stopped by the root that the device followed: edge_client/agent/updates.py, `refresh`.
    """
    coordinator, device = liar.fleet.coordinator, liar.fleet.devices[0]
    for roles in (("timestamp", "adapters"), ("root",), ("packages", "snapshot")):
        coordinator.command("keys", "rotate", *roles, "--yes")
    assert device.run().json["problems"] == []
    assert (device.home / "release-metadata" / "root_history" / "4.root.json").exists()
    with liar.telling("metadata wrongly signed"):
        refused(device, UNVERIFIED, kind="SIGNATURE_INVALID", because="the timestamp metadata")
    # A device that joins now begins with root 4.
    newcomer = Device(tmp_path / "newcomer", liar.fleet.devices[0].environment)
    newcomer.command("join", coordinator.command("token", "create", "--json").json["token"])
    assert newcomer.run().json["adopted"] == [f"{TASK}/0"]
    assert not (newcomer.home / "release-metadata" / "root_history" / "3.root.json").exists()


def test_a_clock_that_is_not_in_step_adopts_nothing(liar: Liar, tmp_path: Path) -> None:
    """Tries: to have a device adopt something though it cannot tell what has ended; its clock is three hours ahead.

    Stopped by edge_client/agent/updates.py, `_require_clock`.
    """
    device = liar.fleet.devices[1]
    (tmp_path / "fast").write_text(str(3 * 3600), "ascii")
    fast = Device(device.home, {**device.environment, clock.ENVIRONMENT_VARIABLE: str(tmp_path / "fast")})
    before = Standing.of(device)
    done = fast.run(expect=NOT_NOW)
    assert "this device's clock is 180 minutes ahead of its coordinator's" in done.stderr
    assert done.json["adopted"] == []
    assert Standing.of(device).adapters == before.adapters == []
    assert device.run().json["adopted"] == [f"{TASK}/0"]


def test_a_device_that_was_away_finds_metadata_that_was_signed_again(liar: Liar) -> None:
    """Tries: nothing; the honest control. Ten days are longer than a timestamp lives, and the coordinator, which
    served all the time, signed it again by itself. Were it not so, `FROZEN` would have stopped the device.
    """
    device = liar.fleet.devices[0]
    device.run()
    liar.fleet.move_clock(10 * DAY_S)
    report = device.run().json
    assert report["problems"] == []
    assert device.run().json["summary"] == "nothing was due"
