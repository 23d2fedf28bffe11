"""The whole log: what it says of each subject, and every way in which it contradicts itself."""

from __future__ import annotations

import hashlib

import pytest

from nightshift.protocol.errors import EquivocationError, LogInconsistentError, NightshiftError
from nightshift.protocol.log import make_entry
from nightshift.protocol.log_reading import LogReading
from nightshift.v1 import log_pb2
from tests.support.plans import World

POOL, PLAN = log_pb2.LOG_ENTRY_KIND_POOL, log_pb2.LOG_ENTRY_KIND_PLAN
SET, VOID = log_pb2.LOG_ENTRY_KIND_SET, log_pb2.LOG_ENTRY_KIND_VOID
ENROL, REVOKE = log_pb2.LOG_ENTRY_KIND_ENROLMENT, log_pb2.LOG_ENTRY_KIND_REVOCATION


def value(name: str) -> bytes:
    """32 bytes under a name."""
    return hashlib.sha256(name.encode()).digest()


def read(*entries: tuple[int, str, str]) -> LogReading:
    """A reading of entries: kind, subject, digest."""
    reading = LogReading()
    for kind, subject, digest in entries:
        reading.append(
            make_entry(kind, time_unix_s=1_800_000_000, subject=value(subject), digest=value(digest))  # type: ignore[arg-type]  # any number may come
        )
    return reading


def test_an_honest_log_is_read_as_it_was_written() -> None:
    world = World.make(devices=3)
    cohort = world.open_cohort()
    frozen = cohort.freeze({device.device_id: cohort.contribute(device) for device in world.devices})
    reading = LogReading()
    for entry in world.entries:
        reading.append(entry)
    assert (reading.tree.size, reading.tree.root()) == (world.tree.size, world.tree.root())
    assert reading.kinds == {"enrolment": 3, "release": 1, "pool": 1, "plan": 1, "set": 1}
    found = reading.cohorts[cohort.message.cohort_id]
    assert found.plan == (cohort.plan_index, cohort.plan_hash)
    assert found.frozen_set == (frozen.set_index, frozen.set_hash)
    assert set(reading.certificates) == {device.device_id for device in world.devices}


NIGHT = [(POOL, "c", "pool"), (PLAN, "c", "H")]


@pytest.mark.parametrize(
    ("entries", "error", "message"),
    [
        ([*NIGHT, (POOL, "c", "other")], EquivocationError, "entry 2 is a second pool"),
        ([*NIGHT, (PLAN, "c", "other")], EquivocationError, "entry 2 is a second plan"),
        ([*NIGHT, (SET, "c", "U"), (SET, "c", "V")], EquivocationError, "entry 3 is a second frozen set"),
        ([*NIGHT, (VOID, "c", "H"), (VOID, "c", "H")], EquivocationError, "entry 3 is a second void"),
        ([*NIGHT, (POOL, "d", "pool"), (PLAN, "d", "H")], EquivocationError, "a plan that another one has"),
        ([(PLAN, "c", "H")], LogInconsistentError, "right behind its pool"),
        ([(POOL, "c", "p"), (ENROL, "x", "y"), (PLAN, "c", "H")], LogInconsistentError, "right behind its pool"),
        ([(SET, "c", "U")], LogInconsistentError, "the set of a cohort that has no plan"),
        ([(POOL, "c", "p"), (SET, "c", "U")], LogInconsistentError, "the set of a cohort that has no plan"),
        ([(VOID, "c", "H")], LogInconsistentError, "the void of a cohort that has no plan"),
        ([*NIGHT, (VOID, "c", "other")], LogInconsistentError, "under another plan"),
        ([*NIGHT, (VOID, "c", "H"), (SET, "c", "U")], LogInconsistentError, "a cohort that is void"),
        ([(REVOKE, "d", "d")], LogInconsistentError, "never enrolled"),
        ([(ENROL, "d", "x"), (REVOKE, "d", "e")], LogInconsistentError, "never enrolled"),
        ([(ENROL, "d", "x"), (REVOKE, "d", "d"), (REVOKE, "d", "d")], LogInconsistentError, "revoked already"),
        ([(ENROL, "d", "x"), (REVOKE, "d", "d"), (ENROL, "d", "z")], LogInconsistentError, "revoked for good"),
    ],
)
def test_what_cannot_be(entries: list[tuple[int, str, str]], error: type[NightshiftError], message: str) -> None:
    assert read(*entries[:-1]).tree.size == len(entries) - 1
    with pytest.raises(error, match=message) as caught:
        read(*entries)
    assert caught.value.exit_code == 14


def test_a_frozen_cohort_may_end_void_and_a_device_may_be_certified_again() -> None:
    reading = read(*NIGHT, (SET, "c", "U"), (VOID, "c", "H"), (ENROL, "d", "first"), (ENROL, "d", "second"))
    assert reading.certificates[value("d")] == {value("first"): 4, value("second"): 5}


def test_kinds_of_later_versions_are_hashed_and_counted() -> None:
    assert read((4711, "x", "y")).kinds == {"kind 4711": 1}


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        (b"\xff\xff", "cannot be read"),
        (bytes(5000), "at most 4096"),
        (b"", "another length than 32"),
        (log_pb2.LogEntry(kind=PLAN, subject=bytes(31), digest=bytes(32)).SerializeToString(), "another length"),
    ],
)
def test_what_is_no_entry(entry: bytes, message: str) -> None:
    with pytest.raises(LogInconsistentError, match=message):
        LogReading().append(entry)
