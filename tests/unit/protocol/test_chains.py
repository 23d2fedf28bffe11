"""A leaf with its intermediate: what is believed, and every way in which the second certificate can be wrong."""

from __future__ import annotations

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, ObjectIdentifier

from nightshift.protocol.certificates import (
    leaf_public_key,
    verify_device_certificate,
    verify_signing_certificate,
)
from nightshift.protocol.chains import MAX_CERTIFICATE_BYTES, load_chain
from nightshift.protocol.errors import (
    MalformedError,
    NightshiftError,
    RevokedError,
    SignatureInvalidError,
    VerificationError,
)
from nightshift.protocol.identity import device_id
from tests.support.authority import DAY_S, NOW_UNIX_S, Authority, Extension, der, moment, name, new_key

ROOT = Authority.make()
KEY = new_key()
INTERMEDIATE_KEY = new_key()


def intermediate(
    *,
    issuer: Authority = ROOT,
    ca: bool = True,
    path_length: int | None = 0,
    signs: bool = True,
    days: tuple[int, int] = (-10, 400),
    extensions: tuple[Extension, ...] = (),
) -> x509.Certificate:
    """An honest one by default, each part to be spoiled."""
    usage = x509.KeyUsage(
        digital_signature=not signs,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs,
        crl_sign=signs,
        encipher_only=False,
        decipher_only=False,
    )
    builder = (
        x509.CertificateBuilder(issuer_name=issuer.root.subject, subject_name=name("Test intermediate"))
        .public_key(INTERMEDIATE_KEY.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(moment(NOW_UNIX_S + days[0] * DAY_S))
        .not_valid_after(moment(NOW_UNIX_S + days[1] * DAY_S))
        .add_extension(x509.BasicConstraints(ca=ca, path_length=path_length if ca else None), critical=True)
        .add_extension(usage, critical=True)
    )
    for extension, critical in extensions:
        builder = builder.add_extension(extension, critical=critical)
    return builder.sign(issuer.root_key, hashes.SHA256())


def leaf(issuer: x509.Certificate, key: ec.EllipticCurvePrivateKey = INTERMEDIATE_KEY) -> bytes:
    return Authority(key, issuer, key).issue(KEY.public_key())


def refused(chain: bytes, error: type[NightshiftError], match: str) -> None:
    with pytest.raises(error, match=match) as caught:
        verify_device_certificate(chain, ROOT.root, NOW_UNIX_S)
    assert type(caught.value) is error


HONEST = intermediate()


def test_a_leaf_by_an_intermediate_of_the_root() -> None:
    chain = leaf(HONEST) + der(HONEST)
    assert verify_device_certificate(chain, ROOT.root, NOW_UNIX_S).device_id == device_id(KEY.public_key())
    assert leaf_public_key(chain) == KEY.public_key()
    assert load_chain(chain).der == chain
    assert load_chain(chain).pem.count(b"BEGIN CERTIFICATE") == 2


def test_a_signing_certificate_by_an_intermediate_that_has_ended() -> None:
    """A device keeps the signing certificate that it joined with, for years."""
    old = intermediate(days=(-400, -100))
    signing = Authority(INTERMEDIATE_KEY, old, KEY).issue(KEY.public_key(), usages=(ExtendedKeyUsageOID.CODE_SIGNING,))
    assert verify_signing_certificate(signing + der(old), ROOT.root) == KEY.public_key()
    refused(leaf(old) + der(old), RevokedError, "intermediate certificate is valid from")


def test_without_its_intermediate_a_leaf_is_nobodys() -> None:
    refused(leaf(HONEST), SignatureInvalidError, "not issued by this coordinator's root")


@pytest.mark.parametrize(
    ("spoiled", "error", "match"),
    [
        (intermediate(issuer=Authority.make()), SignatureInvalidError, "intermediate certificate was not issued by"),
        (intermediate(ca=False), VerificationError, "may not issue others"),
        (intermediate(path_length=None), VerificationError, "may not issue others"),
        (intermediate(path_length=1), VerificationError, "may not issue others"),
        (intermediate(signs=False), VerificationError, "may not issue others"),
        (intermediate(days=(1, 2)), RevokedError, "intermediate certificate is valid from"),
        (intermediate(days=(-2, -1)), RevokedError, "intermediate certificate is valid from"),
    ],
    ids=["another root", "no authority", "endless", "too deep", "no key usage", "not yet valid", "expired"],
)
def test_an_intermediate_that_is_none(spoiled: x509.Certificate, error: type[NightshiftError], match: str) -> None:
    refused(leaf(spoiled) + der(spoiled), error, match)


def test_a_device_that_issues_devices() -> None:
    """An enrolled device signs a certificate for a key of its own making, and shows itself as the intermediate."""
    device = x509.load_der_x509_certificate(ROOT.issue(KEY.public_key()))
    refused(leaf(device, KEY) + der(device), VerificationError, "does not say what it is for")


def test_an_intermediate_that_did_not_issue_the_leaf() -> None:
    other = new_key()
    refused(leaf(HONEST, other) + der(HONEST), SignatureInvalidError, "device certificate was not issued by")
    refused(ROOT.issue(KEY.public_key()) + der(HONEST), SignatureInvalidError, "device certificate was not issued by")


def test_a_critical_extension_that_this_build_does_not_know() -> None:
    unknown = x509.UnrecognizedExtension(ObjectIdentifier("1.3.6.1.4.1.99999.1"), b"\x05\x00")
    odd = intermediate(extensions=((unknown, True),))
    refused(leaf(odd) + der(odd), VerificationError, "critical extension")


def test_the_intermediate_itself_is_no_device() -> None:
    refused(der(HONEST), VerificationError, "does not say what it is for")


@pytest.mark.parametrize(
    "tail",
    [
        pytest.param(der(HONEST) + der(HONEST), id="three certificates"),
        pytest.param(b"\x30", id="one byte"),
        pytest.param(b"\x30\x80\x00\x00", id="indefinite length"),
        pytest.param(b"\x30\x83\xff\xff\xff", id="a length beyond the end"),
        pytest.param(b"\x30\xff", id="a length of 127 bytes"),
        pytest.param(b"\x00\x00", id="zeros"),
        pytest.param(der(HONEST)[:-1], id="cut"),
        pytest.param(bytes(2 * MAX_CERTIFICATE_BYTES), id="padded past the limit"),
    ],
)
def test_bytes_behind_the_leaf_that_are_no_intermediate(tail: bytes) -> None:
    refused(leaf(HONEST) + tail, MalformedError, "certificate|chain")
