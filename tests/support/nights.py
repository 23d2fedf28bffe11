"""One night of a real coordinator with devices that a test plays: real TLS and gRPC, real keys, no training.

The coordinator serves in this process, so that a test can read its rows and
objects; the devices are `ScriptedDevice`s, which verify and encrypt as real ones
do and say whatever the test wants. What a device encrypts is random over the
whole range, so that a sum of other devices' vectors is never right by chance.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import select

from coordinator.aggregation import places
from coordinator.configuration import Storage
from coordinator.deployment import Deployment
from coordinator.rounds.advance import advance
from coordinator.rounds.plans import open_round
from coordinator.service.server import serving
from coordinator.storage.rows import AnswerRow, Cohort, CohortState, Contribution, ContributionState, Task
from nightshift.host.clock import now_unix_s
from nightshift.protocol.identity import DeviceId
from nightshift.protocol.plan_checks import VerifiedPlan
from nightshift.v1 import device_pb2
from tests.support.coordinators import TASK, make_home, make_task, make_token, open_home
from tests.support.scripted_device import Prepared, ScriptedDevice

WINDOW_S = 600
"""How long uploads, and then answers, are taken."""


@dataclass
class Night:
    """A served coordinator with one task, and its devices.

    Attributes:
        deployment: of the coordinator, for looking at rows and objects.
        devices: all have joined and published prekeys.
        move_clock: moves protocol time by so many seconds.
        service: ends when it is closed.
    """

    deployment: Deployment
    devices: list[ScriptedDevice]
    move_clock: Callable[[float], None]
    service: ExitStack
    plan: VerifiedPlan = field(init=False)

    def stop(self) -> None:
        """Let the coordinator end in good order."""
        self.service.close()

    @contextmanager
    def moved_to(self, deployment: Deployment) -> Iterator[None]:
        """Let another deployment, with the same addresses, serve the devices for the length of a block."""
        with serving(deployment):
            self.deployment = deployment
            yield

    def open_round(self) -> VerifiedPlan:
        """Open the next round and return its plan, verified by the last device."""
        with self.deployment.database.transaction() as session:
            open_round(session, self.deployment, session.get_one(Task, TASK), now_unix_s())
        plan = self.devices[-1].check_in().plan
        assert plan is not None, "an open round is offered to everybody"
        self.plan = plan
        return plan

    def prepare(self, device: ScriptedDevice) -> Prepared:
        """What an honest device uploads to the open round."""
        length = self.plan.document.vector.delta_length
        clip = self.plan.document.vector.encoding.clip
        delta = np.random.default_rng().uniform(-clip, clip, length).astype(np.float32)
        return device.prepare(self.plan, delta)

    def contribute(self, *devices: ScriptedDevice) -> list[Prepared]:
        """Honest contributions, counted."""
        prepared = [self.prepare(device) for device in devices]
        for device, one in zip(devices, prepared, strict=True):
            assert device.upload(one).complete
        return prepared

    def end_uploads(self) -> Cohort:
        """Let the upload deadline pass: the cohort freezes, or is void."""
        self.move_clock(WINDOW_S + 1)
        advance(self.deployment)
        return self.cohort()

    def end_answers(self) -> Cohort:
        """Let both deadlines pass."""
        self.move_clock(2 * WINDOW_S + 2)
        advance(self.deployment)
        return self.cohort()

    def members(self) -> list[ScriptedDevice]:
        """The committee of the open round, by index."""
        by_id = {device.device_id: device for device in self.devices}
        return [by_id[key.device_id] for key in self.plan.member_keys()]

    def make_answer(self, member: ScriptedDevice) -> device_pb2.AnswerRequest:
        """A member's honest answer to the frozen set."""
        return member.make_answer(self.plan.document.cohort_id)

    def answer(self, *members: ScriptedDevice) -> None:
        """Let these members answer honestly."""
        for member in members:
            member.send_answer(self.make_answer(member))

    def cohort(self) -> Cohort:
        """The row of the round's cohort."""
        with self.deployment.database.reading() as session:
            return session.get_one(Cohort, self.plan.document.cohort_id)

    def counted(self) -> set[DeviceId]:
        """Devices in the running sum."""
        with self.deployment.database.reading() as session:
            rows = session.scalars(
                select(Contribution).where(
                    Contribution.cohort_id == self.plan.document.cohort_id,
                    Contribution.state == ContributionState.COUNTED,
                )
            )
            return {DeviceId(row.device_id) for row in rows}

    def received(self, device: ScriptedDevice) -> int:
        """Bytes of a device's contribution that are durable; 0 if it announced none."""
        with self.deployment.database.reading() as session:
            row = session.get(Contribution, (self.plan.document.cohort_id, device.device_id))
        return row.durable_bytes if row is not None else 0

    def answers_kept(self) -> list[int]:
        """Indexes of the members whose answers are durable."""
        with self.deployment.database.reading() as session:
            rows = session.scalars(select(AnswerRow).where(AnswerRow.cohort_id == self.plan.document.cohort_id))
            return sorted(row.member_index for row in rows)

    def opened_sum(self) -> NDArray[np.uint64]:
        """What the coordinator opened: uint64[D]."""
        data = self.deployment.objects.get(places.opened_key(self.plan.document.cohort_id))
        values: NDArray[np.uint64] = np.load(io.BytesIO(data), allow_pickle=False)
        return values

    def require_exact_sum(self, prepared: Sequence[Prepared]) -> None:
        """Assert that the opened sum is, integer for integer, that of exactly these contributions."""
        assert self.cohort().state is CohortState.OPENED, self.cohort().reason
        total = np.sum([one.values for one in prepared], axis=0, dtype=np.uint64)
        np.testing.assert_array_equal(self.opened_sum(), total)

    def require_no_sum(self) -> None:
        """Assert that nothing was opened, and no release came of the round."""
        assert self.cohort().state is not CohortState.OPENED
        assert places.opened_key(self.plan.document.cohort_id) not in set(self.deployment.objects.list("sums"))


@contextmanager
def night(
    directory: Path,
    package: Path,
    move_clock: Callable[[float], None],
    *,
    devices: int,
    n_min: int = 3,
    storage: Storage | None = None,
) -> Iterator[Night]:
    """A night whose devices all have a seat on the committee; its first round is open.

    Args:
        directory: of the coordinator; does not exist yet.
        package: of the model.
        move_clock: sets by how many seconds this process's protocol time is ahead.
        devices: how many, all of them in the pool.
        n_min: of the plan.
        storage: where rows and objects lie; in the directory if absent.
    """
    with open_home(make_home(directory, storage)) as deployment:
        make_task(
            deployment,
            package,
            cohort={"n_max": devices, "n_min": n_min, "pool_min": devices},
            # What is encrypted here has values over the whole range, and so a norm that no honest device's has.
            encoding={"clip_norm": 0.0, "value_clip": 1.0},
            rounds={"upload_window_s": WINDOW_S, "answer_window_s": WINDOW_S},
        )
        with ExitStack() as service:
            service.enter_context(serving(deployment))
            token = make_token(deployment)
            joined = [ScriptedDevice(token, name=f"device {number}") for number in range(devices)]
            try:
                for device in joined:
                    device.join()
                    device.check_in(new_prekeys=2)
                made = Night(deployment, joined, move_clock, service)
                made.open_round()
                yield made
            finally:
                for device in joined:
                    device.close()
