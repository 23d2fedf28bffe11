"""A void cohort is laid to rest by its committee, and its devices contribute again without waiting for two weeks.

Real processes, as everywhere in tests/e2e; what is said about the void is checked
on the device: the log's entry, and the statements by the keys of the plan contributed to.
"""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from tests.support.fleets import TASK, Fleet, Snapshots, query, status

pytestmark = pytest.mark.slow

FleetFrom = Callable[[Path], Fleet]
NOT_NOW = 4


def test_void_statements_and_the_same_devices_again(snapshots: Snapshots, fleet_from: FleetFrom) -> None:
    """Tries: the operator ends a round to which all three devices contributed, and opens the next at once.

    Two of three members suffice (C - T + 1 + f); the third gives again without having stated anything itself
    (edge_client/agent/{erasures,voids}.py).
    """
    fleet = fleet_from(snapshots.uploaded(3, 3))
    first, second, third = fleet.devices
    with fleet.serving() as coordinator:
        coordinator.command("round", "abort", f"{TASK}/1", "--yes")
        refused = coordinator.command("round", "open", TASK, expect=NOT_NOW).stderr
        assert "of 3 devices only 0 may still contribute to release 0" in refused

        cohort = fleet.cohort()["cohort_id"].hex()
        assert first.run().json["laid_to_rest"] == [cohort]
        coordinator.command("round", "open", TASK, expect=NOT_NOW)

        assert second.run().json["laid_to_rest"] == [cohort]
        assert fleet.open_round()["round"] == 2
        for device in fleet.devices:
            done = device.run().json
            assert done["sent"] == [f"{TASK}/2"]
            assert any("may contribute to the same parent again" in note for note in done["notes"])
        for device in fleet.devices:
            device.run()
        assert fleet.releases() == [0, 1]
    assert fleet.sum_is_exact(fleet.devices, 2)
    shown = status(third)
    assert "nobody can open it any more" in shown["void_contributions"][0]["sentence"]
    assert all(status(device)["security_events"] == [] for device in fleet.devices)
    kinds = [entry["kind"] for entry in first.command("ledger", "--json").json]
    assert kinds.count("erasure") == 1
    assert kinds.count("contribution") == 2


def take_back_the_void(database: Path) -> None:
    """Let the rows say that round 1 still waits for answers, and that nobody stated anything."""
    with closing(sqlite3.connect(database)) as connection:
        connection.execute("UPDATE cohorts SET state = 'frozen', ended_unix_s = NULL WHERE round_number = 1")
        connection.execute("DELETE FROM erasures")
        connection.commit()


def test_a_false_void_that_is_logged_destroys_the_liars_own_sum(snapshots: Snapshots, fleet_from: FleetFrom) -> None:
    """Tries: a round is logged as void though its uploads are kept; members state, contributors give again; then the
    coordinator takes the void back in its rows and asks the members for the first sum.

    Stopped by edge_client/store/answers.py, `record`: who stated has no key and no answer, for ever. Both sums
    would have shown the difference; now only the second one opens.
    """
    fleet = fleet_from(snapshots.uploaded(3, 3))
    with fleet.serving() as coordinator:
        objects, kept = fleet.coordinator.directory / "objects", fleet.directory / "kept"
        shutil.copytree(objects, kept)
        coordinator.command("round", "abort", f"{TASK}/1", "--yes")
        for device in fleet.devices:
            device.run()
        fleet.open_round()
        for device in fleet.devices:
            assert device.run().json["sent"] == [f"{TASK}/2"]
    shutil.copytree(kept, objects, dirs_exist_ok=True)
    take_back_the_void(fleet.database)
    with fleet.serving():
        for device in fleet.devices:
            problems = device.run(expect=14).json["problems"]
            assert "void by the log, and now asks for an answer" in problems[0]["message"]
        assert fleet.cohort(1)["state"] == "frozen"
        assert not query(
            fleet.database,
            "SELECT 1 FROM answers a JOIN cohorts c ON a.cohort_id = c.cohort_id WHERE c.round_number = 1",
        )
