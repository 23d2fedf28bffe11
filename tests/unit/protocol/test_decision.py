"""Decisions about the served release: only what is signed, logged and makes sense is one."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest

from nightshift.protocol.decision import DecisionDocument, DecisionKind, verify_decision
from nightshift.protocol.errors import LogInconsistentError, MalformedError, SignatureInvalidError
from nightshift.v1 import release_pb2
from tests.support.plans import World

Decision = release_pb2.Decision


@pytest.fixture(scope="module")
def world() -> World:
    return World.make(devices=3)


def judged(decision: Decision) -> None:
    """Make it one of the gate."""
    decision.kind = release_pb2.DECISION_KIND_PROMOTED
    decision.measurement.CopyFrom(
        release_pb2.GateMeasurement(
            plan_hashes=[b"h" * 32],
            devices=5,
            loss_served=2.0,
            loss_candidate=1.5,
            devices_better=4,
            share_better=0.75,
        )
    )


def test_a_signed_and_logged_decision_says_what_is_served(world: World) -> None:
    release = world.publish()
    made = world.decide(release, edit=judged)
    verified = verify_decision(made.offer(), view=world.view(), trust=world.trust)
    document = verified.document
    assert verified.decision_id == made.decision_id
    assert (document.kind, document.served, document.number) == (DecisionKind.PROMOTED, release.release_id, 1)
    assert document.measurement is not None
    assert (document.measurement.devices, document.measurement.share_better) == (5, 0.75)


def test_every_altered_byte_is_refused(world: World) -> None:
    offer = world.decide(world.publish(), edit=judged).offer()
    view = world.view()
    for place in range(0, len(offer.decision), 7):
        changed = bytearray(offer.decision)
        changed[place] ^= 1
        altered = type(offer).FromString(offer.SerializeToString())
        altered.decision = bytes(changed)
        with pytest.raises(SignatureInvalidError):
            verify_decision(altered, view=view, trust=world.trust)


def test_a_decision_that_is_not_logged_is_refused(world: World) -> None:
    first, second = (world.decide(world.publish(), number=number) for number in (1, 2))
    offer = first.offer()
    offer.proof.CopyFrom(second.offer().proof)
    with pytest.raises(LogInconsistentError, match="records something else"):
        verify_decision(offer, view=world.view(), trust=world.trust)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda d: setattr(d, "served", b"s" * 31), "served must be the 32 bytes"),
        (lambda d: setattr(d, "next_parent", b""), "next_parent must be the 32 bytes"),
        (lambda d: setattr(d, "task", ""), "task must be 1 to 64"),
        (lambda d: setattr(d, "reason", "two\nlines"), "reason must be 1 to 500"),
        (lambda d: setattr(d, "reason", ""), "reason must be 1 to 500"),
        (lambda d: setattr(d, "number", 0), "number 0"),
        (lambda d: setattr(d, "kind", 99), "kind 99 is none"),
        (lambda d: setattr(d, "kind", 0), "kind 0 is none"),
        (lambda d: setattr(d, "time_unix_s", 0), "time_unix_s 0"),
        (lambda d: d.ClearField("measurement"), "by which measurement"),
        (lambda d: setattr(d, "kind", release_pb2.DECISION_KIND_ROLLED_BACK), "by which measurement"),
        (lambda d: setattr(d.measurement, "devices", 2), "fewer than 3"),
        (lambda d: setattr(d.measurement, "devices_better", 6), "6 of 5 devices"),
        (lambda d: setattr(d.measurement, "loss_served", math.nan), "finite loss"),
        (lambda d: setattr(d.measurement, "loss_candidate", -1.0), "finite loss"),
        (lambda d: setattr(d.measurement, "share_better", 1.5), "share_better must lie"),
        (lambda d: d.measurement.plan_hashes.append(b"h" * 32), "once"),
    ],
)
def test_what_is_out_of_range_is_refused(world: World, edit: Callable[[Decision], object], message: str) -> None:
    decision = Decision.FromString(world.decide(world.publish(), edit=judged).decision)
    edit(decision)
    with pytest.raises(MalformedError, match=message):
        DecisionDocument.parse(decision.SerializeToString())


def test_garbage_is_no_decision() -> None:
    for data in (b"\xff" * 40, b"", bytes(300 * 1024)):
        with pytest.raises(MalformedError):
            DecisionDocument.parse(data)
