"""Every lie that a coordinator can tell about a committee and its prekeys.

How lies are told and refused: tests/support/lies.py.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable
from dataclasses import replace

import pytest
from cryptography.x509.oid import ExtendedKeyUsageOID

from edge_client.configuration import PolicySettings
from edge_client.policy import Situation, check_plan
from nightshift.protocol.errors import (
    DeclinedError,
    LogInconsistentError,
    MalformedError,
    MemberRevokedError,
    SignatureInvalidError,
    VerificationError,
)
from nightshift.protocol.identity import DeviceId, sign
from nightshift.protocol.plan import prekey_to_proto
from nightshift.protocol.secagg.parameters import CohortParameters
from nightshift.protocol.secagg.prekeys import MAX_LIFETIME_S, SignedPrekey, prekey_message
from nightshift.v1 import plan_pb2
from tests.support.authority import DAY_S, Authority, new_key
from tests.support.lies import refused
from tests.support.plans import Cohort, EnrolledDevice, World, make_device

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


# Members that nobody saw being enrolled.


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
