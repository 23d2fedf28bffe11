"""What is signed around a device's certificate: late renewal, and where the coordinator is called."""

from __future__ import annotations

import os

import pytest

from nightshift.protocol import identity
from nightshift.protocol.addresses import AddressBook, is_address, sign_addresses, verify_addresses
from nightshift.protocol.errors import MalformedError, RevokedError, SignatureInvalidError, VerificationError
from nightshift.protocol.identity import DeviceId
from nightshift.protocol.renewal import (
    CHALLENGE_LIFETIME_S,
    make_challenge,
    prove,
    require_fresh,
    verify_challenge,
    verify_proof,
)
from nightshift.protocol.trust import Trust
from nightshift.v1 import device_pb2, join_pb2
from tests.support.authority import NOW_UNIX_S, Authority, new_key

AUTHORITY = Authority.make()
TRUST = Trust(AUTHORITY.root, AUTHORITY.signing_key.public_key(), "origin")
KEY = new_key()
DEVICE = identity.device_id(KEY.public_key())
REQUEST = b"a signing request"


def challenge(device: DeviceId = DEVICE) -> join_pb2.BeginRenewalResponse:
    return make_challenge(device, nonce=os.urandom(32), now_unix_s=NOW_UNIX_S, sign=AUTHORITY.sign)


def proof() -> join_pb2.EndRenewalRequest:
    return prove(challenge(), DEVICE, REQUEST, sign=lambda message: identity.sign(KEY, message), trust=TRUST)


def test_the_holder_of_the_key_is_believed() -> None:
    made = proof()
    verify_challenge(made.challenge, DEVICE, TRUST.signing_key)
    verify_proof(made, KEY.public_key())


def test_nobody_else_is() -> None:
    with pytest.raises(SignatureInvalidError, match="renewal's signature"):
        verify_proof(proof(), new_key().public_key())


@pytest.mark.parametrize("field", ["device_id", "certificate_request"])
def test_a_proof_is_for_one_device_and_one_request(field: str) -> None:
    made = proof()
    setattr(made, field, os.urandom(32))
    with pytest.raises(SignatureInvalidError, match="renewal's signature"):
        verify_proof(made, KEY.public_key())


def test_a_proof_is_for_one_challenge() -> None:
    made = proof()
    made.challenge.CopyFrom(challenge())
    with pytest.raises(SignatureInvalidError, match="renewal's signature"):
        verify_proof(made, KEY.public_key())


def test_a_challenge_is_for_one_device() -> None:
    stranger = identity.device_id(new_key().public_key())
    with pytest.raises(SignatureInvalidError, match="renewal challenge"):
        verify_challenge(challenge(stranger), DEVICE, TRUST.signing_key)


def test_the_device_signs_nothing_that_another_coordinator_made() -> None:
    theirs = make_challenge(DEVICE, nonce=bytes(32), now_unix_s=NOW_UNIX_S, sign=Authority.make().sign)
    with pytest.raises(SignatureInvalidError, match="renewal challenge"):
        prove(theirs, DEVICE, REQUEST, sign=lambda _: pytest.fail("signed"), trust=TRUST)


@pytest.mark.parametrize(("nonce", "time"), [(b"", NOW_UNIX_S), (bytes(31), 0), (bytes(33), 0), (bytes(32), -1)])
def test_a_challenge_that_is_none(nonce: bytes, time: int) -> None:
    with pytest.raises(MalformedError, match="challenge"):
        verify_challenge(join_pb2.BeginRenewalResponse(nonce=nonce, time_unix_s=time), DEVICE, TRUST.signing_key)


@pytest.mark.parametrize("late_s", [-1, CHALLENGE_LIFETIME_S + 1])
def test_a_challenge_serves_for_minutes(late_s: int) -> None:
    require_fresh(challenge(), NOW_UNIX_S)
    require_fresh(challenge(), NOW_UNIX_S + CHALLENGE_LIFETIME_S)
    with pytest.raises(RevokedError, match="took too long"):
        require_fresh(challenge(), NOW_UNIX_S + late_s)


BOOK = AddressBook(7, "coordinator.example:7444", "[2001:db8::1]:7443")


def test_addresses_come_back_as_they_were_signed() -> None:
    assert verify_addresses(sign_addresses(BOOK, AUTHORITY.sign), trust=TRUST, last_number=7) == BOOK


def test_older_addresses_are_refused() -> None:
    with pytest.raises(VerificationError, match="older than 8"):
        verify_addresses(sign_addresses(BOOK, AUTHORITY.sign), trust=TRUST, last_number=8)


@pytest.mark.parametrize(
    "change",
    [
        device_pb2.Addresses(number=8),
        device_pb2.Addresses(join_address="evil.example:1"),
        device_pb2.Addresses(device_address="evil.example:1"),
    ],
    ids=["number", "join", "device"],
)
def test_altered_addresses_are_refused(change: device_pb2.Addresses) -> None:
    message = sign_addresses(BOOK, AUTHORITY.sign)
    message.MergeFrom(change)
    with pytest.raises(SignatureInvalidError, match="addresses"):
        verify_addresses(message, trust=TRUST)


@pytest.mark.parametrize(
    "text", ["", "host", "host:0", "host:123456", "unix:/tmp/x", "dns:host:1", "a b:1", "ho\nst:1", "ﬁ.example:1"]
)
def test_what_is_no_address(text: str) -> None:
    assert not is_address(text)
    with pytest.raises(MalformedError, match="host:port"):
        verify_addresses(device_pb2.Addresses(number=1, join_address=text, device_address=text), trust=TRUST)
