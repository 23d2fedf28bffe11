"""kill -9 while contributions are counted several at a time: each is in the sum once, and the sum is the same."""

from __future__ import annotations

import signal
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from sqlalchemy import select

from coordinator.deployment import opened
from coordinator.storage.rows import Cohort, CohortState, Contribution, ContributionState
from nightshift.host import failpoints
from nightshift.host.tls import prepare_grpc
from nightshift.protocol.errors import UnreachableError
from nightshift.protocol.secagg.running_sum import RunningSum
from scripts.load.fleet import LoadFleet
from scripts.load.stage import TASK, serving
from scripts.night.fleet import Coordinator
from tests.support.scripted_device import Prepared, ScriptedDevice

pytestmark = pytest.mark.slow

DEVICES = 8
WITHIN_S = 60


def prepared_of(device: ScriptedDevice) -> Prepared:
    plan = device.check_in().plan
    assert plan is not None
    return device.prepare(plan, np.zeros(plan.document.vector.delta_length, dtype=np.float32))


def all_at_once(fleet: LoadFleet, prepared: list[Prepared]) -> list[bool]:
    """Everybody sends at the same time; returns whose contribution was acknowledged."""

    def send(device: ScriptedDevice, one: Prepared) -> bool:
        try:
            return bool(device.upload(one).complete)
        except UnreachableError:
            return False

    with ThreadPoolExecutor(DEVICES) as pool:
        return list(pool.map(send, fleet.devices, prepared))


@pytest.mark.parametrize("failpoint", ["coordinator.fold.before-commit", "coordinator.upload.durable"])
def test_in_the_second_group(tmp_path: Path, failpoint: str) -> None:
    """Tries: kill -9 on either side of the transaction that counts what waited behind the first contribution.

    What stops a double count: the sum with the group is another object, and one transaction makes it the cohort's
    sum and marks all of the group counted (coordinator/aggregation/{counting,folding}.py).
    """
    prepare_grpc()
    with (
        serving(tmp_path, rank=1, devices=DEVICES, cohort=DEVICES) as (coordinator, token),
        closing(LoadFleet(DEVICES, DEVICES)) as fleet,
    ):
        fleet.join(token)
        coordinator.command("round", "open", TASK)
        prepared = [prepared_of(device) for device in fleet.devices]
        coordinator.stop()
        coordinator.serve({failpoints.ENVIRONMENT_VARIABLE: f"{failpoint}:2"})
        acknowledged = all_at_once(fleet, prepared)
        require_killed(coordinator)
        assert not all(acknowledged), "who waited in the second group cannot have been answered"
        coordinator.serve()
        assert all(all_at_once(fleet, prepared)), "who sends again is counted, or was"
        coordinator.stop()
        require_the_sum_of(coordinator.directory, prepared)


def require_killed(coordinator: Coordinator) -> None:
    assert coordinator.process is not None, "it served"
    assert coordinator.process.wait(WITHIN_S) == -signal.SIGKILL, "nobody waited behind the first contribution"


def require_the_sum_of(directory: Path, prepared: list[Prepared]) -> None:
    """The rows, and the running sum byte for byte."""
    document = prepared[0].plan.document
    expected = RunningSum.new(document.parameters, document.vector.length)
    for one in prepared:
        expected.add(one.body[: document.parameters.ciphertext_bytes(document.vector.length)])
    with opened(directory) as deployment:
        with deployment.database.reading() as session:
            cohort = session.scalars(select(Cohort)).one()
            states = session.scalars(select(Contribution.state)).all()
        assert cohort.state is CohortState.FROZEN
        assert (cohort.counted, list(states)) == (DEVICES, [ContributionState.COUNTED] * DEVICES)
        assert cohort.running_sum_key is not None
        assert deployment.objects.get(cohort.running_sum_key) == expected.to_bytes()
