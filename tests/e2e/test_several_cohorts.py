"""Two nights of six real devices in two cohorts: a cohort fails alone, then both open into one release."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from nightshift.protocol.release import ReleaseDocument
from scripts.night.fleet import Device
from tests.support.fleets import TASK as USUAL_TASK
from tests.support.fleets import WINDOW_S, Fleet, Snapshots, device_id, encoded, query, status, task_toml

pytestmark = pytest.mark.slow

FleetFrom = Callable[[Path], Fleet]
TASK = "in-two-cohorts"


def create_task(fleet: Fleet) -> None:
    """The usual task, but with rounds of two cohorts of at least three."""
    text = task_toml(6, 3).replace(f'name = "{USUAL_TASK}"', f'name = "{TASK}"')
    file = fleet.directory / "two.toml"
    file.write_text(text.replace('open = "operator"', 'open = "operator"\ncohorts = 2'), "utf-8")
    fleet.coordinator.command("task", "create", "-f", str(file))


def cohorts_of(fleet: Fleet, number: int) -> list[sqlite3.Row]:
    return query(
        fleet.database, "SELECT * FROM cohorts WHERE task = ? AND round_number = ? ORDER BY plan_position", TASK, number
    )


def places(fleet: Fleet, number: int) -> dict[str, list[Device]]:
    """Cohort id (hex) -> the devices dealt to it."""
    by_id = {device_id(device): device for device in fleet.devices}
    found: dict[str, list[Device]] = {cohort["cohort_id"].hex(): [] for cohort in cohorts_of(fleet, number)}
    rows = query(
        fleet.database, "SELECT cohort_id, device_id FROM assignments WHERE task = ? AND round_number = ?", TASK, number
    )
    for row in rows:
        found[row["cohort_id"].hex()].append(by_id[row["device_id"].hex()])
    return found


def sum_is_exact(fleet: Fleet, cohort: str, devices: list[Device]) -> bool:
    """Whether a cohort's opened vector is, integer for integer, what exactly these devices encrypted for it."""
    opened = np.load(fleet.coordinator.directory / "objects" / "sums" / f"{cohort}.npy")
    return np.array_equal(opened, np.sum([encoded(device, cohort) for device in devices], axis=0, dtype=np.uint64))


def contribute(fleet: Fleet, number: int, devices: list[Device], cohort: str) -> None:
    """Each of the devices sends what it learned; to this cohort, as the last one's ledger says."""
    for device in devices:
        assert device.run().json["sent"] == [f"{TASK}/{number}"]
    entries = [entry for entry in devices[-1].command("ledger", "--json").json if entry["kind"] == "contribution"]
    assert entries[-1]["details"]["cohort"] == cohort


def answer_all(fleet: Fleet) -> None:
    """A pass of five devices after the uploads have ended: all six sit on both committees, and five answers open."""
    fleet.move_clock(WINDOW_S + 60)
    for device in fleet.devices[1:]:
        assert device.run().json["sent"] == []


def release(fleet: Fleet, number: int) -> ReleaseDocument:
    (row,) = query(fleet.database, "SELECT document FROM releases WHERE task = ? AND number = ?", TASK, number)
    return ReleaseDocument.parse(row["document"])


def test_one_cohort_fails_alone_and_the_next_night_both_open(snapshots: Snapshots, fleet_from: FleetFrom) -> None:
    """Tries: a device of the second cohort never uploads, so that two contributions cannot reach n_min there.

    Nothing of the first cohort is lost (coordinator/rounds/conclusion.py): its sum becomes the release. The void
    one holds nobody back, because the next night has another parent; then both sums become one release.
    """
    fleet = fleet_from(snapshots.joined(6))
    create_task(fleet)
    with fleet.serving() as coordinator:
        assert len(coordinator.command("round", "open", TASK, "--json").json["cohorts"]) == 2
        (whole, first), (broken, second) = places(fleet, 1).items()
        assert (len(first), len(second)) == (3, 3)
        contribute(fleet, 1, first, whole)
        contribute(fleet, 1, second[:2], broken)
        answer_all(fleet)
        states = {cohort["cohort_id"].hex(): cohort["state"] for cohort in cohorts_of(fleet, 1)}
        assert states == {whole: "opened", broken: "void"}
        shown = coordinator.command("round", "show", f"{TASK}/1", "--json").json
        assert (shown["state"], shown["cohorts_opened"], shown["cohorts_void"]) == ("published", 1, 1)
        assert sum_is_exact(fleet, whole, first)
        document = release(fleet, 1)
        assert document.contributors == 3
        assert [each.hex() for each in document.plan_hashes] == [shown["cohorts"][0]["plan_hash"]]

        coordinator.command("round", "open", TASK)
        for cohort, devices in places(fleet, 2).items():
            contribute(fleet, 2, devices, cohort)
        answer_all(fleet)
        for cohort, devices in places(fleet, 2).items():
            assert sum_is_exact(fleet, cohort, devices)
        document = release(fleet, 2)
        assert document.contributors == 6
        assert document.plan_hashes == tuple(cohort["plan_hash"] for cohort in cohorts_of(fleet, 2))
        done = fleet.devices[0].run().json
        assert done["adopted"] == [f"{TASK}/2"]
        holds = f"release 2 of task {TASK!r} holds what this device contributed in round 2, in the sum of 2 cohorts"
        assert any(note.startswith(holds) for note in done["notes"])
        assert all(status(device)["security_events"] == [] for device in fleet.devices)
