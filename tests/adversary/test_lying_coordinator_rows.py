"""A coordinator whose rows are a lie: it pretends that a set or a round never was, and serves honestly from there.

The lies are made by tests/support/lying_rows.py while nothing is serving;
what the coordinator then says is signed, logged and consistent in itself. Only
what the real device remembers can refuse it.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support import lying_rows
from tests.support.fleets import TASK, Fleet, Snapshots, device_id, query
from tests.support.refusals import NOT_NOW, UNVERIFIED, refused

pytestmark = pytest.mark.slow

FleetFrom = Callable[[Path], Fleet]


def test_a_second_set_for_an_answered_cohort(snapshots: Snapshots, fleet_from: FleetFrom) -> None:
    """Tries: the same cohort frozen again without one contributor, logged; two answers would open the difference.

    Stopped by edge_client/agent/duties.py, `_stored_or_new`. A member that was not asked
    before answers the second set: it can see nothing wrong in it.
    """
    fleet = fleet_from(snapshots.answered(6, 1))
    first, second = fleet.devices[:2]
    lying_rows.second_set(fleet.coordinator.directory)
    with fleet.serving():
        refused(first, UNVERIFIED, kind="EQUIVOCATION", because="a second set of contributors")
        assert not query(fleet.database, "SELECT 1 FROM answers")
        assert len(second.run().json["answered"]) == 1


def test_a_set_below_the_minimum(snapshots: Snapshots, fleet_from: FleetFrom) -> None:
    """Tries: a set of two, where plan and owners want three; logged, and consistent in itself.

    Stopped by nightshift/protocol/plan_checks.py, `verify_bundle`, on every member; nothing opens.
    """
    fleet = fleet_from(snapshots.uploaded(3, 3))
    lying_rows.second_set(fleet.coordinator.directory)
    with fleet.serving():
        for member in fleet.devices:
            refused(member, UNVERIFIED, kind="VERIFICATION_FAILED", because="2 contributors; the plan allows 3 to 3")
    assert not query(fleet.database, "SELECT 1 FROM answers")


def test_a_swapped_share(snapshots: Snapshots, fleet_from: FleetFrom) -> None:
    """Tries: a share that the coordinator made itself in the place of a contributor's, in a set that is logged so.

    Stopped by the contributor's signature over the list of all its shares (nightshift/protocol/secagg/contribution.py):
    not only the member whose share it was, every member refuses the set.
    """
    fleet = fleet_from(snapshots.uploaded(3, 3))
    seats = query(fleet.database, "SELECT device_id FROM committee_seats ORDER BY member_index")
    by_id = {device_id(device): device for device in fleet.devices}
    members = [by_id[seat["device_id"].hex()] for seat in seats]
    lying_rows.swap_share(fleet.coordinator.directory, 1)
    with fleet.serving():
        for member in members:
            refused(member, UNVERIFIED, kind="SHARE_REFUSED", because="its signature")


# A second plan for a parent.


@pytest.mark.parametrize(
    "pretend", [lying_rows.forget_round, lying_rows.void_without_a_word], ids=["never was", "is void"]
)
def test_a_second_plan_for_the_same_parent(
    pretend: Callable[[Path], None], snapshots: Snapshots, fleet_from: FleetFrom
) -> None:
    """Tries: a new, wholly honest-looking round for a parent to which devices have contributed; the first one
    is said never to have been, or to be void without a log entry. Two sums could be subtracted.

    Stopped by the device's own memory (edge_client/agent/examination.py, `_contributed`).
    A device that did not contribute before takes part: it can see nothing wrong.
    """
    fleet = fleet_from(snapshots.uploaded(3, 2))
    contributed, _, fresh = fleet.devices
    pretend(fleet.coordinator.directory)
    number = fleet.open_round()["round"]
    with fleet.serving():
        refused(contributed, UNVERIFIED, kind="EQUIVOCATION", because="a second plan for the parent of round 1")
        assert fresh.run().json["sent"] == [f"{TASK}/{number}"]
        assert list(fleet.contributions(number)) == [device_id(fresh)]


def test_a_second_plan_right_after_a_void(snapshots: Snapshots, fleet_from: FleetFrom) -> None:
    """Tries: a round that really is void, by the log, and at once a new one for the same parent.

    Declined by edge_client/store/contributions.py, `frees_parent`: the void cohort's
    members still hold the keys that could open it. tests/e2e/test_silent_devices.py goes on when they have expired.
    """
    fleet = fleet_from(snapshots.uploaded(3, 2))
    contributed, _, fresh = fleet.devices
    fleet.coordinator.command("round", "abort", f"{TASK}/1", "--yes")
    lying_rows.forgive_contributions(fleet.coordinator.directory)
    fleet.open_round()
    with fleet.serving():
        refused(contributed, NOT_NOW, kind="DECLINED", because="contributes to the same parent again only when")
        assert fresh.run().json["sent"] == [f"{TASK}/2"]


def test_a_restored_member_and_a_second_set_together_are_a_limit(snapshots: Snapshots, fleet_from: FleetFrom) -> None:
    """What it does not stop: a member whose disk is an image from before its answer, and a coordinator that knows it.

    The image holds the erased key and not the record of the answer, and the coordinator hides that it is an
    old one. So the member answers a second set, which it cannot know to be one (docs/threat-model.md). One such
    member is worth as much as a corrupt one: f of them are allowed for.
    """
    fleet = fleet_from(snapshots.uploaded(6, 6))
    member = fleet.devices[0]
    image = member.home.with_name("image")
    shutil.copytree(member.home, image)
    before = fleet.directory / "coordinator-before"
    shutil.copytree(fleet.coordinator.directory, before)
    with fleet.serving():
        assert len(member.run().json["answered"]) == 1
    shutil.rmtree(member.home)
    image.rename(member.home)
    shutil.rmtree(fleet.coordinator.directory)
    before.rename(fleet.coordinator.directory)
    lying_rows.second_set(fleet.coordinator.directory)
    with fleet.serving():
        assert len(member.run().json["answered"]) == 1
