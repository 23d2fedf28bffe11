"""Every lie that a coordinator can tell about a plan and its place in the log.

How lies are told and refused: tests/support/lies.py.
"""

from __future__ import annotations

import dataclasses
import os
from functools import partial

import pytest

from nightshift.protocol.domains import Domain, frame
from nightshift.protocol.errors import (
    DeclinedError,
    LogInconsistentError,
    MalformedError,
    NightshiftError,
    SignatureInvalidError,
    StateConflictError,
)
from nightshift.protocol.identity import sign
from nightshift.protocol.plan import layout_to_proto, plan_hash, sign_plan
from nightshift.v1 import device_pb2, plan_pb2
from tests.support.authority import HOUR_S, new_key
from tests.support.lies import PLAN, VOID, Edit, open_at, refused
from tests.support.plans import LAYOUT, Cohort, World

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
