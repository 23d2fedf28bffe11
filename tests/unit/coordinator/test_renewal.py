"""The next certificate of a key, in time and late: who gets it, from when it counts, and who does not."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import grpc
import numpy as np
import pytest
from sqlalchemy import func, select

from coordinator.deployment import Deployment
from coordinator.enrolment.devices import find_device, revoke
from coordinator.enrolment.renewal import CONTINUITY_S
from coordinator.rounds.advance import advance
from coordinator.rounds.plans import open_round
from coordinator.storage.rows import Cohort, CohortState, Device, DeviceState, LogEntryRow, Task
from nightshift.host.clock import now_unix_s
from nightshift.host.rpc import from_rpc_error
from nightshift.protocol.certificates import DeviceCertificate, verify_device_certificate
from nightshift.protocol.errors import (
    ClonedIdentityError,
    MalformedError,
    NightshiftError,
    RevokedError,
    SignatureInvalidError,
)
from nightshift.v1 import join_pb2
from tests.support.coordinators import TASK, make_task, make_token
from tests.support.renewals import begin, end, join_stub, renew
from tests.support.scripted_device import ScriptedDevice

Clock = Callable[[float], None]
Join = Callable[[], ScriptedDevice]
DAY_S = 86_400


def read(certificate: bytes, served: Deployment) -> DeviceCertificate:
    return verify_device_certificate(certificate, served.authority.root, now_unix_s())


def log_size(served: Deployment) -> int:
    with served.database.reading() as session:
        return session.scalar(select(func.count()).select_from(LogEntryRow)) or 0


def test_before_two_thirds_of_its_life_a_certificate_stays(served: Deployment, join: Join, clock: Clock) -> None:
    device = join()
    clock(19.9 * DAY_S)
    size = log_size(served)
    assert renew(device) == device.certificate
    assert log_size(served) == size


def test_after_two_thirds_there_is_a_new_one_and_only_one(served: Deployment, join: Join, clock: Clock) -> None:
    device = join()
    clock(20.1 * DAY_S)
    size = log_size(served)
    second = renew(device)
    assert second != device.certificate
    assert log_size(served) == size + 1, "everyone can see it"
    found = read(second, served)
    assert found.device_id == device.device_id
    assert found.not_after_unix_s >= now_unix_s() + 30 * DAY_S - 5
    assert renew(device) == second, "a reply that was lost is asked for again"


def test_the_new_one_reaches_back_so_that_a_round_of_yesterday_still_counts_its_holder(
    served: Deployment, join: Join, clock: Clock
) -> None:
    device = join()
    joined = read(device.certificate, served).not_before_unix_s
    clock(25 * DAY_S)
    found = read(renew(device), served)
    assert found.not_before_unix_s == pytest.approx(now_unix_s() - CONTINUITY_S, abs=5)
    assert found.not_before_unix_s > joined


def test_who_renews_in_the_middle_of_the_longest_round_still_counts_in_it(
    served: Deployment, join: Join, package: Path, clock: Clock
) -> None:
    """A round of almost fourteen days, logged six days before the renewal: the new certificate reaches behind it."""
    make_task(served, package, rounds={"upload_window_s": 12 * DAY_S, "answer_window_s": DAY_S, "cohorts": 1})
    devices = [join() for _ in range(3)]
    clock(14.5 * DAY_S)
    for device in devices:
        device.check_in(new_prekeys=2)
    with served.database.transaction() as session:
        open_round(session, served, session.get_one(Task, TASK), now_unix_s())
    for days in (20.5, 26.4):
        clock(days * DAY_S)
        for device in devices:
            device.certificate = renew(device)
            plan = device.check_in().plan
            assert plan is not None, "its certificate is valid at the time at which the plan was logged"
    plan = devices[0].check_in().plan
    assert plan is not None
    delta = np.full(plan.document.vector.delta_length, 0.01, np.float32)
    for device in devices:
        assert device.upload(device.prepare(plan, delta)).complete
    clock(26.6 * DAY_S)
    advance(served)
    # Each member verifies each contributor with the certificate that it renewed after the plan was logged.
    for device in devices:
        (duty,) = device.check_in(no_plan=True).reply.duties
        device.send_answer(device.make_answer(duty.cohort_id))
    with served.database.reading() as session:
        assert session.scalars(select(Cohort.state)).all() == [CohortState.OPENED]


def test_a_certificate_that_reaches_back_is_renewed_no_earlier(served: Deployment, join: Join, clock: Clock) -> None:
    device = join()
    clock(20.1 * DAY_S)
    second = renew(device)
    clock((20.1 + 19.9) * DAY_S)
    assert renew(device) == second
    clock((20.1 + 20.1) * DAY_S)
    assert renew(device) != second


def test_a_renewal_is_for_the_key_of_the_connection(join: Join) -> None:
    device, other = join(), join()
    with pytest.raises(MalformedError, match="for another key"):
        renew(device, other.certificate_request())
    with pytest.raises(MalformedError, match="signing request"):
        renew(device, b"garbage")


def test_a_revoked_device_gets_none(served: Deployment, join: Join) -> None:
    device = join()
    revoke_in(served, device)
    with pytest.raises(RevokedError, match="revoked by the operator"):
        renew(device)


def revoke_in(served: Deployment, device: ScriptedDevice) -> None:
    with served.database.transaction() as session:
        revoke(session, served.log, find_device(session, device.device_id.hex()), reason="", now_unix_s=now_unix_s())


# Late


def test_long_after_its_end_the_holder_of_the_key_gets_a_new_one(served: Deployment, join: Join, clock: Clock) -> None:
    device = join()
    clock((30 + 89) * DAY_S)
    second = end(device, begin(device))
    found = read(second, served)
    assert found.device_id == device.device_id
    assert found.not_before_unix_s == pytest.approx(now_unix_s() - 3600, abs=5), "it was not certified in between"
    assert end(device, begin(device)) == second


def test_past_the_grace_period_it_does_not(join: Join, clock: Clock) -> None:
    device = join()
    clock((30 + 91) * DAY_S)
    with pytest.raises(RevokedError, match=r"more than 90 days ago; ask the operator .* edge-client join TOKEN"):
        end(device, begin(device))


def test_neither_does_who_is_revoked_held_or_unknown(served: Deployment, join: Join, clock: Clock) -> None:
    revoked, held = join(), join()
    revoke_in(served, revoked)
    with served.database.transaction() as session:
        session.get_one(Device, held.device_id).state = DeviceState.HELD
    unknown = ScriptedDevice(make_token(served), _trust=held.trust)
    clock(40 * DAY_S)
    expected: list[tuple[ScriptedDevice, type[NightshiftError], str]] = [
        (revoked, RevokedError, "revoked by the operator"),
        (held, ClonedIdentityError, "in use twice"),
        (unknown, RevokedError, "does not know the device"),
    ]
    for device, kind, match in expected:
        with pytest.raises(kind, match=match) as caught:
            end(device, begin(device))
        assert type(caught.value) is kind


def test_a_challenge_is_good_for_some_minutes(join: Join, clock: Clock) -> None:
    device = join()
    clock(40 * DAY_S)
    answer = begin(device)
    clock(40 * DAY_S + 400)
    with pytest.raises(RevokedError, match="took too long"):
        end(device, answer)


def test_whoever_lacks_the_key_gets_nothing(served: Deployment, join: Join, clock: Clock) -> None:
    device, thief = join(), join()
    clock(40 * DAY_S)
    stolen = begin(device)
    stolen.certificate_request = thief.certificate_request()
    with pytest.raises(MalformedError, match="for another key"):
        end(thief, stolen)
    forged = begin(device)
    forged.signature = os.urandom(32) + bytes(31) + b"\1"
    with pytest.raises(SignatureInvalidError, match="renewal's signature"):
        end(thief, forged)
    invented = begin(device)
    invented.challenge.signature = thief.sign(b"a challenge of my own")
    with pytest.raises(SignatureInvalidError, match="renewal challenge"):
        end(thief, invented)
    with served.database.reading() as session:
        assert session.get_one(Device, device.device_id).certificate == device.certificate


@pytest.mark.parametrize("identity", [b"", bytes(31), bytes(33)])
def test_what_is_no_device_id(served: Deployment, identity: bytes) -> None:
    with join_stub(make_token(served)) as stub, pytest.raises(grpc.RpcError) as caught:
        stub.BeginRenewal(join_pb2.BeginRenewalRequest(device_id=identity), timeout=10)
    assert isinstance(from_rpc_error(caught.value, "here"), MalformedError)
    with join_stub(make_token(served)) as stub, pytest.raises(grpc.RpcError) as caught:
        stub.EndRenewal(join_pb2.EndRenewalRequest(device_id=identity), timeout=10)
    assert isinstance(from_rpc_error(caught.value, "here"), MalformedError | SignatureInvalidError)
