"""Every decoder, fed with anything: an error of the tree that says so, never another exception, never a crash."""

from __future__ import annotations

import contextlib
from functools import cache

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from secagg_cohort import Cohort, Identity, Upload

from nightshift.protocol.errors import MalformedError, NightshiftError, VerificationError
from nightshift.protocol.secagg import packing, sharing
from nightshift.protocol.secagg.contribution import Contribution
from nightshift.protocol.secagg.contributors import Contributor, set_hash
from nightshift.protocol.secagg.device import MemberKey, check_members
from nightshift.protocol.secagg.erasure import ErasureStatement, verify_erasure
from nightshift.protocol.secagg.errors import ShareRefusedError
from nightshift.protocol.secagg.member import Answer, ShareForMember, verify_answer
from nightshift.protocol.secagg.opener import RunningSum
from nightshift.protocol.secagg.parameters import CohortParameters
from nightshift.protocol.secagg.prekeys import SignedPrekey, verify
from nightshift.protocol.secagg.sealing import load_prekey, open_sealed

PARAMETERS = CohortParameters.derive(n_max=4, value_bits=8, committee_size=3)
ANYTHING = st.binary(max_size=200)
ID = st.one_of(st.binary(min_size=32, max_size=32), ANYTHING)
SHARE = st.one_of(
    ANYTHING,
    st.binary(min_size=8, max_size=64).map(lambda seed: (seed * 2000)[: PARAMETERS.sealed_share_bytes]),
    st.binary(min_size=8, max_size=64).map(lambda seed: (seed * 2000)[: PARAMETERS.share_vector_bytes]),
)
NUMBER = st.integers(-(2**70), 2**70)


@cache
def cohort() -> tuple[Cohort, list[Upload]]:
    made = Cohort(PARAMETERS, length=40)
    return made, [made.upload(number) for number in range(3)]


def mutate(good: bytes, edits: list[tuple[int, int]], cut: int) -> bytes:
    changed = bytearray(good)
    for position, value in edits:
        changed[position % len(changed)] = value
    return bytes(changed[: len(changed) - cut % len(changed)] if cut else changed)


EDITS = st.lists(st.tuples(st.integers(0, 2**20), st.integers(0, 255)), max_size=6)


@settings(max_examples=200, deadline=None)
@given(EDITS, st.sampled_from([0, 0, 0, 1, 100]), st.booleans())
def test_running_sums(edits: list[tuple[int, int]], cut: int, header_only: bool) -> None:
    good = RunningSum.new(PARAMETERS, 40).to_bytes()
    if header_only:
        edits = [(position % 24, value) for position, value in edits]
    data = mutate(good, edits, cut)
    try:
        restored = RunningSum.from_bytes(data)
    except MalformedError:
        return
    assert restored.to_bytes() == data


@settings(max_examples=100, deadline=None)
@given(ANYTHING)
@example(b"")
def test_running_sums_from_anything(data: bytes) -> None:
    with pytest.raises(MalformedError):
        RunningSum.from_bytes(data)


@settings(max_examples=100, deadline=None)
@given(SHARE)
def test_ciphertexts_shares_and_sealed_shares(data: bytes) -> None:
    with pytest.raises(MalformedError):
        RunningSum.new(PARAMETERS, 40).add(data)
    try:
        vector = sharing.from_bytes(data, PARAMETERS, what="a share")
        assert sharing.to_bytes(vector, PARAMETERS) == data
    except MalformedError:
        assert len(data) != PARAMETERS.share_vector_bytes or max(np.frombuffer(data, "<u2")) >= 65521
    with pytest.raises(MalformedError):
        open_sealed(data, b"k" * 32, b"info", PARAMETERS)
    with pytest.raises(ValueError, match=f"bytes, got {len(data)}"):
        packing.unpack(data, PARAMETERS.words(40))


@settings(max_examples=200, deadline=None)
@given(ID)
def test_prekey_points(data: bytes) -> None:
    with contextlib.suppress(MalformedError):
        assert load_prekey(data).public_bytes_raw() == data


@settings(max_examples=100, deadline=None)
@given(ID, NUMBER, NUMBER, NUMBER, ID, st.one_of(st.binary(min_size=64, max_size=64), ANYTHING))
def test_signed_prekeys(
    device: bytes, serial: int, epoch: int, not_after: int, public: bytes, signature: bytes
) -> None:
    identity = Identity.numbered(1)
    for claimed in (device, identity.device_id):
        with pytest.raises((MalformedError, VerificationError)):
            verify(SignedPrekey(claimed, serial, epoch, not_after, public, signature), identity.public_key, 0)  # type: ignore[arg-type]  # hostile bytes


@settings(max_examples=100, deadline=None)
@given(NUMBER, SHARE, ANYTHING)
def test_answers(index: int, vector: bytes, signature: bytes) -> None:
    made, uploads = cohort()
    with pytest.raises((MalformedError, VerificationError)):
        verify_answer(
            parameters=PARAMETERS,
            plan_hash=made.plan_hash,
            set_hash=made.set_hash(uploads),
            answer=Answer(index=index, vector=vector, signature=signature),
            public_key=made.members[0].identity.public_key,
        )


@settings(max_examples=100, deadline=None)
@given(
    st.lists(SHARE, max_size=4),
    st.lists(st.tuples(st.integers(0, 2), SHARE), max_size=2),
    SHARE,
    st.one_of(st.none(), st.binary(min_size=64, max_size=64), ANYTHING),
    st.booleans(),
)
def test_uploads(
    sealed: list[bytes], swaps: list[tuple[int, bytes]], ciphertext: bytes, signature: bytes | None, keep: bool
) -> None:
    made, uploads = cohort()
    good = uploads[0].contribution
    swapped = list(good.sealed)
    for position, share in swaps:
        swapped[position] = share
    signature = good.signature if signature is None else signature
    contribution = (
        Contribution(good.ciphertext, tuple(swapped), signature)
        if keep
        else Contribution(ciphertext, tuple(sealed), signature)
    )
    if contribution == good:
        made.verify(uploads[0].sender, contribution)
        return
    with pytest.raises((MalformedError, VerificationError)):
        made.verify(uploads[0].sender, contribution)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.builds(MemberKey, index=st.integers(0, 4), device_id=ID, prekey=ID), max_size=4))
def test_committees(members: list[MemberKey]) -> None:
    try:
        check_members(PARAMETERS, members)
    except MalformedError:
        return
    assert [member.index for member in members] == [1, 2, 3]


ENTRY = st.builds(
    Contributor,
    device_id=ID,
    ciphertext_tag=st.one_of(st.binary(min_size=16, max_size=16), ANYTHING),
    sealed_sha256=st.lists(ID, max_size=4).map(tuple),
)


@settings(max_examples=100, deadline=None)
@given(st.lists(ENTRY, max_size=4))
def test_sets_of_contributors(entries: list[Contributor]) -> None:
    try:
        assert len(set_hash(b"h" * 32, entries)) == 32
    except MalformedError:
        assert entries


@settings(max_examples=100, deadline=None)
@given(ENTRY, SHARE, ANYTHING, st.booleans(), st.booleans())
def test_bundles(entry: Contributor, sealed: bytes, signature: bytes, keep_entry: bool, keep_sealed: bool) -> None:
    made, uploads = cohort()
    good = uploads[1].share(1)
    hostile = ShareForMember(
        contributor=good.contributor if keep_entry else entry,
        public_key=good.public_key,
        sealed=good.sealed if keep_sealed else sealed,
        signature=signature,
    )
    with pytest.raises(ShareRefusedError) as refused:
        made.answer(1, uploads, shares=[uploads[0].share(1), hostile, uploads[2].share(1)])
    assert refused.value.contributor == hostile.contributor.device_id


@settings(max_examples=50, deadline=None)
@given(ID, ANYTHING, ID, ANYTHING)
def test_erasure_statements(plan_hash: bytes, cohort_id: bytes, member: bytes, signature: bytes) -> None:
    identity = Identity.numbered(1)
    for claimed in (member, identity.device_id):
        with pytest.raises(NightshiftError):
            verify_erasure(ErasureStatement(plan_hash, cohort_id, claimed, signature), identity.public_key)  # type: ignore[arg-type]  # hostile bytes
