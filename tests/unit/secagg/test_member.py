from __future__ import annotations

import hashlib
from dataclasses import replace

import pytest
from secagg_cohort import Cohort, Identity, Upload

from nightshift.protocol.errors import (
    DeclinedError,
    HashMismatchError,
    MalformedError,
    SignatureInvalidError,
    UsageError,
)
from nightshift.protocol.secagg.contribution import entry_of
from nightshift.protocol.secagg.contributors import Contributor, contribution_message, set_hash
from nightshift.protocol.secagg.errors import ShareRefusedError, SharesUnusableError
from nightshift.protocol.secagg.member import verify_answer
from nightshift.protocol.secagg.parameters import CohortParameters
from nightshift.protocol.secagg.refusal import ShareFault, UnusableShare
from nightshift.protocol.secagg.sealing import seal, seal_info


@pytest.fixture(scope="module")
def cohort() -> Cohort:
    return Cohort(CohortParameters.derive(n_max=4, value_bits=8, committee_size=4), length=50)


@pytest.fixture(scope="module")
def uploads(cohort: Cohort) -> list[Upload]:
    return [cohort.upload(number) for number in range(3)]


def test_the_answer_does_not_depend_on_the_order(cohort: Cohort, uploads: list[Upload]) -> None:
    assert cohort.answer(2, uploads) == cohort.answer(2, uploads[::-1])


def test_answers_verify(cohort: Cohort, uploads: list[Upload]) -> None:
    answer = cohort.answer(3, uploads)
    good = {
        "parameters": cohort.parameters,
        "plan_hash": cohort.plan_hash,
        "set_hash": cohort.set_hash(uploads),
        "answer": answer,
        "public_key": cohort.members[2].identity.public_key,
    }
    verify_answer(**good)
    for change, error in (
        ({"plan_hash": bytes(32)}, SignatureInvalidError),
        ({"set_hash": bytes(32)}, SignatureInvalidError),
        ({"public_key": cohort.members[1].identity.public_key}, SignatureInvalidError),
        ({"answer": replace(answer, index=2)}, SignatureInvalidError),
        ({"answer": replace(answer, index=0)}, MalformedError),
        ({"answer": replace(answer, index=5)}, MalformedError),
        ({"answer": replace(answer, vector=answer.vector[:-2])}, MalformedError),
        ({"answer": replace(answer, vector=b"\xff\xff" + answer.vector[2:])}, MalformedError),
        ({"answer": replace(answer, vector=b"\x00\x00" + answer.vector[2:])}, SignatureInvalidError),
        ({"answer": replace(answer, signature=answer.signature[:-1])}, SignatureInvalidError),
    ):
        with pytest.raises(error):
            verify_answer(**(good | change))


def test_a_member_answers_for_three_or_more(cohort: Cohort, uploads: list[Upload]) -> None:
    with pytest.raises(DeclinedError, match="answers for 3 or more"):
        cohort.answer(1, uploads[:2])
    with pytest.raises(DeclinedError, match="answers for 3 or more"):
        cohort.answer(1, uploads[:2], minimum=0)
    with pytest.raises(DeclinedError, match="answers for 4 or more"):
        cohort.answer(1, uploads, minimum=4)
    with pytest.raises(DeclinedError):
        cohort.answer(1, [], set_hash=set_hash(cohort.plan_hash, []))


def test_another_set_than_the_logged_one_is_refused(cohort: Cohort, uploads: list[Upload]) -> None:
    fourth = cohort.upload(3)
    with pytest.raises(HashMismatchError, match="not those of the logged set"):
        cohort.answer(1, uploads, set_hash=cohort.set_hash([*uploads, fourth]))
    with pytest.raises(HashMismatchError, match="not those of the logged set"):
        cohort.answer(1, [*uploads, fourth], set_hash=cohort.set_hash(uploads))


def test_a_device_counts_once(cohort: Cohort, uploads: list[Upload]) -> None:
    again = cohort.upload(0)
    for repeated in (uploads[0], again):
        with pytest.raises(MalformedError, match="stands twice"):
            cohort.answer(1, [*uploads, repeated], set_hash=bytes(32))


def test_more_than_n_max_is_refused_before_more_work(cohort: Cohort, uploads: list[Upload]) -> None:
    endless = (uploads[i % 3].share(1) for i in range(10**9))
    with pytest.raises(MalformedError, match="more than n_max = 4"):
        cohort.answer(1, uploads, shares=endless)


def test_every_doubt_about_a_share_names_its_contributor(cohort: Cohort, uploads: list[Upload]) -> None:
    victim = uploads[1]
    good = victim.share(1)
    entry = victim.entry
    other = uploads[2].share(1)

    # A share that the coordinator knows, sealed by itself in the victim's name: the signature is what stops it.
    known = seal(
        bytes(cohort.parameters.share_vector_bytes),
        cohort.member_keys[0].prekey,
        seal_info(cohort.plan_hash, victim.sender.device_id, cohort.member_keys[0].device_id),
    )
    known_entry = replace(entry, sealed_sha256=(hashlib.sha256(known).digest(), *entry.sealed_sha256[1:]))
    cases = [
        replace(good, sealed=other.sealed),
        replace(good, signature=other.signature),
        replace(good, signature=b""),
        replace(good, public_key=other.public_key),
        replace(good, contributor=replace(entry, ciphertext_tag=bytes(16))),
        replace(good, contributor=replace(entry, ciphertext_tag=b"")),
        replace(good, contributor=replace(entry, sealed_sha256=entry.sealed_sha256[:-1])),
        replace(good, contributor=replace(entry, sealed_sha256=())),
        # One other share of the list, that of another member, was swapped.
        replace(good, contributor=replace(entry, sealed_sha256=(*entry.sealed_sha256[:-1], bytes(32)))),
        replace(good, sealed=known, contributor=known_entry),
        victim.share(2),
    ]
    for case in cases:
        shares = [uploads[0].share(1), case, uploads[2].share(1)]
        with pytest.raises(ShareRefusedError, match=victim.sender.device_id.hex()) as refused:
            cohort.answer(1, uploads, shares=shares)
        assert refused.value.contributor == victim.sender.device_id


def resealed(cohort: Cohort, upload: Upload, plaintext: bytes) -> Upload:
    """The same upload by a dishonest device: member 1's share replaced and properly signed."""
    member = cohort.member_keys[0]
    sender = upload.sender
    sealed = seal(plaintext, member.prekey, seal_info(cohort.plan_hash, sender.device_id, member.device_id))
    unsigned = replace(upload.contribution, sealed=(sealed, *upload.contribution.sealed[1:]))
    message = contribution_message(cohort.plan_hash, entry_of(cohort.plan_hash, sender.device_id, unsigned))
    return replace(upload, contribution=replace(unsigned, signature=sender.sign(message)))


def test_signed_garbage_is_found_by_the_member(cohort: Cohort, uploads: list[Upload]) -> None:
    size = cohort.parameters.share_vector_bytes
    for plaintext, fault in (
        (b"\xff" * size, ShareFault.NOT_IN_FIELD),
        (bytes(size - 2), ShareFault.DOES_NOT_OPEN),
    ):
        hostile = [resealed(cohort, uploads[0], plaintext), *uploads[1:]]
        with pytest.raises(SharesUnusableError) as refused:
            cohort.answer(1, hostile)
        assert refused.value.shares == (UnusableShare(uploads[0].sender.device_id, fault),)


def test_all_unusable_shares_are_named_and_only_when_the_set_is_the_logged_one(
    cohort: Cohort, uploads: list[Upload]
) -> None:
    garbage = b"\xff" * cohort.parameters.share_vector_bytes
    hostile = [resealed(cohort, uploads[0], garbage), uploads[1], resealed(cohort, uploads[2], garbage)]
    with pytest.raises(SharesUnusableError) as refused:
        cohort.answer(1, hostile)
    named = [share.contributor for share in refused.value.shares]
    assert named == sorted(upload.sender.device_id for upload in (uploads[0], uploads[2]))
    with pytest.raises(HashMismatchError):
        cohort.answer(1, hostile, set_hash=bytes(32))


def test_another_prekey_opens_nothing(cohort: Cohort, uploads: list[Upload]) -> None:
    with pytest.raises(SharesUnusableError, match="cannot be used"):
        cohort.answer(1, uploads, prekey_private=cohort.members[1].prekey_private)


@pytest.mark.parametrize("index", [0, 5, -1])
def test_indexes_outside_the_committee_are_refused(cohort: Cohort, uploads: list[Upload], index: int) -> None:
    with pytest.raises(UsageError, match=r"lies in 1\.\.4"):
        cohort.answer(1, uploads, index=index)


def entry(number: int, **changes: object) -> Contributor:
    made = Contributor(
        device_id=Identity.numbered(number).device_id,
        ciphertext_tag=bytes([number]) * 16,
        sealed_sha256=(bytes(32), bytes([number]) * 32),
    )
    return replace(made, **changes)


def test_set_hash_depends_on_every_field_but_not_on_the_order() -> None:
    entries = [entry(1), entry(2), entry(3)]
    h = set_hash(b"p" * 32, entries)
    assert len(h) == 32
    assert set_hash(b"p" * 32, entries[::-1]) == h
    different = [
        set_hash(b"q" * 32, entries),
        set_hash(b"p" * 32, entries[:2]),
        set_hash(b"p" * 32, []),
        set_hash(b"p" * 32, [entry(1, ciphertext_tag=bytes(16)), *entries[1:]]),
        set_hash(b"p" * 32, [entry(1, sealed_sha256=(bytes(32), bytes(32))), *entries[1:]]),
        set_hash(b"p" * 32, [entry(4), *entries[1:]]),
    ]
    assert len({h, *different}) == 7


@pytest.mark.parametrize(
    "changes",
    [
        {"device_id": b"short"},
        {"ciphertext_tag": b""},
        {"sealed_sha256": (bytes(32), bytes(31))},
        {"sealed_sha256": (bytes(32),)},
    ],
)
def test_malformed_entries_are_refused(changes: dict[str, object]) -> None:
    with pytest.raises(MalformedError):
        set_hash(b"p" * 32, [entry(1), entry(2, **changes), entry(3)])
