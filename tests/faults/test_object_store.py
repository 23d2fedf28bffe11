"""An object store that is slow, says 503, loses answers: repeated, or nothing is acknowledged; orphans go."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from coordinator import orphans
from coordinator.configuration import Storage
from coordinator.storage import bucket
from coordinator.storage.bucket import BucketObjects
from nightshift.protocol.errors import NotFoundError, UnavailableError
from nightshift.v1 import device_pb2
from tests.support import flaky_store
from tests.support.flaky_store import FlakyStore
from tests.support.fleets import Snapshots
from tests.support.nights import Night, night
from tests.support.outages import assert_unavailable
from tests.support.scripted_device import Prepared
from tests.support.stores import S3

pytestmark = pytest.mark.slow

KEY = "cohorts/aa/sealed/bb"


@pytest.fixture
def store(s3_server: S3) -> Iterator[FlakyStore]:
    with flaky_store.flaky_store(s3_server.endpoint) as made:
        yield made


@pytest.fixture
def objects(s3_server: S3, store: FlakyStore, monkeypatch: pytest.MonkeyPatch) -> BucketObjects:
    monkeypatch.setattr(bucket, "REQUEST_TIMEOUT", timedelta(seconds=1))
    monkeypatch.setattr(bucket, "RETRY_FOR", timedelta(seconds=3))
    return BucketObjects(s3_server.new_bucket(), endpoint=store.endpoint)


@pytest.mark.parametrize(
    "fault", [flaky_store.unavailable, flaky_store.cut, flaky_store.after_storing], ids=lambda fault: fault.__name__
)
def test_a_put_that_fails_for_the_moment_is_repeated(
    objects: BucketObjects, store: FlakyStore, fault: flaky_store.Fault
) -> None:
    data = os.urandom(300_000)
    store.fail(fault, times=2, method="PUT")
    objects.put(KEY, data)
    assert [method for method, _ in store.requests] == ["PUT"] * 3
    assert objects.get(KEY) == data


def test_a_file_of_many_parts_is_whole_though_parts_failed(
    objects: BucketObjects, store: FlakyStore, tmp_path: Path
) -> None:
    file = tmp_path / "model"
    file.write_bytes(os.urandom(12_000_000))
    store.fail(flaky_store.unavailable, times=1, method="POST")
    store.fail(flaky_store.cut, times=2, method="PUT")
    objects.put("artefacts/model", file)
    assert objects.get("artefacts/model") == file.read_bytes()


def test_a_read_whose_answer_is_cut_is_repeated(objects: BucketObjects, store: FlakyStore) -> None:
    data = os.urandom(300_000)
    objects.put(KEY, data)
    store.fail(flaky_store.half_an_answer, times=1, method="GET")
    try:
        assert objects.get(KEY) == data
    except UnavailableError:
        # As good: what came was not taken for the whole.
        assert objects.get(KEY) == data


def test_a_slow_store_is_waited_for_so_long_and_no_longer(objects: BucketObjects, store: FlakyStore) -> None:
    store.fail_always(flaky_store.silent_for(2.0))
    began = time.monotonic()
    with pytest.raises(UnavailableError, match="object store does not answer"):
        objects.put(KEY, b"x")
    assert time.monotonic() - began < 15
    store.fail_always(None)
    with pytest.raises(NotFoundError):
        objects.get(KEY)


def test_nothing_is_acknowledged_while_the_store_is_down(
    objects: BucketObjects, store: FlakyStore, s3_server: S3, tmp_path: Path, snapshots: Snapshots
) -> None:
    """Tries: the store says 503 while a device uploads, and again while another's contribution is folded.

    What stops a row without its object: the object is put before the row's transaction begins
    (coordinator/aggregation/uploads.py, folding.py). What the device hears is UNAVAILABLE with RetryInfo.
    """
    storage = Storage(objects=s3_server.new_bucket(), objects_endpoint=store.endpoint)
    with night(tmp_path / "coordinator", snapshots.package(), no_clock, devices=3, storage=storage) as made:
        first, second, third = made.devices
        prepared = [made.prepare(device) for device in made.devices]
        first.open_upload(prepared[0])
        store.fail_always(flaky_store.unavailable, containing="/uploads/")
        with pytest.raises(UnavailableError):
            first.send(prepared[0])
        assert made.received(first) == 0
        store.fail_always(None)
        assert first.upload(prepared[0]).complete

        store.fail_always(flaky_store.unavailable, containing="/sealed/")
        second.open_upload(prepared[1])
        with pytest.raises(UnavailableError):
            second.send(prepared[1])
        assert made.received(second) == len(prepared[1].body)
        assert made.counted() == {first.device_id}
        store.fail_always(flaky_store.unavailable, containing="/running/")
        assert_unavailable(lambda: second.stub.OpenUpload(announcement(made, prepared[1]), timeout=20))
        assert made.counted() == {first.device_id}
        store.fail_always(None)
        assert second.open_upload(prepared[1]).complete
        assert third.upload(prepared[2]).complete
        made.answer(*made.members())
        made.require_exact_sum(prepared)


def test_only_old_objects_that_no_row_names_are_collected(tmp_path: Path, snapshots: Snapshots) -> None:
    """Tries: what a killed process left, in every place where one can; beside all that a night in progress needs."""
    with night(tmp_path / "coordinator", snapshots.package(), no_clock, devices=3) as made:
        prepared = [made.prepare(device) for device in made.devices]
        assert made.devices[0].upload(prepared[0]).complete
        made.devices[1].open_upload(prepared[1])
        made.devices[1].send(prepared[1], stop=len(prepared[1].body) - 1)
        objects = made.deployment.objects
        needed = {key for prefix in orphans.PREFIXES for key in objects.list(prefix)}
        cohort = made.plan.document.cohort_id.hex()
        left = {
            "artefacts/" + "00" * 32,
            f"cohorts/{cohort}/running/000009-aa",
            f"cohorts/{cohort}/sealed/00-aa",
            f"cohorts/{cohort}/uploads/00/000000000000-aa",
            "cohorts/" + "11" * 32 + "/sealed/00-aa",
            "sums/" + "22" * 32 + ".npy",
            "server-memories/33.npz",
        }
        for key in left:
            objects.put(key, b"left over")
        assert orphans.collect(made.deployment, time.time()) == 0, "too young to be judged"
        assert orphans.collect(made.deployment, time.time() + orphans.AGE_S + 60) == len(left)
        assert {key for prefix in orphans.PREFIXES for key in objects.list(prefix)} == needed

        assert made.devices[1].upload(prepared[1]).complete
        assert made.devices[2].upload(prepared[2]).complete
        made.answer(*made.members())
        made.require_exact_sum(prepared)
        assert orphans.collect(made.deployment, time.time() + orphans.AGE_S + 60) == 0


def no_clock(seconds: float) -> None:
    """Time is not moved here."""


def announcement(made: Night, prepared: Prepared) -> device_pb2.OpenUploadRequest:
    return device_pb2.OpenUploadRequest(
        cohort_id=made.plan.document.cohort_id,
        plan_hash=made.plan.plan_hash,
        size_bytes=len(prepared.body),
        signature=prepared.signature,
    )
