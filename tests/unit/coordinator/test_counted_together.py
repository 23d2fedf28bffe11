"""Contributions that are complete at the same moment: folded onto one reading of the sum, each with its own end."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sqlalchemy import select

from coordinator.aggregation import uploads
from coordinator.compute.inline import Inline
from coordinator.deployment import SUMS_IN_MEMORY, Deployment
from coordinator.enrolment.devices import revoke
from coordinator.rounds.plans import open_round
from coordinator.storage.rows import Cohort, CohortState, Contribution, ContributionState, Device, Task
from nightshift.host.clock import now_unix_s
from nightshift.protocol.errors import RevokedError, SignatureInvalidError
from nightshift.protocol.secagg.running_sum import RunningSum
from tests.support.coordinators import TASK, make_task
from tests.support.fleets import wait_until
from tests.support.scripted_device import Prepared, ScriptedDevice

DEVICES = 5
LIMIT_S = 30
Upload = tuple[ScriptedDevice, Prepared]


@pytest.fixture
def prepared(served: Deployment, join: Callable[[], ScriptedDevice], package: Path) -> list[Upload]:
    """Devices with a contribution each; four of them fill the cohort."""
    make_task(served, package, cohort={"n_max": DEVICES - 1, "n_min": 3})
    devices = [join() for _ in range(DEVICES)]
    for device in devices:
        device.check_in(new_prekeys=2)
    with served.database.transaction() as session:
        open_round(session, served, session.get_one(Task, TASK), now_unix_s())
    return [(device, contribution(device)) for device in devices]


@pytest.fixture
def folds(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many ciphertexts went into each new sum."""
    real, seen = Inline.fold, []

    def fold(self: Inline, parameters: Any, length: int, running: bytes | None, ciphertexts: Iterable[Any]) -> bytes:
        seen.append(0)

        def counted() -> Iterator[Any]:
            for ciphertext in ciphertexts:
                seen[-1] += 1
                yield ciphertext

        return real(self, parameters, length, running, counted())

    monkeypatch.setattr(Inline, "fold", fold)
    return seen


def contribution(device: ScriptedDevice) -> Prepared:
    plan = device.check_in().plan
    assert plan is not None
    return device.prepare(plan, np.zeros(plan.document.vector.delta_length, dtype=np.float32))


def only_cohort(deployment: Deployment) -> Cohort:
    with deployment.database.reading() as session:
        return session.scalars(select(Cohort)).one()


@contextmanager
def held_back(served: Deployment, prepared: list[Upload]) -> Iterator[list[Future[Any]]]:
    """All bytes of all contributions are durable; the first waits to be folded, and behind it all others."""
    cohort_id = only_cohort(served).cohort_id
    with ThreadPoolExecutor(DEVICES) as pool:
        for _ in range(SUMS_IN_MEMORY):
            served.sums.acquire()
        try:
            sent = []
            for number, (device, one) in enumerate(prepared):
                sent.append(pool.submit(device.upload, one))
                wait_until(lambda: complete(served) == number + 1)  # noqa: B023 - asked within the same turn
                wait_until(lambda: served.counting.waiting(cohort_id) == number)  # noqa: B023 - the same
            yield sent
        finally:
            for _ in range(SUMS_IN_MEMORY):
                served.sums.release()


def complete(deployment: Deployment) -> int:
    with deployment.database.reading() as session:
        return sum(row.durable_bytes == row.size_bytes for row in session.scalars(select(Contribution)))


def require_exactly_these_in_the_sum(deployment: Deployment, expected: list[Upload]) -> None:
    """The rows, and the running sum byte for byte, in whatever order it was added."""
    cohort = only_cohort(deployment)
    with deployment.database.reading() as session:
        rows = session.scalars(select(Contribution).where(Contribution.state == ContributionState.COUNTED)).all()
    assert {row.device_id for row in rows} == {device.device_id for device, _ in expected}
    assert cohort.counted == len(expected)
    document = expected[0][1].plan.document
    total = RunningSum.new(document.parameters, document.vector.length)
    for _, one in expected:
        total.add(one.body[: document.parameters.ciphertext_bytes(document.vector.length)])
    assert cohort.running_sum_key is not None
    assert deployment.objects.get(cohort.running_sum_key) == total.to_bytes()
    left = [key for key in deployment.objects.list("cohorts") if "/uploads/" in key]
    assert left == [], "parts of what was counted or refused stay behind"
    kept = {row.sealed_key for row in rows} | {cohort.running_sum_key}
    assert set(deployment.objects.list("cohorts")) == kept, "objects that no row names stay behind"


def test_those_that_wait_are_folded_in_one_go(served: Deployment, prepared: list[Upload], folds: list[int]) -> None:
    with held_back(served, prepared[:3]) as sent:
        assert only_cohort(served).counted == 0
    assert all(future.result(LIMIT_S).complete for future in sent)
    assert folds == [1, 2]
    require_exactly_these_in_the_sum(served, prepared[:3])


def test_a_forged_one_among_them_ends_alone(served: Deployment, prepared: list[Upload]) -> None:
    device, good = prepared[1]
    forged = replace(good, body=bytes([good.body[0] ^ 1]) + good.body[1:])
    with held_back(served, [prepared[0], (device, forged), prepared[2], prepared[3]]) as sent:
        pass
    with pytest.raises(SignatureInvalidError):
        sent.pop(1).result(LIMIT_S)
    assert all(future.result(LIMIT_S).complete for future in sent)
    require_exactly_these_in_the_sum(served, [prepared[0], prepared[2], prepared[3]])
    assert device.upload(good).complete, "and its device may send the right one"


def test_one_revoked_while_it_waited_is_taken_out_of_the_sum(
    served: Deployment, prepared: list[Upload], folds: list[int]
) -> None:
    with held_back(served, prepared[:4]) as sent, served.database.transaction() as session:
        row = session.get_one(Device, prepared[2][0].device_id)
        revoke(session, served.log, row, reason="lost", now_unix_s=now_unix_s())
    with pytest.raises(RevokedError):
        sent.pop(2).result(LIMIT_S)
    assert all(future.result(LIMIT_S).complete for future in sent)
    assert folds == [1, 3, 2], "the sum with it was made, refused by the transaction, and made again"
    counted = [prepared[0], prepared[1], prepared[3]]
    with served.database.reading() as session:
        row_of_the_revoked = session.get(Contribution, (only_cohort(served).cohort_id, prepared[2][0].device_id))
    assert row_of_the_revoked is None or row_of_the_revoked.state is not ContributionState.COUNTED
    assert {each.device_id for each, _ in counted} == set(counted_devices(served))


def counted_devices(deployment: Deployment) -> list[bytes]:
    with deployment.database.reading() as session:
        counted = Contribution.state == ContributionState.COUNTED
        return list(session.scalars(select(Contribution.device_id).where(counted)))


def test_those_that_find_no_room_are_told_to_come_again(served: Deployment, prepared: list[Upload]) -> None:
    with held_back(served, prepared) as sent:
        pass
    outcomes = [future.exception(LIMIT_S) for future in sent]
    assert sum(outcome is None for outcome in outcomes) == DEVICES - 1
    assert outcomes[-1] is not None
    assert "check in again for the next round" in str(outcomes[-1])
    cohort = only_cohort(served)
    assert (cohort.state, cohort.counted) == (CohortState.FROZEN, DEVICES - 1)


def test_one_contribution_that_comes_twice_at_once_is_counted_once(served: Deployment, prepared: list[Upload]) -> None:
    device, _ = prepared[1]
    with held_back(served, prepared[:2]) as sent, ThreadPoolExecutor(1) as pool:
        with served.database.reading() as session:
            row = session.get_one(Device, device.device_id)
        cohort_id = only_cohort(served).cohort_id
        again = pool.submit(uploads.finish, served, row, cohort_id, now_unix_s())
        wait_until(lambda: served.counting.waiting(cohort_id) == 2)
        served.sums.release()  # one that `held_back` took: else this block would wait for its own end
        again.result(LIMIT_S)
        served.sums.acquire()
    assert all(future.result(LIMIT_S).complete for future in sent)
    require_exactly_these_in_the_sum(served, prepared[:2])
