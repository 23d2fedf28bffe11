"""Every lie that a coordinator can tell about a plan, its committee, its log, or a bundle.

Each test holds the whole honest world and changes one thing. Where the lie is in
the plan itself, the plan is signed and logged like an honest one, so that no
signature and no proof can refuse it: only the check that the test names can.
`refused` wants the exact class, not a relative of it.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import pytest
from cryptography.x509.oid import ExtendedKeyUsageOID

from edge_client.configuration import PolicySettings
from edge_client.policy import Situation, check_plan
from nightshift.protocol.domains import Domain, frame
from nightshift.protocol.errors import (
    DeclinedError,
    HashMismatchError,
    LogInconsistentError,
    MalformedError,
    MemberRevokedError,
    NightshiftError,
    SignatureInvalidError,
    StateConflictError,
    VerificationError,
)
from nightshift.protocol.identity import DeviceId, sign
from nightshift.protocol.plan import layout_to_proto, plan_hash, prekey_to_proto, sign_plan
from nightshift.protocol.plan_checks import verify_bundle_entry
from nightshift.protocol.secagg.contribution import entry_of
from nightshift.protocol.secagg.contributors import set_hash
from nightshift.protocol.secagg.errors import ShareRefusedError
from nightshift.protocol.secagg.member import ShareForMember, answer
from nightshift.protocol.secagg.parameters import CohortParameters
from nightshift.protocol.secagg.prekeys import MAX_LIFETIME_S, SignedPrekey, prekey_message
from nightshift.v1 import device_pb2, log_pb2, plan_pb2
from tests.support.authority import DAY_S, HOUR_S, Authority, new_key
from tests.support.plans import LAYOUT, Cohort, EnrolledDevice, FrozenSet, World, make_device

PLAN, POOL, SET, VOID = (
    log_pb2.LOG_ENTRY_KIND_PLAN,
    log_pb2.LOG_ENTRY_KIND_POOL,
    log_pb2.LOG_ENTRY_KIND_SET,
    log_pb2.LOG_ENTRY_KIND_VOID,
)
Edit = Callable[[plan_pb2.Plan], object]


def refused(error: type[NightshiftError], match: str, attempt: Callable[[], object]) -> None:
    with pytest.raises(error, match=match) as caught:
        attempt()
    assert type(caught.value) is error, f"{type(caught.value).__name__}: {caught.value}"


def open_at(cohort: Cohort, edit: Callable[[device_pb2.PlanOffer], object]) -> Callable[[], object]:
    """Verify a cohort's offer after an edit of what travels."""
    offer = cohort.offer()
    before = offer.SerializeToString()
    edit(offer)
    assert offer.SerializeToString() != before, "the edit changed nothing"
    return lambda: cohort.verify(offer)


@pytest.fixture
def world() -> World:
    return World.make()


@pytest.fixture
def honest(world: World) -> Cohort:
    cohort = world.open_cohort()
    cohort.verify()
    return cohort


# The plan's bytes and signature.


def test_an_honest_plan_is_accepted_again_and_again(world: World, honest: Cohort) -> None:
    first = honest.verify()
    for _ in range(5):
        world.publish(number=0)
        world.open_cohort()
        assert honest.verify() == first
    assert first.plan_hash == plan_hash(honest.plan)
    assert first.logged_unix_s == world.now_unix_s
    assert [key.device_id for key in first.member_keys()] == [
        member.prekey.device_id for member in honest.message.committee
    ]


def test_one_byte_changed(honest: Cohort) -> None:
    for place in range(0, len(honest.plan), 7):
        offer, changed = honest.offer(), bytearray(honest.plan)
        changed[place] ^= 1
        offer.plan = bytes(changed)
        refused(SignatureInvalidError, "the plan's signature", partial(honest.verify, offer))


def test_a_plan_signed_by_another_key(honest: Cohort) -> None:
    stranger = new_key()
    forged = sign_plan(honest.plan, lambda message: sign(stranger, message))
    refused(SignatureInvalidError, "the plan's signature", open_at(honest, lambda o: setattr(o, "signature", forged)))


def test_a_signature_that_was_made_for_a_release(world: World, honest: Cohort) -> None:
    other = world.authority.sign(frame(Domain.RELEASE_SIGNATURE, honest.plan))
    refused(SignatureInvalidError, "the plan's signature", open_at(honest, lambda o: setattr(o, "signature", other)))


# The log.


def test_a_plan_that_is_not_logged(world: World, honest: Cohort) -> None:
    hidden = honest.message
    hidden.round = 2
    data = hidden.SerializeToString()

    def edit(offer: device_pb2.PlanOffer) -> None:
        offer.plan, offer.signature = data, sign_plan(data, world.authority.sign)

    refused(LogInconsistentError, "records something else", open_at(honest, edit))


def test_a_second_plan_for_a_cohort_beside_the_logged_one(world: World, honest: Cohort) -> None:
    """Two devices shown different plans: at most one of them has a proof."""
    second = honest.message
    second.training.steps += 1
    data = second.SerializeToString(deterministic=True)
    twin = dataclasses.replace(honest, plan=data, signature=sign_plan(data, world.authority.sign))
    refused(LogInconsistentError, "records something else", twin.verify)
    honest.verify()


def test_a_second_plan_for_a_cohort_logged_as_well(world: World, honest: Cohort) -> None:
    """Its seed is no longer the log right before it."""
    second = honest.message
    second.training.steps += 1
    refused(LogInconsistentError, "right before the plan", world.commit(second, honest.pool_index).verify)


def test_a_plan_logged_under_another_cohort(world: World, honest: Cohort) -> None:
    index = world.append(PLAN, subject=os.urandom(32), digest=honest.plan_hash)
    refused(
        LogInconsistentError,
        "records something else",
        open_at(honest, lambda o: o.plan_proof.CopyFrom(world.proof(index))),
    )


def test_a_plan_logged_as_something_else(world: World, honest: Cohort) -> None:
    index = world.append(VOID, subject=honest.message.cohort_id, digest=honest.plan_hash)
    refused(
        LogInconsistentError,
        "records something else",
        open_at(honest, lambda o: o.plan_proof.CopyFrom(world.proof(index))),
    )


def test_a_plan_logged_twice_has_one_place(world: World, honest: Cohort) -> None:
    """The second entry could carry another time, and so change whose certificates count."""
    index = world.append(
        PLAN, subject=honest.message.cohort_id, digest=honest.plan_hash, time_unix_s=world.now_unix_s + HOUR_S
    )
    refused(
        LogInconsistentError,
        "right before the plan",
        open_at(honest, lambda o: o.plan_proof.CopyFrom(world.proof(index))),
    )


def test_a_proof_from_another_log(world: World, honest: Cohort) -> None:
    other = World(world.authority, world.devices)
    for entry in [b"another first entry", *world.entries[1:]]:
        other.entries.append(entry)
        other.tree.append(entry)
    proof = other.proof(honest.plan_index)
    refused(LogInconsistentError, "is not in the log", open_at(honest, lambda o: o.plan_proof.CopyFrom(proof)))


def test_a_log_that_forgot_a_plan_the_device_has_seen(world: World, honest: Cohort) -> None:
    seen = world.view().head
    other = World(world.authority, world.devices)
    for index, entry in enumerate(world.entries):
        if index != honest.plan_index:
            other.entries.append(entry)
            other.tree.append(entry)
    refused(LogInconsistentError, "shrank", lambda: other.view(last=seen))
    other.open_cohort()
    refused(LogInconsistentError, "forked", lambda: other.view(last=seen))


@pytest.mark.parametrize("time_unix_s", [-(2**62), -1, 0, 2**62])
def test_a_plan_logged_at_an_impossible_time(world: World, time_unix_s: int) -> None:
    cohort_id, pool = os.urandom(32), sorted(device.device_id for device in world.devices)
    parent = world.publish()
    pool_index = world.log_pool(cohort_id, pool)
    cohort = world.commit(world.draft(parent, cohort_id, pool), pool_index, time_unix_s=time_unix_s)
    refused(LogInconsistentError, "appended at Unix time", cohort.verify)


def test_a_plan_logged_after_its_uploads_ended(world: World) -> None:
    cohort_id, pool = os.urandom(32), sorted(device.device_id for device in world.devices)
    parent = world.publish()
    pool_index = world.log_pool(cohort_id, pool)
    plan = world.draft(parent, cohort_id, pool)
    late = world.commit(plan, pool_index, time_unix_s=plan.latest_upload_deadline_unix_s + 1)
    refused(LogInconsistentError, "after its uploads ended", late.verify)


# The seed.


def test_a_seed_root_that_the_log_never_had(world: World) -> None:
    def edit(plan: plan_pb2.Plan) -> None:
        plan.seed_log_root = os.urandom(32)
        world.seat(plan)

    refused(LogInconsistentError, "forked", world.open_cohort(edit=edit).verify)


def test_an_older_seed_with_its_own_true_root(world: World) -> None:
    """A coordinator that could choose among past checkpoints could choose the committee."""

    def edit(plan: plan_pb2.Plan) -> None:
        plan.seed_log_size -= 1
        plan.seed_log_root = world.tree.root(plan.seed_log_size)
        world.seat(plan)

    refused(LogInconsistentError, "right before the plan", world.open_cohort(edit=edit).verify)


def test_an_entry_between_seed_and_plan(world: World) -> None:
    refused(
        LogInconsistentError,
        "right before the plan",
        world.open_cohort(edit=lambda plan: world.log_pool(plan.cohort_id, plan.pool)).verify,
    )


def test_a_seed_without_its_proof(honest: Cohort) -> None:
    refused(LogInconsistentError, "forked", open_at(honest, lambda o: o.ClearField("seed_path")))


def test_a_seed_with_another_proof(world: World, honest: Cohort) -> None:
    world.publish()
    path = world.tree.consistency_path(honest.message.seed_log_size - 1)

    def edit(offer: device_pb2.PlanOffer) -> None:
        del offer.seed_path[:]
        offer.seed_path.extend(path)

    refused(LogInconsistentError, "forked", open_at(honest, edit))


# The pool.


def test_a_pool_that_is_not_logged(world: World) -> None:
    """The plan's pool is another than the one that stands in the log."""

    def edit(plan: plan_pb2.Plan) -> None:
        del plan.pool[0]
        world.seat(plan)

    refused(LogInconsistentError, "records something else", world.open_cohort(edit=edit).verify)


def test_a_pool_logged_after_the_plan(world: World, honest: Cohort) -> None:
    index = world.log_pool(honest.message.cohort_id, honest.message.pool)
    refused(
        LogInconsistentError,
        "logged after the plan",
        open_at(honest, lambda o: o.pool_proof.CopyFrom(world.proof(index))),
    )


def test_a_pool_logged_for_another_cohort(world: World) -> None:
    pool = sorted(device.device_id for device in world.devices)
    elsewhere = world.log_pool(os.urandom(32), pool)
    honest = world.open_cohort()
    refused(
        LogInconsistentError,
        "records something else",
        open_at(honest, lambda o: o.pool_proof.CopyFrom(world.proof(elsewhere))),
    )


# The committee.


def renumber(plan: plan_pb2.Plan) -> None:
    for index, member in enumerate(plan.committee, start=1):
        member.index = index


def swap(plan: plan_pb2.Plan, one: int, two: int) -> None:
    members = list(plan.committee)
    members[one], members[two] = members[two], members[one]
    del plan.committee[:]
    plan.committee.extend(members)
    renumber(plan)


@pytest.mark.parametrize(("one", "two"), [(place, place + 1) for place in range(9)] + [(0, 9), (2, 7)])
def test_two_members_in_each_others_place(world: World, one: int, two: int) -> None:
    cohort = world.open_cohort(edit=lambda plan: swap(plan, one, two))
    refused(VerificationError, "not the one that the log's seed draws", cohort.verify)


@pytest.mark.parametrize("place", range(10))
def test_a_member_replaced_by_a_device_that_was_not_drawn(world: World, place: int) -> None:
    def edit(plan: plan_pb2.Plan) -> None:
        drawn = {member.prekey.device_id for member in plan.committee}
        friend = next(device for device in world.devices if device.device_id not in drawn)
        plan.committee[place].CopyFrom(world.member(place + 1, friend))

    refused(VerificationError, "not the one that the log's seed draws", world.open_cohort(edit=edit).verify)


def test_a_member_from_outside_the_pool(world: World) -> None:
    outsider = make_device(world.authority)
    cohort = world.open_cohort(edit=lambda plan: plan.committee[0].CopyFrom(world.member(1, outsider)))
    refused(VerificationError, "not the one that the log's seed draws", cohort.verify)


def test_a_member_who_holds_two_places(world: World) -> None:
    def edit(plan: plan_pb2.Plan) -> None:
        plan.committee[4].CopyFrom(plan.committee[3])
        renumber(plan)

    refused(VerificationError, "not the one that the log's seed draws", world.open_cohort(edit=edit).verify)


def resize(world: World, plan: plan_pb2.Plan, size: int) -> None:
    """Another number of members, with their own right threshold; the first ones are as drawn."""
    del plan.committee[size:]
    drawn = {member.prekey.device_id for member in plan.committee}
    others = sorted(
        (device for device in world.devices if device.device_id not in drawn), key=lambda device: device.device_id
    )
    plan.committee.extend(world.member(0, device) for device in others[: size - len(plan.committee)])
    renumber(plan)
    plan.threshold = CohortParameters.derive(n_max=16, value_bits=8, committee_size=size).threshold


@pytest.mark.parametrize("size", [3, 9])
def test_a_smaller_committee_is_the_owners_to_decline(world: World, size: int) -> None:
    """Well formed, drawn as it should be, and far easier to corrupt: how small is too small, the policy says."""
    document = world.open_cohort(edit=lambda plan: resize(world, plan, size)).verify().document
    limits = PolicySettings(minimum_cohort=10)
    alone = Situation(world.devices[0].device_id, (), (), world.now_unix_s)
    refused(DeclinedError, "at least 10 \\(policy.minimum_committee\\)", lambda: check_plan(limits, document, alone))


def test_a_committee_of_the_coordinators_own_devices_is_stopped_by_pins(world: World) -> None:
    """Tries: enrol devices of its own until they fill the pool; drawn, certified and logged as they should be.

    Nothing in the plan is wrong, and a device without pins takes it. One that pinned three peers (C - T + 1 of 10)
    declines it: the other seven are T - 1 and could open nothing without them.
    """
    friends = [device.device_id for device in World.make(devices=4).devices]
    document = world.open_cohort().verify().document
    alone = Situation(friends[3], (), (), world.now_unix_s)
    check_plan(PolicySettings(minimum_cohort=3), document, alone)
    limits = PolicySettings(minimum_cohort=3, pinned_peers=tuple(peer.hex() for peer in friends))
    refused(DeclinedError, "0 of its 10 .* 3 are needed", lambda: check_plan(limits, document, alone))
    seated = [member.prekey.device_id.hex() for member in document.committee]
    check_plan(PolicySettings(minimum_cohort=3, pinned_peers=tuple(seated[:3])), document, alone)


@pytest.mark.parametrize("size", [3, 9])
def test_a_smaller_committee_of_chosen_members(world: World, size: int) -> None:
    """The same with the last place given to somebody whom the seed did not draw there."""

    def edit(plan: plan_pb2.Plan) -> None:
        plan.committee[size - 1].CopyFrom(plan.committee[size])
        resize(world, plan, size)

    refused(VerificationError, "not the one that the log's seed draws", world.open_cohort(edit=edit).verify)


def test_a_smaller_pool_has_a_smaller_committee() -> None:
    """All of a small pool serve."""
    world = World.make(devices=4)
    assert len(world.open_cohort().verify().document.committee) == 4


@pytest.mark.parametrize("place", [0, 5, 9])
def test_a_revoked_member(honest: Cohort, place: int) -> None:
    revoked = [DeviceId(honest.message.committee[place].prekey.device_id)]
    refused(MemberRevokedError, "is revoked", lambda: honest.verify(revoked=revoked))


def test_a_revoked_device_that_is_no_member_changes_nothing(world: World, honest: Cohort) -> None:
    members = {member.prekey.device_id for member in honest.message.committee}
    honest.verify(revoked=[device.device_id for device in world.devices if device.device_id not in members])


def with_certificate(certificate: Callable[[EnrolledDevice], bytes], world: World, place: int = 6) -> Cohort:
    def edit(plan: plan_pb2.Plan) -> None:
        member = plan.committee[place]
        member.certificate = certificate(world.device(member.prekey.device_id))

    return world.open_cohort(edit=edit)


def test_a_member_certified_anew_is_accepted(world: World) -> None:
    anew = world.authority.issue(world.devices[0].key.public_key())
    world.devices[0] = replace(world.devices[0], certificate=anew)
    world.enrol(world.devices[0])
    cohort = world.open_cohort(committee=12)
    assert anew in {member.certificate for member in cohort.verify().document.committee}


def test_an_expired_member(world: World) -> None:
    cohort = with_certificate(
        lambda device: world.authority.issue(device.key.public_key(), not_after_unix_s=world.now_unix_s - 1), world
    )
    refused(MemberRevokedError, "is valid from", cohort.verify)


def test_a_member_whose_certificate_is_not_valid_yet(world: World) -> None:
    cohort = with_certificate(
        lambda device: world.authority.issue(device.key.public_key(), not_before_unix_s=world.now_unix_s + 1), world
    )
    refused(MemberRevokedError, "is valid from", cohort.verify)


def test_a_member_certified_by_another_root(world: World) -> None:
    stranger = Authority.make()
    cohort = with_certificate(lambda device: stranger.issue(device.key.public_key()), world)
    refused(SignatureInvalidError, "not issued by this coordinator's root", cohort.verify)


def test_a_member_with_a_server_certificate(world: World) -> None:
    cohort = with_certificate(
        lambda device: world.authority.issue(device.key.public_key(), usages=[ExtendedKeyUsageOID.SERVER_AUTH]), world
    )
    refused(VerificationError, "another purpose", cohort.verify)


def test_a_member_without_a_certificate(world: World) -> None:
    refused(MalformedError, "certificate", with_certificate(lambda _: b"", world).verify)


def test_a_member_with_the_certificate_of_another_device(world: World) -> None:
    cohort = with_certificate(
        lambda device: next(each.certificate for each in world.devices if each is not device), world
    )
    refused(VerificationError, "the certificate of another device", cohort.verify)


# The prekeys.


def with_prekey(world: World, change: Callable[[EnrolledDevice], SignedPrekey], place: int = 2) -> Cohort:
    def edit(plan: plan_pb2.Plan) -> None:
        member = plan.committee[place]
        member.prekey.CopyFrom(prekey_to_proto(change(world.device(member.prekey.device_id))))

    return world.open_cohort(edit=edit)


def test_another_prekey_of_the_member_is_accepted(world: World) -> None:
    with_prekey(world, lambda device: device.prekey_with(not_after=world.now_unix_s + 5 * DAY_S)).verify()


def test_a_prekey_of_the_coordinators_own(world: World) -> None:
    """The classic attack: a key whose private half the coordinator holds, under the member's name."""
    mine = world.devices[0].prekey_with(not_after=world.now_unix_s + 5 * DAY_S).public
    cohort = with_prekey(world, lambda device: dataclasses.replace(device.prekey, public=mine))
    refused(SignatureInvalidError, "a prekey's signature", cohort.verify)


def test_a_prekey_signed_by_another_key(world: World) -> None:
    def change(device: EnrolledDevice) -> SignedPrekey:
        prekey, stranger = device.prekey, new_key()
        message = prekey_message(prekey.device_id, prekey.serial, prekey.epoch, prekey.not_after, prekey.public)
        return dataclasses.replace(prekey, signature=sign(stranger, message))

    refused(SignatureInvalidError, "a prekey's signature", with_prekey(world, change).verify)


@pytest.mark.parametrize("field", ["serial", "epoch", "not_after"])
def test_a_prekey_with_another_number_than_was_signed(world: World, field: str) -> None:
    def change(device: EnrolledDevice) -> SignedPrekey:
        return dataclasses.replace(device.prekey, **{field: getattr(device.prekey, field) + 1})

    refused(SignatureInvalidError, "a prekey's signature", with_prekey(world, change).verify)


def test_a_prekey_of_another_member(world: World) -> None:
    """It claims its own device, so the committee is no longer the one that was drawn."""
    cohort = with_prekey(world, lambda device: next(each for each in world.devices if each is not device).prekey)
    refused(VerificationError, "not the one that the log's seed draws", cohort.verify)


@pytest.mark.parametrize("age_s", [1, 20 * DAY_S])
def test_an_expired_prekey(world: World, age_s: int) -> None:
    cohort = with_prekey(world, lambda device: device.prekey_with(not_after=world.now_unix_s - age_s))
    refused(VerificationError, "expired at", cohort.verify)


def test_a_prekey_that_expires_before_the_answers_end(world: World) -> None:
    answers_end = world.open_cohort().message.answer_deadline_unix_s
    with_prekey(world, lambda device: device.prekey_with(not_after=answers_end)).verify()
    cohort = with_prekey(world, lambda device: device.prekey_with(not_after=answers_end - 1))
    refused(VerificationError, "expires before the answer deadline", cohort.verify)


def test_a_prekey_that_lives_too_long(world: World) -> None:
    longest = world.now_unix_s + MAX_LIFETIME_S
    with_prekey(world, lambda device: device.prekey_with(not_after=longest)).verify()
    cohort = with_prekey(world, lambda device: device.prekey_with(not_after=longest + 1))
    refused(VerificationError, "valid for more than", cohort.verify)


# The points of small order on Curve25519 and its twist, below 2^255 - 19 (Bernstein, cr.yp.to/ecdh.html).
LOW_ORDER = [
    "0000000000000000000000000000000000000000000000000000000000000000",
    "0100000000000000000000000000000000000000000000000000000000000000",
    "e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800",
    "5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157",
    "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
]
NOT_CANONICAL = [
    "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "0900000000000000000000000000000000000000000000000000000000000080",
]


@pytest.mark.parametrize("point", LOW_ORDER + NOT_CANONICAL)
def test_a_prekey_that_is_no_usable_point(world: World, point: str) -> None:
    """Truly signed by a member who works for the coordinator: everybody could open what is sealed to it."""

    def change(device: EnrolledDevice) -> SignedPrekey:
        prekey, public = device.prekey, bytes.fromhex(point)
        message = prekey_message(prekey.device_id, prekey.serial, prekey.epoch, prekey.not_after, public)
        return dataclasses.replace(prekey, public=public, signature=device.sign(message))

    refused(MalformedError, "low-order point|canonical form", with_prekey(world, change).verify)


def test_two_members_with_one_prekey(world: World) -> None:
    """Truly signed by both: one of them published the other's key as its own."""

    def edit(plan: plan_pb2.Plan) -> None:
        copied = plan.committee[0].prekey.public_key
        thief = world.device(plan.committee[1].prekey.device_id)
        prekey = thief.prekey
        message = prekey_message(prekey.device_id, prekey.serial, prekey.epoch, prekey.not_after, copied)
        stolen = dataclasses.replace(prekey, public=copied, signature=thief.sign(message))
        plan.committee[1].prekey.CopyFrom(prekey_to_proto(stolen))

    refused(MalformedError, "same prekey", world.open_cohort(edit=edit).verify)


# The numbers.


@pytest.mark.parametrize(
    ("edit", "error", "match"),
    [
        pytest.param(lambda p: setattr(p, "threshold", 7), DeclinedError, "7 answers", id="weaker threshold"),
        pytest.param(lambda p: setattr(p, "threshold", 1), DeclinedError, "1 answers", id="one answer opens"),
        pytest.param(lambda p: setattr(p, "threshold", 9), MalformedError, "threshold", id="threshold not its own"),
        pytest.param(lambda p: setattr(p, "n_min", 2), DeclinedError, "over 2 devices", id="sum over two"),
        pytest.param(lambda p: setattr(p, "n_min", 1), DeclinedError, "over 1 devices", id="sum over one"),
        pytest.param(
            lambda p: setattr(p.encoding, "delta_length", 15), MalformedError, "delta_length", id="wrong length"
        ),
        pytest.param(lambda p: setattr(p, "n_max", 513), MalformedError, "n_max", id="slot overflow by n_max"),
        pytest.param(
            lambda p: setattr(p.encoding, "value_bits", 17), MalformedError, "value_bits", id="slot overflow by bits"
        ),
    ],
)
def test_numbers_that_would_open_or_overflow(
    world: World, edit: Edit, error: type[NightshiftError], match: str
) -> None:
    refused(error, match, world.open_cohort(edit=edit).verify)


def test_an_overflow_hidden_behind_a_larger_layout(world: World) -> None:
    """The length follows from the layout; a plan cannot say one and mean the other."""

    larger = layout_to_proto(dataclasses.replace(LAYOUT, layers=2))
    cohort = world.open_cohort(edit=lambda plan: plan.layout.CopyFrom(larger))
    refused(MalformedError, "delta_length", cohort.verify)


def test_a_plan_whose_uploads_have_ended(honest: Cohort) -> None:
    last = honest.message.latest_upload_deadline_unix_s
    honest.verify(now_unix_s=last)
    refused(StateConflictError, "uploads have ended", lambda: honest.verify(now_unix_s=last + 1))


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


# Devices that nobody saw being enrolled.


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


@pytest.mark.parametrize("when", ["never", "after the pool"])
def test_a_member_that_was_certified_and_not_logged_in_time(world: World, when: str) -> None:
    """Tries: seat a device of its own that nobody saw joining. Refused by plan_checks, `_verify_enrolments`."""
    sybil = make_device(world.authority)
    world.devices.append(sybil)
    cohort_id, parent = os.urandom(32), world.publish()
    pool = sorted(device.device_id for device in world.devices)
    pool_index = world.log_pool(cohort_id, pool)
    if when == "after the pool":
        world.enrol(sybil)
    plan = world.draft(parent, cohort_id, pool, committee=len(pool))
    expected = "records something else" if when == "never" else "after entry"
    refused(LogInconsistentError, expected, world.commit(plan, pool_index).verify)


def test_a_plan_with_fewer_proofs_than_members(honest: Cohort) -> None:
    offer = honest.offer()
    del offer.member_enrolments[-1]
    refused(LogInconsistentError, "enrolment for 9 of its 10", lambda: honest.verify(offer))
