"""Every lie that a coordinator can tell a committee member about the set whose sum it opens.

How lies are told and refused: tests/support/lies.py.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable

import pytest

from nightshift.protocol.errors import (
    DeclinedError,
    HashMismatchError,
    LogInconsistentError,
    MalformedError,
    SignatureInvalidError,
    VerificationError,
)
from nightshift.protocol.plan import sign_plan
from nightshift.protocol.plan_checks import verify_bundle_entry
from nightshift.protocol.secagg.contribution import entry_of
from nightshift.protocol.secagg.contributors import set_hash
from nightshift.protocol.secagg.errors import ShareRefusedError
from nightshift.protocol.secagg.member import ShareForMember, answer
from nightshift.v1 import device_pb2
from tests.support.authority import DAY_S, Authority, new_key
from tests.support.lies import PLAN, SET, VOID, refused
from tests.support.plans import Cohort, FrozenSet, World, make_device

# The bundle that a committee member gets.


@pytest.fixture
def frozen(honest: Cohort) -> FrozenSet:
    world = honest.world
    frozen = honest.freeze({device.device_id: honest.contribute(device) for device in world.devices[:4]})
    frozen.verify(1)
    return frozen


def with_header(
    frozen: FrozenSet, edit: Callable[[device_pb2.BundleHeader], object], index: int = 1
) -> Callable[[], object]:
    header = frozen.header()
    before = header.SerializeToString()
    edit(header)
    assert header.SerializeToString() != before, "the edit changed nothing"
    return lambda: frozen.verify(index, header)


def test_every_honest_member_is_served(frozen: FrozenSet) -> None:
    for index in range(1, 11):
        plan, place = frozen.verify(index)
        assert place == index
        for entry in frozen.entries(index):
            frozen.verify_entry(entry, plan=plan)


def test_the_bundle_of_another_cohort(world: World, frozen: FrozenSet) -> None:
    refused(
        VerificationError, "another cohort than the one asked for", lambda: frozen.verify(1, cohort_id=os.urandom(32))
    )
    other = world.open_cohort()
    refused(
        VerificationError,
        "another cohort than the one asked for",
        lambda: frozen.verify(1, cohort_id=other.message.cohort_id),
    )


def test_a_bundle_for_a_device_that_is_no_member(world: World, frozen: FrozenSet) -> None:
    members = {member.prekey.device_id for member in frozen.cohort.message.committee}
    outsider = next(device for device in world.devices if device.device_id not in members)
    refused(VerificationError, "is not a member", lambda: frozen.verify(1, member=outsider))


def test_a_bundle_for_another_prekey_of_the_member(world: World, frozen: FrozenSet) -> None:
    """A prekey is bound to one plan; a plan that names another one cannot have it."""
    member = frozen.member(1)
    other = dataclasses.replace(member, prekey=member.prekey_with(not_after=world.now_unix_s + DAY_S))
    refused(VerificationError, "is not a member", lambda: frozen.verify(1, member=other))


def test_a_bundle_whose_plan_was_changed(frozen: FrozenSet) -> None:
    changed = bytearray(frozen.cohort.plan)
    changed[200] ^= 1
    refused(
        SignatureInvalidError, "the plan's signature", with_header(frozen, lambda h: setattr(h, "plan", bytes(changed)))
    )


def test_a_bundle_whose_plan_is_not_logged(world: World, frozen: FrozenSet) -> None:
    hidden = frozen.cohort.message
    hidden.n_min += 1
    data = hidden.SerializeToString()

    def edit(header: device_pb2.BundleHeader) -> None:
        header.plan, header.signature = data, sign_plan(data, world.authority.sign)

    refused(LogInconsistentError, "records something else", with_header(frozen, edit))


def test_a_bundle_whose_plan_stands_at_another_place(world: World, frozen: FrozenSet) -> None:
    """A second entry for the same plan, with a time at which other certificates were valid."""
    cohort = frozen.cohort
    index = world.append(
        PLAN, subject=cohort.message.cohort_id, digest=cohort.plan_hash, time_unix_s=world.now_unix_s - 300 * DAY_S
    )
    refused(
        LogInconsistentError,
        "right before the plan",
        with_header(frozen, lambda h: h.plan_proof.CopyFrom(world.proof(index))),
    )


def test_a_set_that_is_not_logged(frozen: FrozenSet) -> None:
    refused(
        LogInconsistentError,
        "records something else",
        with_header(frozen, lambda h: setattr(h, "set_hash", os.urandom(32))),
    )


def test_a_set_logged_for_another_cohort(world: World, frozen: FrozenSet) -> None:
    index = world.append(SET, subject=os.urandom(32), digest=frozen.set_hash)
    refused(
        LogInconsistentError,
        "records something else",
        with_header(frozen, lambda h: h.set_proof.CopyFrom(world.proof(index))),
    )


def test_a_cohort_that_is_logged_as_void(world: World, frozen: FrozenSet) -> None:
    index = world.append(VOID, subject=frozen.cohort.message.cohort_id, digest=frozen.set_hash)
    refused(
        LogInconsistentError,
        "records something else",
        with_header(frozen, lambda h: h.set_proof.CopyFrom(world.proof(index))),
    )


def test_a_set_logged_before_its_plan(world: World) -> None:
    """H is known before the plan is logged; a set that is fixed by then was not collected."""
    cohort_id, pool = os.urandom(32), sorted(device.device_id for device in world.devices)
    parent = world.publish()
    pool_index = world.log_pool(cohort_id, pool)
    digest = os.urandom(32)
    set_index = world.append(SET, subject=cohort_id, digest=digest)
    cohort = world.commit(world.draft(parent, cohort_id, pool), pool_index)
    cohort.verify()
    frozen = FrozenSet(cohort, {}, digest, set_index)
    refused(
        LogInconsistentError,
        "before the plan that it belongs to",
        with_header(frozen, lambda h: setattr(h, "contributors", 4)),
    )


@pytest.mark.parametrize("length", [0, 31, 33])
def test_a_set_hash_of_another_length(frozen: FrozenSet, length: int) -> None:
    refused(MalformedError, "the set hash has", with_header(frozen, lambda h: setattr(h, "set_hash", bytes(length))))


@pytest.mark.parametrize("count", [0, 1, 2, 17, 2**32 - 1])
def test_a_set_of_too_few_or_too_many(frozen: FrozenSet, count: int) -> None:
    refused(
        VerificationError,
        f"the frozen set has {count} contributors",
        with_header(frozen, lambda h: setattr(h, "contributors", count)),
    )


def test_a_set_below_the_plans_own_minimum(world: World) -> None:
    cohort = world.open_cohort(n_min=5)
    contributions = {device.device_id: cohort.contribute(device) for device in world.devices[:5]}
    cohort.freeze(contributions).verify(1)
    few = cohort.freeze(dict(list(contributions.items())[:4]))
    refused(VerificationError, "the frozen set has 4 contributors", lambda: few.verify(1))


# One contributor's entry.


@pytest.mark.parametrize(
    ("edit", "match"),
    [
        pytest.param(lambda e: e.sealed_sha256.pop(), "one 32-byte hash", id="a hash too few"),
        pytest.param(lambda e: e.sealed_sha256.append(bytes(32)), "one 32-byte hash", id="a hash too many"),
        pytest.param(lambda e: e.ClearField("sealed_sha256"), "one 32-byte hash", id="no hashes"),
        pytest.param(lambda e: e.sealed_sha256.__setitem__(3, bytes(31)), "one 32-byte hash", id="a short hash"),
        pytest.param(
            lambda e: setattr(e, "ciphertext_tag", bytes(32)), "ciphertext tag has 32", id="a long ciphertext tag"
        ),
        pytest.param(lambda e: setattr(e, "sealed", e.sealed[:-1]), "a sealed share has", id="a short share"),
        pytest.param(lambda e: setattr(e, "sealed", bytes(1 << 20)), "a sealed share has", id="a share of a megabyte"),
        pytest.param(lambda e: setattr(e, "signature", e.signature[:-1]), "signature has 63", id="a short signature"),
        pytest.param(lambda e: setattr(e, "certificate", b"x"), "certificate", id="no certificate"),
    ],
)
def test_an_entry_that_is_malformed(
    frozen: FrozenSet, edit: Callable[[device_pb2.BundleEntry], object], match: str
) -> None:
    plan, index = frozen.verify(2)
    entry = frozen.entries(index)[0]
    frozen.verify_entry(entry, plan=plan)
    edit(entry)
    refused(MalformedError, match, lambda: frozen.verify_entry(entry, plan=plan))


def contributor_with(
    frozen: FrozenSet, authority: Authority, first_s: int, last_s: int
) -> Callable[[], ShareForMember]:
    """The first contributor, its certificate valid from and to seconds relative to the plan's logged time.

    The certificate is logged, and the set is taken to stand behind it: only its time is in question.
    """
    plan, index = frozen.verify(1)
    world, entry = frozen.cohort.world, frozen.entries(index)[0]
    device = next(device for device in world.devices if device.certificate == entry.certificate)
    logged = plan.logged_unix_s
    entry.certificate = authority.issue(
        device.key.public_key(), not_before_unix_s=logged + first_s, not_after_unix_s=logged + last_s
    )
    entry.enrolment.CopyFrom(world.proof(world.enrol(device, entry.certificate)))
    return lambda: verify_bundle_entry(
        entry, plan=plan, trust=world.trust, view=world.view(), set_position=world.tree.size
    )


def test_a_contributor_is_judged_at_the_time_at_which_the_plan_was_logged(frozen: FrozenSet) -> None:
    authority = frozen.cohort.world.authority
    contributor_with(frozen, authority, -DAY_S, 0)()
    contributor_with(frozen, authority, 0, DAY_S)()
    # Not RevokedError: that would tell the member that it is itself the one who no longer counts.
    refused(
        VerificationError,
        "not certified when the plan was logged",
        contributor_with(frozen, authority, -DAY_S, -1),
    )
    refused(
        VerificationError,
        "not certified when the plan was logged",
        contributor_with(frozen, authority, 1, DAY_S),
    )


def test_a_contributor_of_another_root(frozen: FrozenSet) -> None:
    refused(SignatureInvalidError, "not issued by", contributor_with(frozen, Authority.make(), -DAY_S, DAY_S))


# The whole bundle, up to the answer.


def answer_to(frozen: FrozenSet, entries: list[device_pb2.BundleEntry], *, index: int = 1) -> Callable[[], object]:
    """Let the member of that index answer for these entries under the frozen set's header."""
    plan, place = frozen.verify(index)
    member = frozen.member(index)
    return lambda: answer(
        parameters=plan.document.parameters,
        plan_hash=plan.plan_hash,
        set_hash=frozen.set_hash,
        index=place,
        member=member.device_id,
        prekey_private=member.prekey_private,
        shares=(frozen.verify_entry(entry, plan=plan) for entry in entries),
        sign=member.sign,
        minimum=plan.document.n_min,
    )


def test_the_honest_bundle_is_answered_and_always_alike(frozen: FrozenSet) -> None:
    first = answer_to(frozen, frozen.entries(1))()
    assert answer_to(frozen, frozen.entries(1))() == first
    assert answer_to(frozen, frozen.entries(1)[::-1])() == first


def test_a_contributor_left_out_of_the_stream(frozen: FrozenSet) -> None:
    refused(HashMismatchError, "not those of the logged set", answer_to(frozen, frozen.entries(1)[:3]))


def test_a_stream_below_the_minimum(frozen: FrozenSet) -> None:
    refused(DeclinedError, "a sum of 2 contributors", answer_to(frozen, frozen.entries(1)[:2]))


def test_a_contributor_twice_in_the_stream(frozen: FrozenSet) -> None:
    entries = frozen.entries(1)
    refused(MalformedError, "twice in the set", answer_to(frozen, [*entries[:3], entries[0]]))


def test_a_contributor_who_is_not_in_the_logged_set(world: World, frozen: FrozenSet) -> None:
    cohort = frozen.cohort
    newcomer = world.devices[7]
    larger = FrozenSet(
        cohort,
        {**frozen.contributions, newcomer.device_id: cohort.contribute(newcomer)},
        frozen.set_hash,
        frozen.set_index,
    )
    refused(HashMismatchError, "not those of the logged set", answer_to(frozen, larger.entries(1)))


def test_a_share_that_was_sealed_to_another_member(frozen: FrozenSet) -> None:
    refused(ShareRefusedError, "does not have the hash", answer_to(frozen, frozen.entries(2)))


def test_a_share_with_the_signature_of_another_contributor(frozen: FrozenSet) -> None:
    entries = frozen.entries(1)
    entries[0].signature = entries[1].signature
    refused(ShareRefusedError, "its signature was not made by", answer_to(frozen, entries))


def test_a_share_that_the_coordinator_made_itself(world: World, frozen: FrozenSet) -> None:
    """Known shares in place of the others' would leave one device's key in the sum."""
    cohort = frozen.cohort
    victim, index = world.devices[0], 1
    made = cohort.contribute(dataclasses.replace(victim, key=new_key()))
    contributions = {**frozen.contributions, victim.device_id: made}
    digest = set_hash(
        cohort.plan_hash, [entry_of(cohort.plan_hash, device, each) for device, each in contributions.items()]
    )
    logged = world.append(SET, subject=cohort.message.cohort_id, digest=digest)
    forged = FrozenSet(cohort, contributions, digest, logged)
    refused(ShareRefusedError, "its signature was not made by", answer_to(forged, forged.entries(index)))


# Contributors that nobody saw being enrolled.


def test_contributors_that_were_certified_and_never_logged(world: World, honest: Cohort) -> None:
    """Tries: a coordinator that is its own authority enrols two devices without a word, to be alone with a third.

    Their certificates are as good as any. Refused by plan_checks, `_require_enrolled`, in each member's hands.
    """
    sybils = [make_device(world.authority) for _ in range(2)]
    world.devices.extend(sybils)
    alone, *_ = world.devices
    frozen = honest.freeze({device.device_id: honest.contribute(device) for device in (alone, *sybils)})
    refused(LogInconsistentError, "for the enrolment records something else", answer_to(frozen, frozen.entries(1)))


def test_contributors_that_were_logged_only_after_the_set(world: World, honest: Cohort) -> None:
    """Tries: the entry comes when somebody has asked. The frozen set already counted on it."""
    sybil = make_device(world.authority)
    world.devices.append(sybil)
    chosen = (*world.devices[:2], sybil)
    frozen = honest.freeze({device.device_id: honest.contribute(device) for device in chosen})
    position = world.enrol(sybil)
    match = f"was enrolled at entry {position} of the log, after entry {frozen.set_index} that already counts"
    refused(LogInconsistentError, match, answer_to(frozen, frozen.entries(1)))


def test_a_contributor_with_another_devices_enrolment(frozen: FrozenSet) -> None:
    plan, index = frozen.verify(1)
    first, second, *_ = frozen.entries(index)
    first.enrolment.CopyFrom(second.enrolment)
    refused(LogInconsistentError, "records something else", lambda: frozen.verify_entry(first, plan=plan))
