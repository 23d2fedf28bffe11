"""Committees drawn from named devices: owners who pinned these find them seated, and nobody chose a seat."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from coordinator.deployment import Deployment
from coordinator.rounds.plans import open_round
from coordinator.rounds.rounds import cohorts_of
from coordinator.storage.rows import Task
from edge_client.configuration import PolicySettings
from edge_client.policy import Situation, check_plan
from nightshift.host.clock import now_unix_s
from nightshift.protocol.errors import DeclinedError
from nightshift.protocol.plan import PlanDocument
from nightshift.protocol.readable_ids import readable_id
from tests.support.coordinators import TASK, make_task
from tests.support.scripted_device import ScriptedDevice

Join = Callable[[], ScriptedDevice]


def opened_plan(deployment: Deployment) -> PlanDocument:
    with deployment.database.transaction() as session:
        opened = open_round(session, deployment, session.get_one(Task, TASK), now_unix_s())
        (cohort,) = cohorts_of(session, opened)
        return PlanDocument.parse(cohort.plan)


def test_the_named_devices_sit_and_all_may_contribute(served: Deployment, join: Join, package: Path) -> None:
    devices = [join() for _ in range(6)]
    named = [readable_id(device.device_id) for device in devices[:4]]
    make_task(served, package, cohort={"n_max": 8, "n_min": 3, "committee": 3, "committee_from": named})
    for device in devices:
        device.check_in(new_prekeys=2)
    plan = opened_plan(served)
    assert set(plan.pool) == {device.device_id for device in devices[:4]}
    assert len(plan.committee) == 3
    # The draw decided which three of the four; every device, seated or not, verifies it and is offered the plan.
    for device in devices:
        offered = device.check_in().plan
        assert offered is not None
        assert offered.document == plan
    # An owner who pinned the four takes part (C - T + 1 = 1); one who pinned the other two does not.
    alone = Situation(devices[5].device_id, (), (), now_unix_s())
    check_plan(PolicySettings(minimum_cohort=3, pinned_peers=tuple(named)), plan, alone)
    others = tuple(readable_id(device.device_id) for device in devices[4:])
    with pytest.raises(DeclinedError, match="0 of its 3 committee members"):
        check_plan(PolicySettings(minimum_cohort=3, pinned_peers=others), plan, alone)


def test_no_round_opens_where_too_few_of_them_are_there(served: Deployment, join: Join, package: Path) -> None:
    devices = [join() for _ in range(4)]
    named = [device.device_id.hex() for device in devices[:3]]
    make_task(served, package, cohort={"n_max": 8, "n_min": 3, "committee_from": named})
    for device in devices[1:]:
        device.check_in(new_prekeys=2)
    with pytest.raises(DeclinedError, match=r"2 of the 3 devices of cohort\.committee_from are in the pool, 3 are"):
        opened_plan(served)
    devices[0].check_in(new_prekeys=2)
    assert {member.prekey.device_id for member in opened_plan(served).committee} == {
        device.device_id for device in devices[:3]
    }
