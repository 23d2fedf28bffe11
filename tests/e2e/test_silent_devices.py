"""Devices that fall silent: a committee of six needs five answers, and nobody needs to be there twice.

Six real devices, no two of them ever running at the same time. Time is moved for
all processes at once by the clock's offset file.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

from nightshift.v1 import log_pb2
from scripts.night.fleet import Device
from tests.support.fleets import DAY_S, TASK, WINDOW_S, Fleet, Snapshots, query, status

pytestmark = pytest.mark.slow

FleetFrom = Callable[[Path], Fleet]
NOT_NOW = 4


def logged(fleet: Fleet, kind: log_pb2.LogEntryKind) -> list[log_pb2.LogEntry]:
    """The entries of one kind in the coordinator's transparency log."""
    rows = query(fleet.database, "SELECT entry FROM log_entries ORDER BY position")
    entries = [log_pb2.LogEntry.FromString(row["entry"]) for row in rows]
    return [entry for entry in entries if entry.kind == kind]


def objects_of(fleet: Fleet, cohort: str) -> list[Path]:
    """The files that the coordinator holds for a cohort that has not ended."""
    directory = fleet.coordinator.directory / "objects" / "cohorts" / cohort
    return [path for path in directory.rglob("*") if path.is_file()]


def answer(devices: Iterable[Device], cohort: str) -> None:
    """A pass of each device, in which it answers as a committee member and contributes nothing."""
    for device in devices:
        done = device.run().json
        assert done["answered"] == [cohort]
        assert done["sent"] == []


def test_one_uploads_and_never_returns_another_only_answers(snapshots: Snapshots, fleet_from: FleetFrom) -> None:
    """Tries: device 1 uploads and is never heard of again; device 6 never uploads, but answers.

    Nothing is lost: an upload is a device's last word (coordinator/aggregation/folding.py),
    and any five of six members open the sum (nightshift/protocol/secagg/opener.py).
    """
    fleet = fleet_from(snapshots.uploaded(6, 5))
    cohort = fleet.cohort()["cohort_id"].hex()
    assert fleet.cohort()["threshold"] == 5
    with fleet.serving():
        fleet.move_clock(WINDOW_S + 60)
        answer(fleet.devices[1:5], cohort)
        assert fleet.releases() == [0], "four answers must not open anything"
        answer(fleet.devices[5:], cohort)
        assert fleet.releases() == [0, 1]
        assert fleet.devices[5].run().json["adopted"] == [f"{TASK}/1"]
    shown = fleet.round()
    (opened,) = shown["cohorts"]
    assert (shown["state"], opened["state"]) == ("published", "opened")
    assert (opened["contributions"], opened["answers"]) == (5, 5)
    assert fleet.sum_is_exact(fleet.devices[:5])


def test_one_more_is_silent_and_the_next_night_works(snapshots: Snapshots, fleet_from: FleetFrom) -> None:
    """Tries: devices 1 and 2 upload and are never heard of again that night; four answers cannot open six shares.

    The cohort ends void, says why and erases its uploads (coordinator/rounds/advance.py);
    nobody is asked for the same parent while a member could still hold its key
    (coordinator/rounds/pool.py, and the device's own guard: tests/adversary/test_lying_coordinator_rows.py);
    when all keys have expired, the next night's sum over all six is right.
    """
    fleet = fleet_from(snapshots.uploaded(6, 5))
    cohort = fleet.cohort()["cohort_id"].hex()
    reason = "4 committee members answered before the deadline, 5 are needed"
    with fleet.serving() as coordinator:
        fleet.move_clock(WINDOW_S + 60)
        answer(fleet.devices[2:], cohort)
        assert len(objects_of(fleet, cohort)) >= 5 + 1, "sealed shares of five, and the running sum"
        fleet.move_clock(WINDOW_S)

        told = fleet.devices[0].run().json
        assert told["sent"] == []
        assert told["answered"] == []
        assert told["notes"] == [f"the cohort of round 1 of task {TASK!r} ended without a sum: {reason}"]
        shown = fleet.round()
        assert (shown["state"], shown["cohorts"][0]["answers"], shown["reason"]) == ("void", 4, reason)
        (entry,) = logged(fleet, log_pb2.LOG_ENTRY_KIND_VOID)
        assert (entry.subject.hex(), entry.note) == (cohort, reason)
        assert not objects_of(fleet, cohort)
        assert fleet.releases() == [0]

        refused = coordinator.command("round", "open", TASK, expect=NOT_NOW).stderr
        assert "of 6 devices only 1 may still contribute to release 0, n_min is 3" in refused

        fleet.move_clock(15 * DAY_S)
        for device in fleet.devices:
            done = device.run().json
            assert done["sent"] == []
            assert done["problems"] == []
        assert fleet.open_round()["round"] == 2
        for device in fleet.devices:
            assert device.run().json["sent"] == [f"{TASK}/2"]
        answer(fleet.devices[:5], fleet.cohort(2)["cohort_id"].hex())
        assert fleet.releases() == [0, 1]
    assert fleet.sum_is_exact(fleet.devices, 2)
    assert all(status(device)["security_events"] == [] for device in fleet.devices)
