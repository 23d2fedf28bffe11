"""Whatever bytes arrive as a plan, a release, a proof or a list, only errors of the tree come out, and soon."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from google.protobuf.message import DecodeError
from hypothesis import given, settings
from hypothesis import strategies as st

from nightshift.protocol.errors import LogInconsistentError, NightshiftError
from nightshift.protocol.log import parse_checkpoint_body
from nightshift.protocol.plan import PlanDocument
from nightshift.protocol.plan_checks import verify_bundle_entry
from nightshift.protocol.release import ReleaseDocument
from nightshift.protocol.revocation import verify_revocation
from nightshift.v1 import device_pb2, log_pb2, plan_pb2
from tests.support.plans import ORIGIN, World

WORLD = World.make(devices=4)
COHORT = WORLD.open_cohort()
PLAN = COHORT.plan
RELEASE = WORLD.publish().release
VIEW = WORLD.view()
VERIFIED = COHORT.verify()
ENTRY = COHORT.freeze({device.device_id: COHORT.contribute(device) for device in WORLD.devices[:3]}).entries(1)[0]
LIST = WORLD.revocation(3, [device.device_id for device in WORLD.devices[:2]])


@contextmanager
def refused_or_read_soon() -> Iterator[None]:
    """Allow an error of the tree and nothing else, within two seconds of processor time."""
    begin, message = time.process_time(), ""
    try:
        yield
    except NightshiftError as error:
        message = str(error)
    assert len(message) < 4000, "a message that the sender can stretch"
    assert time.process_time() - begin < 2.0


def altered(honest: bytes) -> st.SearchStrategy[bytes]:
    """Honest bytes with pieces replaced, removed, repeated or inserted."""
    piece = st.tuples(st.integers(0, len(honest)), st.integers(0, 40), st.binary(max_size=20), st.integers(1, 50))

    def apply(changes: list[tuple[int, int, bytes, int]]) -> bytes:
        data = honest
        for place, removed, inserted, times in changes:
            data = data[:place] + inserted * times + data[place + removed :]
        return data

    return st.lists(piece, min_size=1, max_size=4).map(apply)


@settings(max_examples=300, deadline=None)
@given(st.one_of(st.binary(max_size=2000), altered(PLAN)))
def test_any_bytes_as_a_plan(data: bytes) -> None:
    with refused_or_read_soon():
        PlanDocument.parse(data)


@settings(max_examples=300, deadline=None)
@given(st.one_of(st.binary(max_size=2000), altered(RELEASE)))
def test_any_bytes_as_a_release(data: bytes) -> None:
    with refused_or_read_soon():
        ReleaseDocument.parse(data)


scalars = st.one_of(
    st.integers(0, 2**64 - 1),
    st.sampled_from([0, 1, 2, 3, 8, 16, 512, 513, 2**31, 2**32 - 1, 2**40, 2**62, 2**63 - 1]),
)


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_any_numbers_in_a_plan(data: st.DataObject) -> None:
    """Every number of a plan replaced by any that its field can hold."""
    plan = plan_pb2.Plan.FromString(PLAN)
    for message in (plan, plan.encoding, plan.training, plan.layout, plan.layout.targets[0], plan.committee[1].prekey):
        for field in message.DESCRIPTOR.fields:
            if data.draw(st.integers(0, 5)):
                continue
            if field.cpp_type in (field.CPPTYPE_UINT32, field.CPPTYPE_ENUM) and not field.is_repeated:
                setattr(message, field.name, data.draw(scalars) % 2**31)
            elif field.cpp_type in (field.CPPTYPE_UINT64, field.CPPTYPE_INT64) and not field.is_repeated:
                setattr(message, field.name, data.draw(scalars) % 2**63)
            elif field.cpp_type == field.CPPTYPE_FLOAT:
                setattr(message, field.name, data.draw(st.floats(width=32)))
    with refused_or_read_soon():
        PlanDocument.parse(plan.SerializeToString())


@given(st.one_of(st.binary(max_size=300), altered(ORIGIN.encode() + b"\n7\n" + b"A" * 43 + b"=\n")))
def test_any_bytes_as_a_checkpoint(body: bytes) -> None:
    try:
        head = parse_checkpoint_body(body, ORIGIN)
    except LogInconsistentError:
        return
    assert head.size >= 0
    assert len(head.root) == 32


@given(st.binary(max_size=300), st.integers(0, 2**64 - 1), st.lists(st.binary(max_size=40), max_size=70))
def test_any_bytes_as_a_log_proof(entry: bytes, index: int, path: list[bytes]) -> None:
    proof = log_pb2.LogProof(entry=entry, index=index, path=path)
    with pytest.raises(LogInconsistentError):
        VIEW.require(proof, kind=log_pb2.LOG_ENTRY_KIND_PLAN, subject=bytes(32), digest=bytes(32))


@settings(max_examples=200, deadline=None)
@given(altered(ENTRY.SerializeToString()))
def test_any_bytes_as_an_entry_of_a_bundle(data: bytes) -> None:
    try:
        entry = device_pb2.BundleEntry.FromString(data)
    except DecodeError:
        return
    with refused_or_read_soon():
        verify_bundle_entry(entry, plan=VERIFIED, trust=WORLD.trust, view=VIEW, set_position=VIEW.head.size)


@settings(max_examples=200, deadline=None)
@given(altered(LIST.SerializeToString()))
def test_any_bytes_as_a_revocation_list(data: bytes) -> None:
    try:
        message = device_pb2.RevocationList.FromString(data)
    except DecodeError:
        return
    with refused_or_read_soon():
        found = verify_revocation(message, trust=WORLD.trust)
        assert (message.number, found) == (3, frozenset(LIST.device_ids))
