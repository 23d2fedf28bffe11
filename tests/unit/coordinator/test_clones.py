"""Two devices with one identity, and everything that only looks like it."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable

import grpc
import pytest

from coordinator.deployment import Deployment
from coordinator.enrolment import clones
from coordinator.enrolment.devices import find_device
from coordinator.rounds.pool import pool
from coordinator.storage.rows import Device, DeviceState
from nightshift.host.clock import now_unix_s
from nightshift.host.rpc import from_rpc_error
from nightshift.protocol.errors import ClonedIdentityError, ExitCode, MalformedError, NotFoundError
from nightshift.protocol.readable_ids import readable_id
from nightshift.v1 import device_pb2
from tests.support.scripted_device import ScriptedDevice

Join = Callable[[], ScriptedDevice]


def copied(device: ScriptedDevice) -> ScriptedDevice:
    """The same key, the same memory, in another place."""
    device.close()
    clone = copy.copy(device)
    clone.next_nonce = os.urandom(32)
    return clone


def state(served: Deployment, device: ScriptedDevice) -> DeviceState:
    with served.database.reading() as session:
        return session.get_one(Device, device.device_id).state


def repeat(device: ScriptedDevice, *, last: bytes, proposed: bytes) -> None:
    """A check-in whose reply goes lost: the device learns nothing from it."""
    request = device_pb2.CheckInRequest(
        protocol_version_min=1, protocol_version_max=1, epoch=device.epoch, last_nonce=last, next_nonce=proposed
    )
    try:
        device.stub.CheckIn(request, timeout=10)
    except grpc.RpcError as error:
        raise from_rpc_error(error, "here") from error


@pytest.mark.parametrize("check_ins", [0, 1, 5])
@pytest.mark.parametrize("first", ["original", "clone"])
def test_the_second_to_speak_is_noticed(served: Deployment, join: Join, check_ins: int, first: str) -> None:
    original = join()
    for _ in range(check_ins):
        original.check_in()
    clone = copied(original)
    one, other = (original, clone) if first == "original" else (clone, original)
    one.check_in()
    with pytest.raises(ClonedIdentityError, match="in use twice") as caught:
        other.check_in()
    assert caught.value.exit_code is ExitCode.REVOKED
    with pytest.raises(ClonedIdentityError, match="edge-client leave"):
        one.check_in()
    assert state(served, original) is DeviceState.HELD
    clone.close()


def test_copies_that_take_turns_are_noticed_too(join: Join) -> None:
    """Each presents what the other proposed before: only a nonce of one's own choice tells them apart."""
    original = join()
    original.check_in()
    clone = copied(original)
    original.check_in()
    clone.last_nonce = original.last_nonce
    clone.check_in()
    with pytest.raises(ClonedIdentityError):
        original.check_in()
    clone.close()


def test_a_held_device_is_in_no_round(served: Deployment, join: Join) -> None:
    device = join()
    device.check_in(new_prekeys=2)
    assert len(pool_now(served)) == 1
    clone = copied(device)
    clone.check_in()
    with pytest.raises(ClonedIdentityError):
        device.check_in()
    assert pool_now(served) == []
    with pytest.raises(grpc.RpcError) as caught:
        device.stub.OpenUpload(device_pb2.OpenUploadRequest(cohort_id=bytes(32)), timeout=10)
    assert isinstance(from_rpc_error(caught.value, "here"), ClonedIdentityError)
    clone.close()


def pool_now(served: Deployment) -> list[bytes]:
    with served.database.reading() as session:
        now = now_unix_s()
        return [entry.device.device_id for entry in pool(session, now_unix_s=now, answer_deadline_unix_s=now)]


def test_a_lost_reply_is_no_clone_however_often_it_is_lost(served: Deployment, join: Join) -> None:
    device = join()
    device.check_in()
    for _ in range(3):
        repeat(device, last=device.last_nonce, proposed=device.next_nonce)
    device.check_in()
    device.check_in()
    assert state(served, device) is DeviceState.ENROLLED


def test_a_lost_first_reply_is_no_clone(join: Join) -> None:
    device = join()
    for _ in range(2):
        repeat(device, last=b"", proposed=device.next_nonce)
    device.check_in()
    device.check_in()


def test_an_old_copy_is_noticed(join: Join) -> None:
    device = join()
    device.check_in()
    backup = copied(device)
    for _ in range(3):
        device.check_in()
    device.close()
    with pytest.raises(ClonedIdentityError, match="restored from an older copy"):
        backup.check_in()
    backup.close()


def test_a_lost_store_begins_anew_with_a_newer_epoch_only(served: Deployment, join: Join) -> None:
    device = join()
    device.check_in()
    device.last_nonce, device.epoch = b"", device.epoch + 1
    repeat(device, last=b"", proposed=device.next_nonce)
    device.check_in()
    device.check_in()
    assert state(served, device) is DeviceState.ENROLLED
    device.last_nonce = b""
    with pytest.raises(ClonedIdentityError):
        device.check_in()


def test_the_operator_clears_it_and_its_prekeys_begin_anew(served: Deployment, join: Join) -> None:
    device = join()
    device.check_in(new_prekeys=3)
    clone = copied(device)
    clone.check_in()
    with pytest.raises(ClonedIdentityError):
        device.check_in()
    with served.database.transaction() as session:
        clones.clear(session, find_device(session, device.device_id.hex()))
    assert device.check_in().reply.prekeys_held == 0
    device.check_in(new_prekeys=1)
    with pytest.raises(ClonedIdentityError):
        clone.check_in()
    clone.close()


def test_clearing_does_not_bring_a_revoked_device_back(served: Deployment, join: Join) -> None:
    from coordinator.enrolment.devices import revoke

    device = join()
    with served.database.transaction() as session:
        row = find_device(session, device.device_id.hex())
        revoke(session, served.log, row, reason="", now_unix_s=now_unix_s())
        clones.clear(session, row)
    assert state(served, device) is DeviceState.REVOKED


@pytest.mark.parametrize(
    ("last", "proposed"),
    [(b"", b""), (b"", bytes(31)), (b"", bytes(33)), (bytes(31), bytes(32)), (bytes(1), bytes(32))],
)
def test_what_is_no_nonce(served: Deployment, join: Join, last: bytes, proposed: bytes) -> None:
    device = join()
    with pytest.raises(MalformedError, match="nonce of 32 bytes"):
        repeat(device, last=last, proposed=proposed)
    assert state(served, device) is DeviceState.ENROLLED


def test_the_operator_names_a_device_as_its_owner_reads_it_out(served: Deployment, join: Join) -> None:
    device, _ = join(), join()
    shown = readable_id(device.device_id)
    with served.database.reading() as session:
        for spelt in (shown, shown.lower(), shown[:15], shown.replace("-", ""), device.device_id.hex()[:12]):
            assert find_device(session, spelt).device_id == device.device_id
        with pytest.raises(NotFoundError, match="at least 4 digits"):
            find_device(session, "")
        with pytest.raises(NotFoundError, match="no device"):
            find_device(session, "ZZZZZZZ-ZZZZZZZ")
