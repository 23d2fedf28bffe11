"""What a device sends, and what a coordinator refuses at upload."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import numpy as np
import pytest
from secagg_cohort import Cohort, Identity

from nightshift.protocol.errors import MalformedError, SignatureInvalidError, UsageError
from nightshift.protocol.secagg import packing
from nightshift.protocol.secagg.contribution import Contribution, ciphertext_tag
from nightshift.protocol.secagg.device import MemberKey, check_members
from nightshift.protocol.secagg.parameters import CohortParameters


@pytest.fixture(scope="module")
def cohort() -> Cohort:
    return Cohort(CohortParameters.derive(n_max=10, value_bits=8, committee_size=4), length=20_000)


def test_sizes_are_exact(cohort: Cohort) -> None:
    contribution = cohort.upload(1).contribution
    assert len(contribution.ciphertext) == cohort.parameters.ciphertext_bytes(20_000)
    assert [len(sealed) for sealed in contribution.sealed] == [cohort.parameters.sealed_share_bytes] * 4
    assert len(contribution.signature) == 64


def test_nothing_of_the_vector_shows(cohort: Cohort) -> None:
    """The same vector twice: unrelated ciphertexts, each with uniform coefficients."""
    vector = np.zeros(20_000, dtype=np.uint64)
    first, second = (
        packing.unpack(cohort.upload(1, vector).contribution.ciphertext, cohort.parameters.words(20_000))
        for _ in range(2)
    )
    difference = (first - second) & np.uint64((1 << cohort.parameters.modulus_bits) - 1)
    for coefficients in (first, second, difference):
        assert len(np.unique(coefficients)) == coefficients.size
        scaled = coefficients.astype(np.float64).ravel() / 2.0**cohort.parameters.modulus_bits
        observed, _ = np.histogram(scaled, bins=32, range=(0, 1))
        expected = scaled.size / 32
        assert np.sum((observed - expected) ** 2 / expected) < 31 + 6 * np.sqrt(2 * 31)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.zeros(0, np.uint64), "length must be an integer from 1"),
        (np.full(5, 256, np.uint64), "does not fit 8 bits"),
        (np.full(5, 2**64 - 1, np.uint64), "does not fit 8 bits"),
        (np.zeros(5, np.int64), "must be a uint64 vector"),
        (np.zeros((5, 5), np.uint64), "must be a uint64 vector"),
    ],
)
def test_vectors_that_do_not_fit_are_refused(cohort: Cohort, values: np.ndarray, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        cohort.upload(1, values)


def low_order(member: MemberKey) -> MemberKey:
    return replace(member, prekey=(1).to_bytes(32, "little"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: m[:-1], "by index 1..4"),
        (lambda m: [*m, m[0]], "by index 1..4"),
        (lambda m: [m[1], m[0], *m[2:]], "by index 1..4"),
        (lambda m: [replace(m[0], index=0), *m[1:]], "by index 1..4"),
        (lambda m: [*m[:3], replace(m[0], index=4)], "stands twice in the committee"),
        (lambda m: [*m[:3], replace(m[3], prekey=m[0].prekey)], "the same prekey"),
        (lambda m: [*m[:3], replace(m[3], device_id=b"short")], "must have 32 bytes"),
        (lambda m: [*m[:3], replace(m[3], prekey=b"short")], "5 bytes, expected 32"),
        (lambda m: [*m[:3], low_order(m[3])], "low-order"),
    ],
)
def test_malformed_committees_are_refused(cohort: Cohort, change: object, message: str) -> None:
    with pytest.raises(MalformedError, match=message):
        check_members(cohort.parameters, change(cohort.member_keys))


def test_uploads_that_were_touched_are_refused(cohort: Cohort) -> None:
    sender = Identity.numbered(1)
    good = cohort.upload(1).contribution
    sealed = good.sealed

    def refuse(error: type[Exception], message: str, **changes: object) -> None:
        changed = replace(good, **changes)
        with pytest.raises(error, match=message):
            cohort.verify(sender, changed)

    refuse(MalformedError, "a ciphertext has", ciphertext=good.ciphertext[:-1])
    refuse(MalformedError, "a ciphertext has", ciphertext=good.ciphertext + b"\0")
    flipped = bytes([good.ciphertext[0] ^ 1]) + good.ciphertext[1:]
    signature = "the signature of the contribution"
    refuse(SignatureInvalidError, signature, ciphertext=flipped)
    swapped = good.ciphertext[8:16] + good.ciphertext[:8] + good.ciphertext[16:]
    refuse(SignatureInvalidError, signature, ciphertext=swapped)
    refuse(MalformedError, "each of 4 members, got 3", sealed=sealed[:3])
    refuse(MalformedError, "each of 4 members, got 5", sealed=(*sealed, sealed[0]))
    refuse(SignatureInvalidError, signature, sealed=(sealed[1], sealed[0], *sealed[2:]))
    refuse(MalformedError, "share for member 2 has 0", sealed=(sealed[0], b"", *sealed[2:]))
    for index in range(4):
        changed = bytes([sealed[index][0] ^ 1]) + sealed[index][1:]
        refuse(SignatureInvalidError, signature, sealed=(*sealed[:index], changed, *sealed[index + 1 :]))
    refuse(SignatureInvalidError, signature, signature=cohort.upload(1).contribution.signature)
    refuse(SignatureInvalidError, "has 0 bytes", signature=b"")


@pytest.mark.parametrize("position", [0, 1, 7, 8, 15, 16, 5_000, -1])
def test_the_tag_notices_every_flipped_bit(cohort: Cohort, position: int) -> None:
    ciphertext = bytes(cohort.upload(1).contribution.ciphertext)
    device = Identity.numbered(1).device_id
    good = ciphertext_tag(cohort.plan_hash, device, ciphertext)
    assert len(good) == 16
    for bit in range(8):
        changed = bytearray(ciphertext)
        changed[position] ^= 1 << bit
        assert ciphertext_tag(cohort.plan_hash, device, bytes(changed)) != good
    assert ciphertext_tag(cohort.plan_hash, device, memoryview(ciphertext)) == good
    assert ciphertext_tag(bytes(32), device, ciphertext) != good
    assert ciphertext_tag(cohort.plan_hash, Identity.numbered(2).device_id, ciphertext) != good


def test_the_tag_is_that_of_the_rfc_under_the_documented_key(cohort: Cohort) -> None:
    """Poly1305 by its definition (RFC 8439, section 2.5.1), in Python's integers."""
    device, message = Identity.numbered(1).device_id, bytes(range(40))
    fields = [b"nightshift/v1/ciphertext-tag", cohort.plan_hash, device]
    key = hashlib.sha256(b"".join(len(field).to_bytes(4, "big") + field for field in fields)).digest()
    r = int.from_bytes(key[:16], "little") & 0x0FFFFFFC0FFFFFFC0FFFFFFC0FFFFFFF
    accumulator = 0
    for start in range(0, len(message), 16):
        accumulator = (accumulator + int.from_bytes(message[start : start + 16] + b"\x01", "little")) * r % (2**130 - 5)
    expected = (accumulator + int.from_bytes(key[16:], "little")) % 2**128
    assert ciphertext_tag(cohort.plan_hash, device, message) == expected.to_bytes(16, "little")


def test_a_contribution_is_bound_to_its_sender_and_plan(cohort: Cohort) -> None:
    contribution = cohort.upload(1).contribution
    with pytest.raises(SignatureInvalidError):
        cohort.verify(Identity.numbered(2), contribution)
    elsewhere = Cohort(cohort.parameters, length=20_000, seed=1)
    with pytest.raises(SignatureInvalidError):
        elsewhere.verify(Identity.numbered(1), contribution)


def test_every_contribution_draws_fresh_keys(cohort: Cohort) -> None:
    first, second = (cohort.upload(1).contribution for _ in range(2))
    assert first.ciphertext != second.ciphertext
    assert not set(first.sealed) & set(second.sealed)


def test_a_contribution_is_immutable(cohort: Cohort) -> None:
    contribution = cohort.upload(1).contribution
    assert isinstance(contribution, Contribution)
    with pytest.raises(AttributeError):
        contribution.ciphertext = b""  # type: ignore[misc]  # that it is refused is the point
    assert contribution.ciphertext.__class__ is bytes
