"""A hostile device, against the real coordinator over real TLS: what it tries, what stops it, and where.

It has joined and has a certificate, so everything it sends is signed as it must
be. Either an upload is refused and leaves nothing behind, or what it encrypted
is in the sum exactly as it said, or the sum is absent: never wrong, and nobody
is blamed for it.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from coordinator.aggregation import uploads
from coordinator.enrolment.devices import find_device, revoke
from coordinator.storage.rows import CohortState, DeviceState
from nightshift.host.clock import now_unix_s
from nightshift.protocol.errors import (
    HashMismatchError,
    MalformedError,
    NightshiftError,
    NotFoundError,
    RevokedError,
    SignatureInvalidError,
    StateConflictError,
)
from nightshift.protocol.secagg import sharing
from nightshift.protocol.secagg.errors import SharesUnusableError
from nightshift.v1 import device_pb2
from tests.support.fleets import wait_until
from tests.support.hostile_device import Innards, random_values
from tests.support.nights import Night
from tests.support.scripted_device import Prepared, ScriptedDevice

FIELD_PRIME = 65521


def flipped(data: bytes, place: int) -> bytes:
    return data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]


# What it uploads is refused.


def other_plan_hash(night: Night, device: ScriptedDevice, honest: Prepared) -> None:
    """coordinator/aggregation/uploads.py, `announce`."""
    device.open_upload(replace(honest, plan=replace(honest.plan, plan_hash=os.urandom(32))))


def size_beyond_any(night: Night, device: ScriptedDevice, honest: Prepared) -> None:
    """`announce`: a contribution's only right size follows from the plan; nothing is allocated for it."""
    device.open_upload(honest, size_bytes=2**64 - 1)


def no_bytes_at_all(night: Night, device: ScriptedDevice, honest: Prepared) -> None:
    """`announce`."""
    device.open_upload(honest, size_bytes=0)


def signature_of_a_megabyte(night: Night, device: ScriptedDevice, honest: Prepared) -> None:
    """`announce`: a signature has 64 bytes."""
    device.open_upload(honest, signature=bytes(1 << 20))


def no_signature(night: Night, device: ScriptedDevice, honest: Prepared) -> None:
    """`announce`."""
    device.open_upload(honest, signature=b"")


def cohort_of_nobody(night: Night, device: ScriptedDevice, honest: Prepared) -> None:
    """`announce`: there is no such cohort."""
    device._call(
        device.stub.OpenUpload,
        device_pb2.OpenUploadRequest(cohort_id=os.urandom(32), plan_hash=honest.plan.plan_hash, size_bytes=1),
    )


def truncated(night: Night, device: ScriptedDevice, honest: Prepared) -> None:
    """A stream that ends early is not complete, and what is announced as shorter is refused."""
    device.open_upload(honest)
    reply = device.send(honest, stop=len(honest.body) - 1)
    assert (reply.offset, reply.complete) == (len(honest.body) - 1, False)
    device.open_upload(replace(honest, body=honest.body[:-1]))


def oversized(night: Night, device: ScriptedDevice, honest: Prepared) -> None:
    """coordinator/aggregation/uploads.py, `Receiver.take`: before the byte too many is kept."""
    device.open_upload(honest)
    device.send(honest, body=honest.body + b"x")


def piece_of_a_megabyte(night: Night, device: ScriptedDevice, honest: Prepared) -> None:
    """coordinator/service/device.py, `_checked`."""
    device.open_upload(honest)
    message = device_pb2.UploadRequest(cohort_id=honest.plan.document.cohort_id, data=bytes((1 << 18) + 1))
    device._call(device.stub.Upload, iter([message]))


def wrong_signature_announced(night: Night, device: ScriptedDevice, honest: Prepared) -> None:
    """coordinator/aggregation/uploads.py, `finish`."""
    device.open_upload(honest, signature=os.urandom(64))
    device.send(honest)


def resumed_with_other_bytes(night: Night, device: ScriptedDevice, honest: Prepared) -> None:
    """nightshift/protocol/secagg/contribution.py: the signature is over all bytes, whenever they came."""
    half = len(honest.body) // 2
    device.open_upload(honest)
    device.send(honest, stop=half)
    device.send(honest, offset=half, body=flipped(honest.body, half + 5))


def stream_from_the_middle(night: Night, device: ScriptedDevice, honest: Prepared) -> None:
    """coordinator/aggregation/uploads.py, `Receiver`."""
    device.open_upload(honest)
    device.send(honest, offset=1000)


def another_ciphertext_than_was_signed(night: Night, device: ScriptedDevice, honest: Prepared) -> None:
    """nightshift/protocol/secagg/contribution.py: the signature is over the tag of the ciphertext."""
    device.upload(replace(honest, body=flipped(honest.body, 7)))


def another_sealed_share_than_was_signed(night: Night, device: ScriptedDevice, honest: Prepared) -> None:
    """nightshift/protocol/secagg/contribution.py: the signature is over the hash of every sealed share."""
    parameters, length = honest.plan.document.parameters, honest.plan.document.vector.length
    device.upload(replace(honest, body=flipped(honest.body, parameters.ciphertext_bytes(length) + 40)))


def nothing_but_noise(night: Night, device: ScriptedDevice, honest: Prepared) -> None:
    """Bytes of the right size: the signatures in them are none."""
    device.upload(replace(honest, body=os.urandom(len(honest.body))))


def signed_with_a_key_that_was_never_enrolled(night: Night, device: ScriptedDevice, honest: Prepared) -> None:
    """Signatures count under the key of the TLS connection's certificate; no field can name another."""
    stranger = replace(device, key=ec.generate_private_key(ec.SECP256R1()))
    device.upload(stranger.encrypt(honest.plan, honest.values))


def contribution_of_another_device(night: Night, device: ScriptedDevice, honest: Prepared) -> None:
    """The same: a stolen body is nobody else's contribution."""
    device.upload(night.prepare(night.devices[1]))


def shares_in_each_others_place(night: Night, device: ScriptedDevice, honest: Prepared) -> None:
    """The signature is over the shares' hashes in their order."""
    document = honest.plan.document
    start = document.parameters.ciphertext_bytes(document.vector.length)
    size = document.parameters.sealed_share_bytes
    stride = size
    body = bytearray(honest.body)
    body[start : start + size], body[start + stride : start + stride + size] = (
        honest.body[start + stride : start + stride + size],
        honest.body[start : start + size],
    )
    device.upload(replace(honest, body=bytes(body)))


Attack = Callable[[Night, ScriptedDevice, Prepared], None]


@pytest.mark.parametrize(
    ("attack", "error"),
    [
        (other_plan_hash, MalformedError),
        (size_beyond_any, MalformedError),
        (no_bytes_at_all, MalformedError),
        (signature_of_a_megabyte, MalformedError),
        (no_signature, MalformedError),
        (cohort_of_nobody, NotFoundError),
        (truncated, StateConflictError),
        (oversized, MalformedError),
        (piece_of_a_megabyte, MalformedError),
        (wrong_signature_announced, HashMismatchError),
        (resumed_with_other_bytes, SignatureInvalidError),
        (stream_from_the_middle, StateConflictError),
        (another_ciphertext_than_was_signed, SignatureInvalidError),
        (another_sealed_share_than_was_signed, SignatureInvalidError),
        (nothing_but_noise, SignatureInvalidError),
        (signed_with_a_key_that_was_never_enrolled, SignatureInvalidError),
        (contribution_of_another_device, SignatureInvalidError),
        (shares_in_each_others_place, SignatureInvalidError),
    ],
    ids=lambda value: value.__name__,
)
def test_an_upload_that_is_refused(night: Night, attack: Attack, error: type[NightshiftError]) -> None:
    """Tries: what its name says. Stopped where its docstring says; the others' sum is theirs alone."""
    attacker, others = night.devices[0], night.devices[1:4]
    with pytest.raises(error):
        attack(night, attacker, night.prepare(attacker))
    assert night.counted() == set()
    prepared = night.contribute(*others)
    night.end_uploads()
    assert night.counted() == {device.device_id for device in others}
    night.answer(*night.members()[:5])
    night.require_exact_sum(prepared)


# It speaks twice, late, or again.


def test_a_second_contribution_to_the_same_cohort(night: Night) -> None:
    """Tries: other bytes for the same plan, before and after the first were counted; two sums would differ by it.

    Stopped by coordinator/aggregation/uploads.py, `announce`. The first stays as it is.
    """
    attacker = night.devices[0]
    first, second = night.prepare(attacker), night.prepare(attacker)
    attacker.open_upload(first)
    with pytest.raises(StateConflictError, match="another contribution of this device"):
        attacker.upload(second)
    attacker.upload(first)
    with pytest.raises(StateConflictError, match="another contribution of this device"):
        attacker.upload(second)
    assert attacker.send(second).complete, "whatever a stream brings after the count, it is not read"
    prepared = [first, *night.contribute(*night.devices[1:3])]
    night.end_uploads()
    night.answer(*night.members()[:5])
    night.require_exact_sum(prepared)


def test_a_contribution_to_a_second_cohort_of_the_same_parent(night: Night) -> None:
    """Tries: to take part again after its first cohort was void.

    Stopped by coordinator/rounds/pool.py, `spent_parent`.
    """
    attacker = night.devices[0]
    night.contribute(attacker)
    assert night.end_uploads().state is CohortState.VOID
    night.open_round()
    with pytest.raises(StateConflictError, match="this parent release"):
        attacker.upload(night.prepare(attacker))
    assert night.counted() == set()


def test_a_contribution_after_the_set_was_frozen(night: Night) -> None:
    """Tries: a late upload, whole or the rest of one. U is fixed and logged, and stays so.

    Stopped by coordinator/aggregation/uploads.py, `_require_open` and `Receiver`.
    """
    late, later = night.devices[4:6]
    half, whole = night.prepare(late), night.prepare(later)
    late.open_upload(half)
    late.send(half, stop=1000)
    prepared = night.contribute(*night.devices[:3])
    frozen = night.end_uploads()
    assert frozen.state is CohortState.FROZEN
    with pytest.raises(StateConflictError, match="next round"):
        late.send(half, offset=1000)
    with pytest.raises(StateConflictError, match="next round"):
        later.upload(whole)
    assert night.cohort().set_hash == frozen.set_hash
    night.answer(*night.members()[:5])
    night.require_exact_sum(prepared)


def test_the_contribution_of_the_last_round_again(night: Night) -> None:
    """Tries: the bytes of round 1 in round 2, whose length is the same.

    Stopped by the signature, which is over the hash of the plan (nightshift/protocol/secagg/device.py).
    """
    attacker = night.devices[0]
    prepared = night.contribute(*night.devices[:3])
    night.end_uploads()
    night.answer(*night.members()[:5])
    night.require_exact_sum(prepared)
    plan = night.open_round()
    replayed = replace(prepared[0], plan=plan)
    assert len(replayed.body) == len(night.prepare(attacker).body), "else the size alone would refuse it"
    with pytest.raises(SignatureInvalidError):
        attacker.upload(replayed)
    assert night.counted() == set()


def test_revoked_in_the_middle_of_its_upload(night: Night, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tries: to finish a stream, and to begin another, after the operator revoked it.

    Stopped by coordinator/aggregation/folding.py in the transaction that would count it, and by
    coordinator/enrolment/devices.py, `require_enrolled`, at every later call.
    """
    monkeypatch.setattr(uploads, "PART_BYTES", 1000)  # so that the rows tell when the stream is under way
    attacker = night.devices[0]
    prepared = night.prepare(attacker)
    attacker.open_upload(prepared)
    revoked = threading.Event()

    def messages() -> Iterator[device_pb2.UploadRequest]:
        yield device_pb2.UploadRequest(cohort_id=prepared.plan.document.cohort_id, data=prepared.body[:5000])
        revoked.wait(20)
        yield device_pb2.UploadRequest(data=prepared.body[5000:])

    stream = attacker.stub.Upload.future(messages(), timeout=20)
    wait_until(lambda: night.received(attacker) == 5000)
    with night.deployment.database.transaction() as session:
        row = find_device(session, attacker.device_id.hex())
        revoke(session, night.deployment.log, row, reason="lost", now_unix_s=now_unix_s())
        assert row.state is DeviceState.REVOKED
    revoked.set()
    assert "was revoked by the operator" in str(stream.exception())
    with pytest.raises(RevokedError, match="revoked"):
        attacker.upload(prepared)
    assert night.counted() == set()


# It seals what does not open.


def not_sealed_at_all(innards: Innards, index: int) -> None:
    innards.sealed[index] = os.urandom(innards.parameters.sealed_share_bytes)


def sealed_to_another_member(innards: Innards, index: int) -> None:
    other = index % len(innards.shares) + 1
    innards.seal_bytes(other, sharing.to_bytes(innards.shares[index - 1], innards.parameters))
    innards.sealed[index] = innards.sealed.pop(other)


def an_element_outside_the_field(innards: Innards, index: int) -> None:
    share = bytearray(sharing.to_bytes(innards.shares[index - 1], innards.parameters))
    share[-2:] = FIELD_PRIME.to_bytes(2, "little")
    innards.seal_bytes(index, bytes(share))


UNREADABLE = pytest.mark.parametrize(
    "spoil", [not_sealed_at_all, sealed_to_another_member, an_element_outside_the_field], ids=lambda f: f.__name__
)


@UNREADABLE
def test_one_member_cannot_read_its_share(night: Night, spoil: Callable[[Innards, int], None]) -> None:
    """Tries: to silence one member with a share that it cannot open, signed as it must be.

    The coordinator cannot see it. The member does not answer (nightshift/protocol/secagg/member.py, `answer`);
    five others open the sum, and the attacker's own vector is in it as it said.
    """
    innards = Innards.of(night.devices[0], night.plan, random_values(night.plan))
    spoil(innards, 2)
    hostile = innards.body()
    assert innards.device.upload(hostile).complete
    prepared = [hostile, *night.contribute(*night.devices[1:3])]
    night.end_uploads()
    members = night.members()
    with pytest.raises(SharesUnusableError) as refused:
        night.make_answer(members[1])
    assert [share.contributor for share in refused.value.shares] == [innards.device.device_id]
    night.answer(members[0], *members[2:])
    night.require_exact_sum(prepared)


@UNREADABLE
def test_too_many_members_cannot_read_their_shares(night: Night, spoil: Callable[[Innards, int], None]) -> None:
    """Tries: to silence two members, one more than C - T. It succeeds in denying service, and in nothing else.

    The sum stays absent, the cohort is void at the deadline, and no device is revoked for it.
    """
    innards = Innards.of(night.devices[0], night.plan, random_values(night.plan))
    spoil(innards, 2)
    spoil(innards, 5)
    assert innards.device.upload(innards.body()).complete
    night.contribute(*night.devices[1:3])
    night.end_uploads()
    members = night.members()
    for silenced in (members[1], members[4]):
        with pytest.raises(SharesUnusableError):
            night.make_answer(silenced)
    night.answer(members[0], *members[2:4], members[5])
    assert night.end_answers().state is CohortState.VOID
    night.require_no_sum()
    with night.deployment.database.reading() as session:
        row = find_device(session, innards.device.device_id.hex())
        assert row.state is DeviceState.ENROLLED


# What it shares is not what it encrypted.


def test_one_share_that_does_not_fit_the_others(night: Night) -> None:
    """Tries: to make an honest member's answer wrong, with a share that opens and is none of its key.

    The member cannot know. The opener finds five answers that fit (nightshift/protocol/secagg/opener.py) and the sum is
    exact. The sixth does not fit, and is not the member's doing: that is why nobody is thrown out for it.
    """
    innards = Innards.of(night.devices[0], night.plan, random_values(night.plan))
    innards.change_share(3)
    hostile = innards.body()
    assert innards.device.upload(hostile).complete
    prepared = [hostile, *night.contribute(*night.devices[1:3])]
    night.end_uploads()
    members = night.members()
    night.answer(*members[:5])
    night.require_no_sum()
    night.answer(members[5])
    night.require_exact_sum(prepared)
    assert night.cohort().members_outside == "[3]", "five of six agree: its answer certainly does not fit"
    with night.deployment.database.reading() as session:
        assert find_device(session, members[2].device_id.hex()).state is DeviceState.ENROLLED


def shares_of_a_higher_degree(innards: Innards) -> None:
    innards.share_with_degree(innards.parameters.degree + 1)


def shares_of_another_key(innards: Innards) -> None:
    innards.shares = (innards.shares + np.uint64(1)) % np.uint64(FIELD_PRIME)


def a_key_that_is_too_large(innards: Innards) -> None:
    by = np.zeros(4096, dtype=np.int64)
    by[7] = 200
    innards.change_key(by)
    assert np.abs(innards.secret).max() > 21 * 3 + 3 * 21, "beyond 21 |U| whatever the others' keys are"


def noise_that_is_too_large(innards: Innards) -> None:
    """Twice the bound's square and more, in each coefficient of one polynomial."""
    innards.coefficients[-1] += np.uint64(40)


def a_ciphertext_of_nothing(innards: Innards) -> None:
    innards.coefficients[...] = np.random.default_rng().integers(0, 2**64, innards.coefficients.shape, dtype=np.uint64)


@pytest.mark.parametrize(
    "spoil",
    [
        shares_of_a_higher_degree,
        shares_of_another_key,
        a_key_that_is_too_large,
        noise_that_is_too_large,
        a_ciphertext_of_nothing,
    ],
    ids=lambda f: f.__name__,
)
def test_what_does_not_decrypt(night: Night, spoil: Callable[[Innards], None]) -> None:
    """Tries: a contribution whose shares and ciphertext do not belong together, so that the sum opens wrongly.

    Stopped by nightshift/protocol/secagg/opener.py: max|S| <= 21 |U|, and the residual of every polynomial. All answer,
    no subset passes; the sum is absent, the cohort void, and nobody is blamed.
    """
    innards = Innards.of(night.devices[0], night.plan, random_values(night.plan))
    spoil(innards)
    assert innards.device.upload(innards.body()).complete
    night.contribute(*night.devices[1:3])
    night.end_uploads()
    night.answer(*night.devices)
    assert night.answers_kept() == [1, 2, 3, 4, 5, 6]
    assert night.cohort().state is CohortState.FROZEN
    cohort = night.end_answers()
    assert cohort.state is CohortState.VOID
    assert "no 5 of their answers fit together" in cohort.reason
    night.require_no_sum()


def test_an_honest_contribution_taken_apart_and_put_together(night: Night) -> None:
    """The control of the tests above: nothing changed, sealed and signed by the same code, opens exactly."""
    innards = Innards.of(night.devices[0], night.plan, random_values(night.plan))
    untouched = innards.body()
    assert innards.device.upload(untouched).complete
    prepared = [untouched, *night.contribute(*night.devices[1:3])]
    night.end_uploads()
    night.answer(*night.members()[:5])
    night.require_exact_sum(prepared)


# What it encrypts.


def test_values_outside_their_range(night: Night) -> None:
    """Tries: values that fill their whole slots, where an honest one has b bits.

    Stopped by nightshift/protocol/secagg/encoding.py, `decode_sum`: no honest devices add up to such a sum.
    """
    values = random_values(night.plan)
    innards = Innards.of(night.devices[0], night.plan, values)
    parameters = night.plan.document.parameters
    room = (1 << parameters.slot_bits) - 1 - 3 * ((1 << parameters.value_bits) - 1)
    innards.coefficients[0, 0] += np.uint64(room << parameters.noise_bits)
    assert innards.device.upload(innards.body()).complete
    night.contribute(*night.devices[1:3])
    night.end_uploads()
    night.answer(*night.members()[:5])
    cohort = night.cohort()
    assert cohort.state is CohortState.VOID
    assert "outside what 3 contributors can add up to" in cohort.reason
    night.require_no_sum()


@pytest.mark.parametrize("extreme", ["smallest", "largest"])
def test_the_most_extreme_values_in_range(night: Night, extreme: str) -> None:
    """Tries: to bring NaN or infinity into the release. There is no float on the wire: any bits are an integer.

    It is in the sum, within its range: that is the influence that every contributor has (docs/threat-model.md).
    """
    vector = night.plan.document.vector
    values = random_values(night.plan)
    largest = (1 << vector.encoding.value_bits) - 1
    values[: vector.delta_length] = largest if extreme == "largest" else 1
    hostile = night.devices[0].encrypt(night.plan, values)
    assert night.devices[0].upload(hostile).complete
    prepared = [hostile, *night.contribute(*night.devices[1:3])]
    night.end_uploads()
    night.answer(*night.members()[:5])
    night.require_exact_sum(prepared)
    opened = vector.decode_sum(night.opened_sum(), 3)
    assert np.isfinite(opened.weighted_delta).all()
    # The rotation moves what is clipped about, and keeps its length.
    assert np.linalg.norm(opened.weighted_delta) <= 3 * vector.encoding.clip * vector.delta_length**0.5 * 1.001
