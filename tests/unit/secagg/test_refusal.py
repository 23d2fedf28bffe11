"""A member's refusal: what it is bound to, and what of it cannot be changed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
from secagg_cohort import Identity

from nightshift.protocol.errors import MalformedError, SignatureInvalidError
from nightshift.protocol.identity import DeviceId
from nightshift.protocol.secagg.refusal import (
    Refusal,
    ShareFault,
    UnusableShare,
    refusal_message,
    sign_refusal,
    verify_refusal,
)

MEMBER = Identity.numbered(1)
H, SET = b"h" * 32, b"u" * 32
LOW = UnusableShare(DeviceId(b"\x01" * 32), ShareFault.DOES_NOT_OPEN)
HIGH = UnusableShare(DeviceId(b"\x02" * 32), ShareFault.NOT_IN_FIELD)


def made(shares: Sequence[UnusableShare] = (HIGH, LOW)) -> Refusal:
    return sign_refusal(plan_hash=H, set_hash=SET, shares=shares, sign=MEMBER.sign)


def test_a_refusal_verifies_and_names_in_order() -> None:
    refusal = made()
    assert refusal.shares == (LOW, HIGH)
    verify_refusal(refusal, plan_hash=H, public_key=MEMBER.public_key)
    assert made() == refusal, "a retry is the same bytes"


@pytest.mark.parametrize(
    "changes",
    [
        {"set_hash": b"v" * 32},
        {"shares": (LOW,)},
        {"shares": (LOW, replace(HIGH, fault=ShareFault.DOES_NOT_OPEN))},
        {"shares": (LOW, replace(HIGH, contributor=DeviceId(b"\x03" * 32)))},
        {"signature": bytes(63) + b"\x01"},
    ],
)
def test_no_field_can_be_changed(changes: dict[str, object]) -> None:
    with pytest.raises(SignatureInvalidError):
        verify_refusal(replace(made(), **changes), plan_hash=H, public_key=MEMBER.public_key)


def test_it_is_for_one_plan_and_of_one_member() -> None:
    with pytest.raises(SignatureInvalidError):
        verify_refusal(made(), plan_hash=b"i" * 32, public_key=MEMBER.public_key)
    with pytest.raises(SignatureInvalidError):
        verify_refusal(made(), plan_hash=H, public_key=Identity.numbered(2).public_key)


@pytest.mark.parametrize(
    "shares", [(), (LOW, LOW), (HIGH, LOW), (replace(LOW, contributor=DeviceId(b"short")),)], ids=repr
)
def test_a_refusal_names_somebody_each_once_in_order(shares: tuple[UnusableShare, ...]) -> None:
    with pytest.raises(MalformedError):
        refusal_message(H, SET, shares)
