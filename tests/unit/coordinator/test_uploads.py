"""Uploads: resumed after a cut, acknowledged twice, refused when they are not what they should be."""

from __future__ import annotations

import hashlib
import io
import os
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import grpc
import numpy as np
import pytest
from sqlalchemy import func, select

from coordinator.aggregation import uploads
from coordinator.configuration import Configuration, Limits
from coordinator.deployment import Deployment
from coordinator.rounds.advance import advance
from coordinator.rounds.plans import open_round
from coordinator.service.server import serving
from coordinator.storage.rows import Cohort, CohortState, Contribution, LogEntryRow, Task, UploadPart
from nightshift.host.clock import now_unix_s
from nightshift.protocol.errors import (
    HashMismatchError,
    MalformedError,
    NightshiftError,
    NotFoundError,
    SignatureInvalidError,
    StateConflictError,
)
from nightshift.protocol.plan_checks import VerifiedPlan
from nightshift.v1 import device_pb2, log_pb2
from tests.support.coordinators import TASK, make_task, make_token
from tests.support.scripted_device import Prepared, ScriptedDevice

Join = Callable[[], ScriptedDevice]
Clock = Callable[[float], None]


@pytest.fixture
def devices(served: Deployment, join: Join, package: Path) -> list[ScriptedDevice]:
    """Four devices with an open round of at most six contributors."""
    make_task(served, package, cohort={"n_max": 6, "n_min": 3})
    devices = [join() for _ in range(4)]
    for device in devices:
        device.check_in(new_prekeys=2)
    with served.database.transaction() as session:
        open_round(session, served, session.get_one(Task, TASK), now_unix_s())
    return devices


def plan_of(device: ScriptedDevice) -> VerifiedPlan:
    plan = device.check_in().plan
    assert plan is not None
    return plan


def prepare(device: ScriptedDevice) -> Prepared:
    plan = plan_of(device)
    return device.prepare(plan, np.zeros(plan.document.vector.delta_length, dtype=np.float32))


def only_cohort(deployment: Deployment) -> Cohort:
    with deployment.database.reading() as session:
        return session.scalars(select(Cohort)).one()


def contributions(deployment: Deployment) -> int:
    with deployment.database.reading() as session:
        return session.scalar(select(func.count()).select_from(Contribution)) or 0


@pytest.mark.parametrize("cut", [1, 1000, 30_000])
def test_a_cut_upload_goes_on_from_what_is_durable(served: Deployment, devices: list[ScriptedDevice], cut: int) -> None:
    device = devices[0]
    prepared = prepare(device)
    assert len(prepared.body) > cut
    assert device.open_upload(prepared).offset == 0
    reply = device.send(prepared, stop=cut)
    assert (reply.offset, reply.complete) == (cut, False)
    assert device.open_upload(prepared).offset == cut
    assert device.send(prepared, offset=cut).complete
    assert only_cohort(served).counted == 1
    with served.database.reading() as session:
        assert session.scalars(select(UploadPart)).all() == []
    assert [key for key in served.objects.list("cohorts") if "/uploads/" in key] == []


def test_a_plan_is_offered_again_until_the_upload_is_counted(served: Deployment, devices: list[ScriptedDevice]) -> None:
    device = devices[0]
    prepared = prepare(device)
    device.open_upload(prepared)
    device.send(prepared, stop=100)
    assert plan_of(device).plan_hash == prepared.plan.plan_hash
    device.upload(prepared)
    assert device.check_in().plan is None


def test_the_same_upload_again_is_acknowledged_and_not_counted(
    served: Deployment, devices: list[ScriptedDevice]
) -> None:
    prepared = prepare(devices[0])
    devices[0].upload(prepared)
    opened = devices[0].open_upload(prepared)
    assert (opened.complete, opened.offset) == (True, len(prepared.body))
    assert devices[0].send(prepared).complete
    assert only_cohort(served).counted == 1


def test_another_upload_of_the_same_device_is_refused(served: Deployment, devices: list[ScriptedDevice]) -> None:
    first, second = prepare(devices[0]), prepare(devices[0])
    devices[0].open_upload(first)
    with pytest.raises(StateConflictError, match="another contribution"):
        devices[0].open_upload(second)
    devices[0].upload(first)
    with pytest.raises(StateConflictError, match="another contribution"):
        devices[0].open_upload(second)


def test_another_cohort_of_the_same_parent_takes_nothing_more(
    served: Deployment, devices: list[ScriptedDevice], clock: Clock
) -> None:
    prepared = [prepare(device) for device in devices]
    for device, one in zip(devices[:1], prepared[:1], strict=True):
        device.upload(one)
    clock(700)
    advance(served)
    assert only_cohort(served).state is CohortState.VOID
    with served.database.transaction() as session:
        open_round(session, served, session.get_one(Task, TASK), now_unix_s())
    # The first device has spoken about this parent; the others have not.
    assert devices[0].check_in().plan is None
    plan = plan_of(devices[1])
    late = devices[0].prepare(plan, np.zeros(plan.document.vector.delta_length, dtype=np.float32))
    with pytest.raises(StateConflictError, match="this parent release"):
        devices[0].open_upload(late)


def test_a_late_upload_is_told_to_come_for_the_next_round(
    served: Deployment, devices: list[ScriptedDevice], clock: Clock
) -> None:
    prepared = [prepare(device) for device in devices]
    for device, one in zip(devices[:3], prepared[:3], strict=True):
        device.upload(one)
    devices[3].open_upload(prepared[3])
    devices[3].send(prepared[3], stop=1000)
    clock(601)
    with pytest.raises(StateConflictError, match="next round"):
        devices[3].send(prepared[3], offset=1000)
    with pytest.raises(StateConflictError, match="next round"):
        devices[3].open_upload(prepared[3])
    cohort = only_cohort(served)
    assert (cohort.state, cohort.counted) == (CohortState.FROZEN, 3)
    with served.database.reading() as session:
        assert session.scalars(select(UploadPart)).all() == []
    reply = devices[3].check_in().reply
    assert reply.next_check_in.window_s > 0


def test_the_deadline_is_extended_when_the_plan_allows_it(
    served: Deployment, join: Join, package: Path, clock: Clock
) -> None:
    make_task(served, package, rounds={"upload_window_s": 600, "upload_extension_s": 600, "answer_window_s": 600})
    devices = [join() for _ in range(3)]
    for device in devices:
        device.check_in(new_prekeys=1)
    with served.database.transaction() as session:
        open_round(session, served, session.get_one(Task, TASK), now_unix_s())
    devices[0].upload(prepare(devices[0]))
    clock(700)
    for device in devices[1:]:
        device.upload(prepare(device))
    assert extensions(served) == [(only_cohort(served).cohort_id, "1 uploads are counted, n_min is 3")]
    clock(1300)
    advance(served)
    assert only_cohort(served).state is CohortState.FROZEN
    assert len(extensions(served)) == 1


def extensions(served: Deployment) -> list[tuple[bytes, str]]:
    """(cohort, note) of the log's entries that give a cohort more time."""
    with served.database.reading() as session:
        entries = [log_pb2.LogEntry.FromString(row) for row in session.scalars(select(LogEntryRow.entry))]
    return [(entry.subject, entry.note) for entry in entries if entry.kind == log_pb2.LOG_ENTRY_KIND_EXTENSION]


def test_too_few_uploads_void_the_cohort_and_say_so(
    served: Deployment, devices: list[ScriptedDevice], clock: Clock
) -> None:
    for device in devices[:2]:
        device.upload(prepare(device))
    clock(700)
    advance(served)
    advance(served)
    cohort = only_cohort(served)
    assert cohort.state is CohortState.VOID
    assert cohort.reason == "2 contributions came before the last upload deadline, n_min is 3"
    assert list(served.objects.list("cohorts")) == []


def test_garbage_of_the_right_size_is_refused_and_forgotten(served: Deployment, devices: list[ScriptedDevice]) -> None:
    good = prepare(devices[0])
    garbage = replace(good, body=os.urandom(len(good.body)))
    with pytest.raises(SignatureInvalidError):
        devices[0].upload(garbage)
    assert contributions(served) == 0
    assert list(served.objects.list("cohorts")) == []
    assert devices[0].upload(good).complete, "a damaged upload does not lock its device out"


@pytest.mark.parametrize("member", [1, 4])
def test_one_flipped_bit_in_ciphertext_or_share_is_refused(
    served: Deployment, devices: list[ScriptedDevice], member: int
) -> None:
    good = prepare(devices[0])
    parameters = good.plan.document.parameters
    stride = parameters.sealed_share_bytes
    start = parameters.ciphertext_bytes(good.plan.document.vector.length) + (member - 1) * stride
    for place in (0, start, start + stride - 1):
        body = bytearray(good.body)
        body[place] ^= 1
        with pytest.raises(SignatureInvalidError):
            devices[0].upload(replace(good, body=bytes(body)))
    assert only_cohort(served).counted == 0


def test_another_devices_contribution_is_refused(served: Deployment, devices: list[ScriptedDevice]) -> None:
    stolen = prepare(devices[0])
    with pytest.raises(SignatureInvalidError):
        devices[1].upload(stolen)
    assert devices[0].upload(stolen).complete


def test_bytes_that_are_not_the_announced_ones_are_refused(served: Deployment, devices: list[ScriptedDevice]) -> None:
    good = prepare(devices[0])
    devices[0].open_upload(good)
    with pytest.raises(HashMismatchError):
        devices[0].send(good, body=prepare(devices[0]).body)
    assert only_cohort(served).counted == 0


@pytest.mark.parametrize("difference", [-1, 1, 1 << 40])
def test_another_size_than_the_plans_is_refused_before_a_byte_is_sent(
    served: Deployment, devices: list[ScriptedDevice], difference: int
) -> None:
    good = prepare(devices[0])
    with pytest.raises(MalformedError, match=str(len(good.body))):
        devices[0].open_upload(good, size_bytes=len(good.body) + difference)
    assert contributions(served) == 0


def test_more_bytes_than_announced_are_refused(served: Deployment, devices: list[ScriptedDevice]) -> None:
    good = prepare(devices[0])
    devices[0].open_upload(good)
    with pytest.raises(MalformedError, match="more than the announced"):
        devices[0].send(good, body=good.body + b"x")


def test_a_piece_larger_than_allowed_is_refused(served: Deployment, devices: list[ScriptedDevice]) -> None:
    good = prepare(devices[0])
    devices[0].open_upload(good)

    def messages() -> Iterator[device_pb2.UploadRequest]:
        cohort_id = good.plan.document.cohort_id
        yield device_pb2.UploadRequest(cohort_id=cohort_id, data=bytes(256 * 1024 + 1))

    with pytest.raises(MalformedError, match="262144"):
        devices[0]._call(devices[0].stub.Upload, messages())


def test_a_wrong_offset_is_refused(served: Deployment, devices: list[ScriptedDevice]) -> None:
    good = prepare(devices[0])
    devices[0].open_upload(good)
    with pytest.raises(StateConflictError, match="0 bytes are durable"):
        devices[0].send(good, offset=5)


def test_an_unannounced_upload_is_refused(served: Deployment, devices: list[ScriptedDevice]) -> None:
    with pytest.raises(StateConflictError, match="OpenUpload"):
        devices[0].send(prepare(devices[0]))


def test_an_empty_stream_is_refused(served: Deployment, devices: list[ScriptedDevice]) -> None:
    with pytest.raises(MalformedError, match="begins"):
        devices[0]._call(devices[0].stub.Upload, iter(()))


def test_a_cohort_that_does_not_exist_takes_nothing(served: Deployment, devices: list[ScriptedDevice]) -> None:
    request = device_pb2.OpenUploadRequest(cohort_id=bytes(32), plan_hash=bytes(32), size_bytes=1, signature=bytes(64))
    with pytest.raises(NotFoundError):
        devices[0]._call(devices[0].stub.OpenUpload, request)
    with pytest.raises(NightshiftError):
        devices[0]._call(devices[0].stub.OpenUpload, device_pb2.OpenUploadRequest(cohort_id=b"x" * 100_000))


def test_another_plan_hash_is_refused(served: Deployment, devices: list[ScriptedDevice]) -> None:
    good = prepare(devices[0])
    changed = replace(good, plan=replace(good.plan, plan_hash=bytes(32)))
    with pytest.raises(MalformedError, match="plan hash"):
        devices[0].open_upload(changed)


def test_many_uploads_at_once_are_each_counted_once(served: Deployment, devices: list[ScriptedDevice]) -> None:
    prepared = [prepare(device) for device in devices]
    failures: list[BaseException] = []

    def send(device: ScriptedDevice, one: Prepared) -> None:
        try:
            assert device.upload(one).complete
        except BaseException as error:  # noqa: BLE001 - shown by the test
            failures.append(error)

    threads = [threading.Thread(target=send, args=pair) for pair in zip(devices, prepared, strict=True)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    cohort = only_cohort(served)
    assert cohort.counted == 4
    assert cohort.running_sum_key is not None
    running = [key for key in served.objects.list("cohorts") if "/running/" in key]
    assert running == [cohort.running_sum_key], "older sums are gone"


def test_a_second_stream_takes_over_from_one_that_hangs(served: Deployment, devices: list[ScriptedDevice]) -> None:
    good = prepare(devices[0])
    devices[0].open_upload(good)
    release = threading.Event()

    def trickle() -> Iterator[device_pb2.UploadRequest]:
        yield device_pb2.UploadRequest(cohort_id=good.plan.document.cohort_id, data=good.body[:10])
        release.wait(20)

    hanging = devices[0].stub.Upload.future(trickle(), timeout=20)
    assert devices[0].send(good).complete
    release.set()
    assert hanging.exception() is not None
    assert only_cohort(served).counted == 1


def test_a_stream_that_lasts_too_long_is_cut_and_what_came_is_kept(deployment: Deployment, package: Path) -> None:
    limited = replace(
        deployment,
        configuration=Configuration(listen=deployment.configuration.listen, limits=Limits(upload_stream_s=1)),
    )
    make_task(deployment, package)
    with serving(limited):
        token = make_token(deployment)
        devices = [ScriptedDevice(token) for _ in range(3)]
        for device in devices:
            device.join()
            device.check_in(new_prekeys=1)
        with deployment.database.transaction() as session:
            open_round(session, deployment, session.get_one(Task, TASK), now_unix_s())
        good = prepare(devices[0])
        devices[0].open_upload(good)
        done = threading.Event()

        def trickle() -> Iterator[device_pb2.UploadRequest]:
            yield device_pb2.UploadRequest(cohort_id=good.plan.document.cohort_id, data=good.body[:10])
            done.wait(20)

        with pytest.raises(grpc.RpcError) as caught:
            devices[0].stub.Upload(trickle(), timeout=15)
        done.set()
        assert caught.value.code() is grpc.StatusCode.CANCELLED
        for _ in range(100):
            if devices[0].open_upload(good).offset == 10:
                break
            threading.Event().wait(0.05)
        assert devices[0].open_upload(good).offset == 10
        for device in devices:
            device.close()


def test_large_uploads_become_durable_in_parts(
    served: Deployment, devices: list[ScriptedDevice], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(uploads, "PART_BYTES", 10_000)
    sizes: list[int] = []
    put = served.objects.put

    def watch(key: str, data: bytes) -> None:
        if "/uploads/" in key:
            sizes.append(len(data))
        put(key, data)

    monkeypatch.setattr(served.objects, "put", watch)
    good = prepare(devices[0])
    devices[0].open_upload(good)
    cohort_id = good.plan.document.cohort_id

    def messages() -> Iterator[device_pb2.UploadRequest]:
        yield device_pb2.UploadRequest(cohort_id=cohort_id)
        for start in range(0, len(good.body), 4096):
            yield device_pb2.UploadRequest(data=good.body[start : start + 4096])

    assert devices[0].stub.Upload(messages(), timeout=20).complete
    assert len(sizes) > 2
    assert sum(sizes) == len(good.body)
    assert all(10_000 <= size < 10_000 + 4096 for size in sizes[:-1])


def test_artefacts_come_from_any_offset_and_only_if_they_exist(
    served: Deployment, devices: list[ScriptedDevice], package: Path
) -> None:
    manifest = (package / "manifest.json").read_bytes()
    digest = hashlib.sha256(manifest).digest()
    assert devices[0].fetch(digest) == (len(manifest), manifest)
    assert devices[0].fetch(digest, 100) == (len(manifest), manifest[100:])
    assert devices[0].fetch(digest, len(manifest)) == (len(manifest), b"")
    with pytest.raises(MalformedError, match="beyond"):
        devices[0].fetch(digest, len(manifest) + 1)
    with pytest.raises(NotFoundError):
        devices[0].fetch(bytes(32))
    gguf = (package / "model.gguf").read_bytes()
    assert devices[0].fetch(hashlib.sha256(gguf).digest(), 5) == (len(gguf), gguf[5:])


def test_the_opened_object_is_plain_numpy(served: Deployment, devices: list[ScriptedDevice], clock: Clock) -> None:
    for device in devices:
        device.upload(prepare(device))
    clock(700)
    for device in devices:
        for duty in device.check_in().duties:
            device.send_answer(device.make_answer(duty))
    data = served.objects.get(f"sums/{only_cohort(served).cohort_id.hex()}.npy")
    assert np.load(io.BytesIO(data), allow_pickle=False).dtype == np.uint64
