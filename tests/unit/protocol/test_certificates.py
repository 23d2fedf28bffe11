"""Real X.509, spoiled in every way in which a leaf can be spoiled."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, ObjectIdentifier

from nightshift.protocol.certificates import (
    MAX_CERTIFICATE_BYTES,
    load_certificate,
    verify_device_certificate,
    verify_signing_certificate,
)
from nightshift.protocol.errors import (
    MalformedError,
    NightshiftError,
    RevokedError,
    SignatureInvalidError,
    VerificationError,
)
from nightshift.protocol.identity import device_id
from tests.support.authority import DAY_S, NOW_UNIX_S, Authority, der, new_key

AUTHORITY = Authority.make()
KEY = new_key()
CLIENT, SERVER, CODE = (
    ExtendedKeyUsageOID.CLIENT_AUTH,
    ExtendedKeyUsageOID.SERVER_AUTH,
    ExtendedKeyUsageOID.CODE_SIGNING,
)
NOBODY_KNOWS = ObjectIdentifier("1.3.6.1.4.1.99999.1")


def refused(certificate: bytes, error: type[NightshiftError], match: str, *, at_unix_s: int = NOW_UNIX_S) -> None:
    with pytest.raises(error, match=match) as caught:
        verify_device_certificate(certificate, AUTHORITY.root, at_unix_s)
    assert type(caught.value) is error


def test_an_honest_device() -> None:
    certificate = AUTHORITY.issue(KEY.public_key(), not_before_unix_s=NOW_UNIX_S - 60, not_after_unix_s=NOW_UNIX_S + 60)
    found = verify_device_certificate(certificate, AUTHORITY.root, NOW_UNIX_S)
    assert found.device_id == device_id(KEY.public_key())
    assert found.public_key == KEY.public_key()
    assert (found.not_before_unix_s, found.not_after_unix_s) == (NOW_UNIX_S - 60, NOW_UNIX_S + 60)


def test_validity_includes_both_its_ends_and_nothing_more() -> None:
    first, last = NOW_UNIX_S - 60, NOW_UNIX_S + 60
    certificate = AUTHORITY.issue(KEY.public_key(), not_before_unix_s=first, not_after_unix_s=last)
    verify_device_certificate(certificate, AUTHORITY.root, first)
    verify_device_certificate(certificate, AUTHORITY.root, last)
    refused(certificate, RevokedError, "is valid from", at_unix_s=first - 1)
    refused(certificate, RevokedError, "is valid from", at_unix_s=last + 1)


def test_expired_by_the_real_clock() -> None:
    now = int(datetime.now(UTC).timestamp())
    old = AUTHORITY.issue(KEY.public_key(), not_before_unix_s=now - 2 * DAY_S, not_after_unix_s=now - DAY_S)
    refused(old, RevokedError, "is valid from", at_unix_s=now)
    new = AUTHORITY.issue(KEY.public_key(), not_before_unix_s=now + DAY_S, not_after_unix_s=now + 2 * DAY_S)
    refused(new, RevokedError, "is valid from", at_unix_s=now)


@pytest.mark.parametrize("at_unix_s", [-(2**63), -1, 0, 2**40, 2**63 - 1])
def test_a_time_that_no_calendar_shows_is_only_outside_the_validity(at_unix_s: int) -> None:
    """Members judge certificates at a time from the log, which a coordinator writes."""
    refused(AUTHORITY.issue(KEY.public_key()), RevokedError, "is valid from", at_unix_s=at_unix_s)


def test_another_issuer_of_the_same_name() -> None:
    stranger = Authority.make()
    refused(stranger.issue(KEY.public_key()), SignatureInvalidError, "not issued by this coordinator")


def test_another_issuer_of_another_name() -> None:
    stranger = Authority.make(common_name="Other root")
    refused(stranger.issue(KEY.public_key()), SignatureInvalidError, "not issued by this coordinator")


def test_self_signed() -> None:
    key = new_key()
    own = Authority(key, AUTHORITY.root, key).issue(key.public_key())
    refused(own, SignatureInvalidError, "not issued by this coordinator")


def test_issued_by_a_device_instead_of_the_root() -> None:
    """A device's own key must not enrol further devices, though its certificate chains to the root."""
    device = x509.load_der_x509_certificate(AUTHORITY.issue(KEY.public_key()))
    refused(Authority(KEY, device, KEY).issue(new_key().public_key()), SignatureInvalidError, "not issued by")


@pytest.mark.parametrize(
    "usages",
    [
        pytest.param((SERVER,), id="server"),
        pytest.param((CODE,), id="signing"),
        pytest.param((ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE,), id="any"),
        pytest.param((CLIENT, SERVER), id="client and server"),
        pytest.param((CLIENT, CLIENT), id="client twice"),
        pytest.param((NOBODY_KNOWS,), id="unknown"),
    ],
)
def test_another_purpose(usages: tuple[ObjectIdentifier, ...]) -> None:
    refused(AUTHORITY.issue(KEY.public_key(), usages=usages), VerificationError, "another purpose")


def test_no_purpose() -> None:
    refused(AUTHORITY.issue(KEY.public_key(), usages=None), VerificationError, "does not say what it is for")


def test_a_certificate_that_may_issue_others() -> None:
    refused(AUTHORITY.issue(KEY.public_key(), ca=True), VerificationError, "another purpose")


def test_no_basic_constraints() -> None:
    refused(AUTHORITY.issue(KEY.public_key(), ca=None), VerificationError, "does not say what it is for")


def test_the_root_itself() -> None:
    refused(der(AUTHORITY.root), VerificationError, "does not say what it is for")


def test_a_critical_extension_that_this_build_does_not_know() -> None:
    unknown = x509.UnrecognizedExtension(NOBODY_KNOWS, b"\x05\x00")
    harmless = AUTHORITY.issue(KEY.public_key(), extensions=[(unknown, False)])
    verify_device_certificate(harmless, AUTHORITY.root, NOW_UNIX_S)
    refused(AUTHORITY.issue(KEY.public_key(), extensions=[(unknown, True)]), VerificationError, "critical extension")


@pytest.mark.parametrize(
    "public_key",
    [
        pytest.param(ec.generate_private_key(ec.SECP384R1()).public_key(), id="P-384"),
        pytest.param(ec.generate_private_key(ec.SECP256K1()).public_key(), id="secp256k1"),
        pytest.param(ed25519.Ed25519PrivateKey.generate().public_key(), id="Ed25519"),
        pytest.param(rsa.generate_private_key(65537, 2048).public_key(), id="RSA"),
    ],
)
def test_a_key_of_another_kind(
    public_key: ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey | rsa.RSAPublicKey,
) -> None:
    refused(AUTHORITY.issue(public_key), MalformedError, "expected ECDSA on P-256")


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(lambda _: b"", id="empty"),
        pytest.param(lambda _: b"\x30\x80garbage", id="garbage"),
        pytest.param(lambda good: good[:-1], id="cut"),
        pytest.param(lambda good: good + b"\0", id="trailing byte"),
        pytest.param(lambda good: good + bytes(MAX_CERTIFICATE_BYTES), id="padded past the limit"),
        pytest.param(lambda _: bytes(1 << 20), id="a megabyte of zeros"),
        pytest.param(lambda good: b"-----BEGIN CERTIFICATE-----\n" + good, id="PEM"),
    ],
)
def test_bytes_that_are_no_certificate(damage: Callable[[bytes], bytes]) -> None:
    good = AUTHORITY.issue(KEY.public_key())
    load_certificate(good)
    refused(damage(good), MalformedError, "certificate")


def test_a_megabyte_that_is_a_certificate_is_refused_by_its_size() -> None:
    """The reader must not be handed what a sender may stretch at will."""
    big = x509.UnrecognizedExtension(NOBODY_KNOWS, bytes(1 << 20))
    certificate = AUTHORITY.issue(KEY.public_key(), extensions=[(big, False)])
    x509.load_der_x509_certificate(certificate)
    refused(certificate, MalformedError, f"may take {MAX_CERTIFICATE_BYTES} bytes")


def test_the_signing_certificate() -> None:
    signing = AUTHORITY.issue(AUTHORITY.signing_key.public_key(), usages=(CODE,))
    assert verify_signing_certificate(signing, AUTHORITY.root) == AUTHORITY.signing_key.public_key()
    for usages in ((CLIENT,), (SERVER,), (CODE, CLIENT)):
        with pytest.raises(VerificationError, match="another purpose"):
            verify_signing_certificate(AUTHORITY.issue(KEY.public_key(), usages=usages), AUTHORITY.root)
    with pytest.raises(SignatureInvalidError):
        verify_signing_certificate(Authority.make().issue(KEY.public_key(), usages=(CODE,)), AUTHORITY.root)
    with pytest.raises(MalformedError):
        verify_signing_certificate(b"garbage", AUTHORITY.root)
    refused(signing, VerificationError, "another purpose")
