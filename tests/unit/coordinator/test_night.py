"""Whole nights of scripted devices against a served coordinator, over real gRPC and TLS."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from sqlalchemy import select

from coordinator.deployment import Deployment
from coordinator.releases.publication import find_release, load_adapter, newest_release
from coordinator.rounds.advance import abort, advance
from coordinator.rounds.plans import open_round
from coordinator.rounds.rounds import find
from coordinator.storage.rows import Cohort, CohortState, RoundState, Task
from nightshift.host.clock import now_unix_s
from nightshift.protocol.adapters.layout import Side
from nightshift.protocol.errors import NotFoundError, StateConflictError
from nightshift.protocol.plan_checks import VerifiedPlan
from tests.support.coordinators import TASK, make_task
from tests.support.scripted_device import Prepared, ScriptedDevice

Join = Callable[[], ScriptedDevice]
Clock = Callable[[float], None]


def enrol_and_open(deployment: Deployment, join: Join, count: int = 6) -> list[ScriptedDevice]:
    devices = [join() for _ in range(count)]
    for device in devices:
        device.check_in(new_prekeys=2)
    with deployment.database.transaction() as session:
        open_round(session, deployment, session.get_one(Task, TASK), now_unix_s())
    return devices


def random_delta(plan: VerifiedPlan, seed: int) -> NDArray[np.float32]:
    generator = np.random.default_rng(seed)
    return generator.uniform(-0.5, 0.5, plan.document.vector.delta_length).astype(np.float32)


def contribute(device: ScriptedDevice, seed: int) -> Prepared:
    plan = device.check_in().plan
    assert plan is not None
    prepared = device.prepare(plan, random_delta(plan, seed))
    assert device.upload(prepared).complete
    return prepared


def cohort_of(deployment: Deployment, round_number: int = 1) -> Cohort:
    with deployment.database.reading() as session:
        return session.scalars(select(Cohort).where(Cohort.round_number == round_number)).one()


def test_the_opened_sum_is_the_sum_of_what_the_devices_encoded(served: Deployment, join: Join, package: Path) -> None:
    make_task(served, package, cohort={"n_max": 6, "n_min": 3})
    devices = enrol_and_open(served, join)
    prepared = [contribute(device, seed) for seed, device in enumerate(devices)]
    cohort = cohort_of(served)
    assert cohort.state is CohortState.FROZEN

    for device in devices[:5]:
        (duty,) = device.check_in().duties
        device.send_answer(device.make_answer(duty))

    cohort = cohort_of(served)
    assert cohort.state is CohortState.OPENED
    opened = np.load(io.BytesIO(served.objects.get(f"sums/{cohort.cohort_id.hex()}.npy")))
    assert np.array_equal(opened, sum(one.values for one in prepared))

    with served.database.reading() as session:
        release = newest_release(session, TASK)
        assert (release.number, release.contributors) == (1, 6)
    layout, tensors = load_adapter(served.objects, release)
    mean = np.mean([random_delta(prepared[0].plan, seed) for seed in range(6)], axis=0)
    assert np.allclose(layout.to_vector(tensors, Side.B), mean, atol=1e-4)
    # The last member still sees the night's end: no duty, and the new release, in the log.
    greeting = devices[5].check_in()
    assert greeting.duties == []
    served, newest = greeting.releases
    assert (served.document.number, newest.document.number) == (0, 1)
    size, adapter = devices[5].fetch(release.adapter_sha256)
    assert (size, len(adapter)) == (newest.document.adapter_size_bytes,) * 2


def test_nothing_is_left_of_the_uploads_when_the_night_is_over(served: Deployment, join: Join, package: Path) -> None:
    make_task(served, package, cohort={"n_max": 3, "n_min": 3})
    devices = enrol_and_open(served, join, 3)
    for seed, device in enumerate(devices):
        contribute(device, seed)
    for device in devices:
        (duty,) = device.check_in().duties
        device.send_answer(device.make_answer(duty))
    advance(served)
    cohort = cohort_of(served)
    assert cohort.erased
    assert list(served.objects.list(f"cohorts/{cohort.cohort_id.hex()}")) == []


def test_the_second_night_trains_the_other_side_of_the_new_release(
    served: Deployment, join: Join, package: Path
) -> None:
    make_task(served, package, cohort={"n_max": 3, "n_min": 3}, rounds={"open": "automatic", "total": 2})
    devices = [join() for _ in range(3)]
    for device in devices:
        device.check_in(new_prekeys=4)
    sides = []
    for night in range(2):
        for seed, device in enumerate(devices):
            sides.append(contribute(device, 10 * night + seed).plan.document.side)
        for device in devices:
            for duty in device.check_in(no_plan=True).duties:
                device.send_answer(device.make_answer(duty))
    assert sides == [Side.B] * 3 + [Side.A] * 3
    greeting = devices[0].check_in()
    assert greeting.plan is None, "two releases were asked for"
    # What the second round measured of release 1 had it served; release 2 waits for a third round.
    assert [one.document.number for one in greeting.releases] == [1, 2]


def test_momentum_lives_from_night_to_night(served: Deployment, join: Join, package: Path) -> None:
    make_task(
        served,
        package,
        cohort={"n_max": 3, "n_min": 3},
        rounds={"open": "automatic", "total": 2},
        adapter={"rank": 2, "targets": ["q_proj"], "method": "ffa"},
        server={"method": "fedavgm", "momentum": 0.5},
    )
    devices = [join() for _ in range(3)]
    for device in devices:
        device.check_in(new_prekeys=4)
    means = []
    for night in range(2):
        prepared = [contribute(device, 10 * night + seed) for seed, device in enumerate(devices)]
        means.append(np.mean([random_delta(prepared[0].plan, 10 * night + seed) for seed in range(3)], axis=0))
        for device in devices:
            for duty in device.check_in(no_plan=True).duties:
                device.send_answer(device.make_answer(duty))
    with served.database.reading() as session:
        release = newest_release(session, TASK)
    layout, tensors = load_adapter(served.objects, release)
    # B starts at zero: the first step is the first mean, the second 0.5 of it and the second mean.
    assert np.allclose(layout.to_vector(tensors, Side.B), 1.5 * means[0] + means[1], atol=2e-4)


def test_one_silent_member_and_one_who_never_uploads_do_not_stop_the_night(
    served: Deployment, join: Join, package: Path, clock: Clock
) -> None:
    make_task(served, package)
    devices = enrol_and_open(served, join)
    prepared = [contribute(device, seed) for seed, device in enumerate(devices[:5])]
    clock(700)
    advance(served)
    assert cohort_of(served).state is CohortState.FROZEN
    for device in devices[1:]:
        (duty,) = device.check_in().duties
        device.send_answer(device.make_answer(duty))
    cohort = cohort_of(served)
    assert cohort.state is CohortState.OPENED
    opened = np.load(io.BytesIO(served.objects.get(f"sums/{cohort.cohort_id.hex()}.npy")))
    assert np.array_equal(opened, sum(one.values for one in prepared))


def test_two_silent_members_of_six_void_the_night_and_a_later_one_works(
    served: Deployment, join: Join, package: Path, clock: Clock
) -> None:
    make_task(served, package)
    devices = enrol_and_open(served, join)
    for seed, device in enumerate(devices[:4]):
        contribute(device, seed)
    clock(700)
    for device in devices[2:]:
        (duty,) = device.check_in().duties
        device.send_answer(device.make_answer(duty))
    clock(2000)
    advance(served)
    cohort = cohort_of(served)
    assert cohort.state is CohortState.VOID
    assert cohort.reason == "4 committee members answered before the deadline, 5 are needed"
    greeting = devices[0].check_in(new_prekeys=1)
    (void,) = greeting.reply.voids
    proof = void.proof
    entry = greeting.view.require(proof, kind=4, subject=cohort.cohort_id, digest=cohort.plan_hash)
    assert "5 are needed" in entry.note
    assert devices[5].check_in().reply.voids == []

    # Until the dead cohort's prekeys have expired, its contributors say nothing more about this parent.
    clock(15 * 86_400)
    for device in devices:
        device.check_in(new_prekeys=1)
    with served.database.transaction() as session:
        open_round(session, served, session.get_one(Task, TASK), now_unix_s())
    assert devices[0].check_in().plan is not None


def test_an_operator_can_end_a_round(served: Deployment, join: Join, package: Path) -> None:
    make_task(served, package)
    devices = enrol_and_open(served, join)
    contribute(devices[0], 0)
    with served.database.transaction() as session:
        abort(session, served, find(session, f"{TASK}/1")[1], "wrong task file")
    with pytest.raises(StateConflictError), served.database.transaction() as session:
        abort(session, served, find(session, f"{TASK}/1")[1], "again")
    advance(served)
    with served.database.reading() as session:
        found, _ = find(session, f"{TASK}/1")
        assert (found.state, found.reason) == (RoundState.VOID, "wrong task file")
    assert devices[1].check_in().plan is None
    assert len(devices[0].check_in().reply.voids) == 1


def test_what_is_too_short_to_be_an_id_names_no_cohort_and_no_release(
    served: Deployment, join: Join, package: Path
) -> None:
    """Where there is one, the empty beginning of an id would be its: `round abort "$NAME"` of a script without NAME."""
    make_task(served, package)
    enrol_and_open(served, join, 3)
    cohort_id = cohort_of(served).cohort_id.hex()
    with served.database.reading() as session:
        assert find(session, cohort_id[:4])[1][0].cohort_id.hex() == cohort_id
        for name in ("", cohort_id[:3]):
            with pytest.raises(NotFoundError, match="no round or cohort"):
                find(session, name)
        with pytest.raises(NotFoundError, match="no release"):
            find_release(session, "")
