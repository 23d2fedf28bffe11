"""Two coordinators on one PostgreSQL and one S3, as real processes: one sum and one release, whatever happens."""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from sqlalchemy import func, select

from coordinator import log
from coordinator.aggregation import places
from coordinator.configuration import Storage, read_configuration
from coordinator.deployment import Deployment
from coordinator.home import Home
from coordinator.leases import LEADER, replica_name
from coordinator.rounds.plans import open_round
from coordinator.storage.rows import Cohort, CohortState, Contribution, Lease, LogEntryRow, ReleaseRow, Task
from nightshift.host.clock import now_unix_s
from nightshift.host.failpoints import ENVIRONMENT_VARIABLE
from nightshift.packages.build import build_package
from nightshift.protocol.plan_checks import VerifiedPlan
from tests.support.coordinators import (
    TASK,
    ServeProcess,
    make_home,
    make_replica,
    make_task,
    make_token,
    open_home,
)
from tests.support.fleets import wait_until
from tests.support.scripted_device import Prepared, ScriptedDevice
from tests.support.stores import S3, PostgreSql

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
DEVICES = 3


@pytest.fixture(scope="session")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("replicas") / "stories"
    build_package(ROOT / "data" / "stories260K" / "stories260K-f32.gguf", folder)
    return folder


@dataclass
class Pair:
    """Two coordinators, and devices that may speak to either.

    Attributes:
        homes: their directories.
        looking: for reading rows and objects; serves nothing.
        devices: all have joined.
    """

    homes: tuple[Home, Home]
    looking: Deployment
    devices: list[ScriptedDevice]
    processes: list[ServeProcess] = field(default_factory=list)

    def serve(self, which: int, failpoint: str = "") -> ServeProcess:
        process = ServeProcess(self.homes[which], **({ENVIRONMENT_VARIABLE: failpoint} if failpoint else {}))
        self.processes.append(process)
        process.wait_until_ready()
        return process

    def at(self, device: ScriptedDevice, which: int) -> ScriptedDevice:
        """Let a device speak to one of the two from now on."""
        device.call_at(read_configuration(self.homes[which]).device_address())
        return device

    def open_round(self) -> VerifiedPlan:
        with self.looking.database.transaction() as session:
            open_round(session, self.looking, session.get_one(Task, TASK), now_unix_s())
        plan = self.devices[0].check_in().plan
        assert plan is not None
        return plan

    def leader(self) -> tuple[str, int]:
        with self.looking.database.reading() as session:
            row = session.get_one(Lease, LEADER)
            return row.holder, row.token

    def cohort(self) -> Cohort:
        with self.looking.database.reading() as session:
            return session.scalars(select(Cohort)).one()

    def wait_for(self, condition: Callable[[], bool], timeout_s: float = 60.0) -> None:
        wait_until(condition, limit_s=timeout_s)

    def releases(self) -> list[int]:
        with self.looking.database.reading() as session:
            return list(session.scalars(select(ReleaseRow.number).order_by(ReleaseRow.number)))

    def require_one_exact_sum(self, prepared: list[Prepared]) -> None:
        """Assert that everything happened once: the sum, integer for integer, one release, one log."""
        cohort = self.cohort()
        assert cohort.state is CohortState.OPENED, cohort.reason
        assert cohort.counted == len(prepared)
        data = self.looking.objects.get(places.opened_key(cohort.cohort_id))
        opened: NDArray[np.uint64] = np.load(io.BytesIO(data), allow_pickle=False)
        np.testing.assert_array_equal(opened, np.sum([one.values for one in prepared], axis=0, dtype=np.uint64))
        assert self.releases() == [0, 1]
        with self.looking.database.reading() as session:
            size, _ = log.verify_rows(session)
            assert size == session.scalar(select(func.count()).select_from(LogEntryRow))
            subjects = session.scalars(select(LogEntryRow.entry)).all()
            assert len(set(subjects)) == len(subjects)


def prepare(device: ScriptedDevice, plan: VerifiedPlan) -> Prepared:
    length = plan.document.vector.delta_length
    clip = plan.document.vector.encoding.clip
    return device.prepare(plan, np.random.default_rng().uniform(-clip, clip, length).astype(np.float32))


@pytest.fixture
def pair(tmp_path: Path, postgresql_server: PostgreSql, s3_server: S3, package: Path) -> Iterator[Pair]:
    storage = Storage(
        database=postgresql_server.new_database(),
        objects=f"{s3_server.new_bucket()}/night",
        objects_endpoint=s3_server.endpoint,
    )
    first = make_home(tmp_path / "first", storage)
    second = make_replica(first, tmp_path / "second")
    with open_home(first) as looking:
        make_task(
            looking,
            package,
            adapter={
                "rank": 8,
                "targets": ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"],
            },
            cohort={"n_max": DEVICES, "n_min": DEVICES, "pool_min": DEVICES},
            encoding={"clip_norm": 0.0, "value_clip": 1.0},  # values over the whole range have a large norm
        )
        token = make_token(looking)
        made = Pair((first, second), looking, [ScriptedDevice(token, name=str(each)) for each in range(DEVICES)])
        try:
            yield made
        finally:
            for device in made.devices:
                device.close()
            for process in made.processes:
                if process.running:
                    process.go_on()
                    process.kill()


def enrol(pair: Pair) -> None:
    for device in pair.devices:
        device.join()
        device.check_in(new_prekeys=2)


def answers(pair: Pair) -> None:
    for device in pair.devices:
        for duty in device.check_in().duties:
            device.send_answer(device.make_answer(duty))


def test_a_leader_that_was_paused_in_the_middle_of_an_opening(pair: Pair) -> None:
    """Tries: the leader computes the sum and is suspended right before it says so; its lease runs out, the other opens
    the sum and publishes; then the first wakes up, still believes that it leads, and goes on where it was.

    What stops a second opening: the transaction that would say so begins with the fencing token
    (coordinator/leases.py), and the lease has another one by then.
    """
    first = pair.serve(0, "coordinator.open.before-commit:1:pause")
    second = pair.serve(1)
    pair.wait_for(lambda: pair.leader()[0] == replica_name(pair.homes[0].directory))
    _, token = pair.leader()
    enrol(pair)
    plan = pair.open_round()
    prepared = [prepare(device, plan) for device in pair.devices]
    for device, one in zip(pair.devices, prepared, strict=True):
        assert device.upload(one).complete
    frozen = pair.cohort().set_hash
    assert frozen is not None

    for device in pair.devices:
        pair.at(device, 1)
    answers(pair)  # of which the leader hears through the rows
    first.wait_until_paused()
    assert pair.cohort().state is CohortState.FROZEN
    pair.wait_for(lambda: pair.releases() == [0, 1])
    assert pair.leader() == (replica_name(pair.homes[1].directory), token + 1)
    size = pair.looking.objects.get(places.opened_key(pair.cohort().cohort_id))

    first.go_on()
    device = pair.at(pair.devices[0], 0)
    assert max(release.document.number for release in device.check_in().releases) == 1
    time.sleep(2.0)  # four turns of its ticker
    pair.require_one_exact_sum(prepared)
    assert pair.cohort().set_hash == frozen
    assert pair.looking.objects.get(places.opened_key(pair.cohort().cohort_id)) == size
    assert pair.leader() == (replica_name(pair.homes[1].directory), token + 1)
    assert first.terminate() == 0
    assert "no longer leading" in first.errors
    assert second.terminate() == 0


def test_an_upload_that_one_began_is_finished_by_the_other(pair: Pair) -> None:
    """Tries: each device sends a part to one coordinator and the rest to the other; then the leader is killed.

    What makes that one upload: parts are objects and rows that both see (coordinator/aggregation/uploads.py).
    """
    first, _ = pair.serve(0), pair.serve(1)
    enrol(pair)
    plan = pair.open_round()
    prepared = [prepare(device, plan) for device in pair.devices]
    for device, one in zip(pair.devices, prepared, strict=True):
        device.open_upload(one)
        assert not device.send(one, stop=len(one.body) // 2).complete
        pair.at(device, 1)
        begun = device.open_upload(one)
        assert begun.offset == len(one.body) // 2
        assert device.send(one, offset=begun.offset).complete
    with pair.looking.database.reading() as session:
        assert session.scalar(select(func.count()).select_from(Contribution)) == DEVICES
    first.kill()
    answers(pair)
    pair.wait_for(lambda: pair.releases() == [0, 1])
    pair.require_one_exact_sum(prepared)
