"""A device that seals garbage to committee members: reported by them, and either outvoted or found.

Six real devices; the sixth is tests/support/garbling_device.py when it contributes, and honest otherwise.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from scripts.night.fleet import Device
from tests.support.fleets import TASK, Fleet, Snapshots, device_id, query, status
from tests.support.garbling_device import contribute_garbage

pytestmark = pytest.mark.slow

FleetFrom = Callable[[Path], Fleet]
NOT_NOW = 4


def committee(fleet: Fleet) -> list[Device]:
    """The members of round 1, by index."""
    seats = query(
        fleet.database,
        "SELECT s.device_id FROM committee_seats s JOIN cohorts c ON c.cohort_id = s.cohort_id"
        " WHERE c.round_number = 1 ORDER BY s.member_index",
    )
    by_id = {device_id(device): device for device in fleet.devices}
    return [by_id[seat["device_id"].hex()] for seat in seats]


def refusals(fleet: Fleet) -> list[tuple[int, str]]:
    rows = query(fleet.database, "SELECT member_index, contributor FROM refusals ORDER BY member_index")
    return [(row["member_index"], row["contributor"].hex()) for row in rows]


def let_five_suffice(database: Path) -> None:
    """Change the task, for which there is no command: its rounds open with five devices in the pool."""
    with closing(sqlite3.connect(database)) as connection:
        connection.execute("""UPDATE tasks SET settings = json_set(settings, '$.cohort.pool_min', 5)""")
        connection.commit()


def test_one_member_cannot_use_a_share_and_the_others_open_the_sum(snapshots: Snapshots, fleet_from: FleetFrom) -> None:
    """Tries: to silence a member. It says why, five others answer, and the sum is exact; nobody is blamed.

    Where: nightshift/protocol/secagg/{member,refusal}.py, coordinator/aggregation/refusals.py.
    """
    fleet = fleet_from(snapshots.uploaded(6, 5))
    culprit = fleet.devices[5]
    with fleet.serving() as coordinator:
        contribute_garbage(culprit, [1])
        members = committee(fleet)
        cohort = fleet.cohort()["cohort_id"].hex()
        assert members[0].run().json["refused"] == [cohort]
        assert refusals(fleet) == [(1, device_id(culprit))]
        for member in members[1:]:
            assert member.run().json["answered"] == [cohort]
        assert fleet.releases() == [0, 1]
        shown = coordinator.command("device", "show", device_id(culprit), "--json").json
        assert (shown["suspicion"], shown["shares_refused_by"]) == ("clear", 1)
        member = coordinator.command("device", "show", device_id(members[0]), "--json").json
        assert (member["refused_without_need"], member["kept_off_committees"]) == (1, False)
    assert fleet.sum_is_exact(fleet.devices)
    assert [entry["kind"] for entry in members[0].command("ledger", "--json").json].count("refusal") == 1
    assert all(status(device)["security_events"] == [] for device in fleet.devices)


def test_two_members_cannot_and_the_culprit_sits_out_the_next_night(
    snapshots: Snapshots, fleet_from: FleetFrom
) -> None:
    """Tries: to void the cohort. It does, at once; two members' words are one more than f = 1 members can forge.

    One more statement lays the cohort to rest, and the same night's second round holds the five others
    (coordinator/rounds/{suspects,standing,erasures}.py); then the operator acquits the device.
    """
    fleet = fleet_from(snapshots.uploaded(6, 5))
    culprit = fleet.devices[5]
    with fleet.serving() as coordinator:
        contribute_garbage(culprit, [1, 2])
        members = committee(fleet)
        for member in members[:2]:
            assert member.run().json["refused"] == [fleet.cohort()["cohort_id"].hex()]
        shown = fleet.round()
        assert shown["state"] == "void"
        assert fleet.cohort()["state"] == "void"
        assert members[2].run().json["laid_to_rest"] == [fleet.cohort()["cohort_id"].hex()]

        refused = coordinator.command("round", "open", TASK, expect=NOT_NOW).stderr
        assert "5 devices were seen in the last 48 h" in refused, "the task wants six in the pool"
        let_five_suffice(fleet.database)
        assert fleet.open_round()["round"] == 2
        seen = coordinator.command("device", "show", device_id(culprit), "--json").json
        assert (seen["suspicion"], seen["shares_refused_by"]) == ("quarantined", 2)
        for device in fleet.devices:
            expected = [] if device is culprit else [f"{TASK}/2"]
            assert device.run().json["sent"] == expected
        coordinator.command("device", "acquit", device_id(culprit))
        seen = coordinator.command("device", "show", device_id(culprit), "--json").json
        assert seen["suspicion"] == "clear"
        contribution = culprit.run().json["sent"]
        assert contribution == [f"{TASK}/2"]
        for device in fleet.devices:
            device.run()
        assert fleet.releases() == [0, 1]
    assert fleet.sum_is_exact(fleet.devices, 2)
