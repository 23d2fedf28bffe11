"""Two nights of real devices with the gate, and what owners and operators can do about what is served."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from nightshift.protocol.release import ReleaseDocument
from scripts.night.fleet import Device
from tests.support.fleets import TASK as USUAL_TASK
from tests.support.fleets import Fleet, Snapshots, query, status, task_toml

pytestmark = pytest.mark.slow

FleetFrom = Callable[[Path], Fleet]
TASK = "gated"


def create_task(fleet: Fleet) -> None:
    """The usual task, with the gate and a few more steps, so that there is something to measure."""
    text = task_toml(3, 3, steps=10, gate=True).replace(f'name = "{USUAL_TASK}"', f'name = "{TASK}"')
    file = fleet.directory / "gated.toml"
    file.write_text(text, "utf-8")
    fleet.coordinator.command("task", "create", "-f", str(file))


def night(fleet: Fleet, number: int) -> None:
    """Every device contributes, and then answers."""
    fleet.coordinator.command("round", "open", TASK, "--json")
    for device in fleet.devices:
        assert device.run().json["sent"] == [f"{TASK}/{number}"]
    for device in fleet.devices:
        device.run()


def in_use(device: Device) -> dict[str, Any]:
    """The adapter of the task that answers on a device, as its own list shows it."""
    listed = device.command("adapter", "list", "--json").json
    (shown,) = [adapter for adapter in listed if adapter["task"] == TASK and adapter["in_use"]]
    return dict(shown)


def test_what_was_learned_is_served_when_devices_found_it_better(snapshots: Snapshots, fleet_from: FleetFrom) -> None:
    fleet = fleet_from(snapshots.joined(3))
    first, second, third = fleet.devices
    with fleet.serving():
        create_task(fleet)
        night(fleet, 1)
        # A candidate is trained on, not served.
        first.run()
        assert in_use(first)["name"] == f"{TASK}/0"
        night(fleet, 2)
        decided = fleet.coordinator.command("release", "decisions", TASK, "--json").json["decisions"]
        assert [(row["kind"], row["served"]) for row in decided] == [("first", 0), ("promoted", 1)]
        assert "on 3 devices" in decided[1]["reason"]

        for device in fleet.devices:
            device.run()
        shown = in_use(first)
        assert (shown["name"], shown["served"], shown["pinned"]) == (f"{TASK}/1", True, False)
        # Before it came in use this device looked for itself.
        assert shown["comparison"]["loss"] < shown["comparison"]["loss_against"]

        # An owner goes back; that holds over the next passes.
        second.command("adapter", "rollback", TASK)
        assert second.run().json["adopted"] == []
        shown = in_use(second)
        assert (shown["name"], shown["pinned"], shown["served"]) == (f"{TASK}/0", True, False)
        assert any(f"{TASK}: {TASK}/0" in line for line in status(second)["adapters_pinned"])

        # The operator takes the release back: one command, and every device that follows is there at its next pass.
        reason = "it was made from the wrong commands"
        fleet.coordinator.command("release", "rollback", f"{TASK}/0", "--reason", reason, "--yes")
        for device in (first, third):
            assert device.run().json["adopted"] == [f"{TASK}/0"]
        fleet.coordinator.command("release", "promote", f"{TASK}/1", "--reason", "it was not", "--yes")
        assert first.run().json["adopted"] == [f"{TASK}/1"]
        assert second.run().json["adopted"] == []
        second.command("adapter", "follow", TASK)
        assert second.run().json["adopted"] == [f"{TASK}/1"]

        # Going back left the adapter of release 0 as a parent under a new number; all may contribute to it again.
        parents = query(fleet.database, "SELECT document FROM releases WHERE task = ? ORDER BY number", TASK)
        restored = [ReleaseDocument.parse(row["document"]).restores is not None for row in parents]
        assert restored[:4] == [False, False, False, True]
        fleet.coordinator.command("round", "open", TASK, "--json")
        assert [device.run().json["sent"] for device in fleet.devices] == [[f"{TASK}/3"]] * 3
