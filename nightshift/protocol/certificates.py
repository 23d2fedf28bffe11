"""X.509 as this protocol uses it: who may be a device, and who may sign for the coordinator.

One root issues three kinds of leaf, told apart by their extended key usage
(RFC 5280, section 4.2.1.12): devices clientAuth, the server serverAuth, the
signing key codeSigning. A leaf of one kind never passes for another.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID

from nightshift.protocol.errors import MalformedError, RevokedError, SignatureInvalidError, VerificationError
from nightshift.protocol.identity import DeviceId, device_id

MAX_CERTIFICATE_BYTES = 4096
_EXTENSION_ERRORS = (
    x509.ExtensionNotFound,
    x509.DuplicateExtension,
    x509.UnsupportedGeneralNameType,
    UnsupportedAlgorithm,
    ValueError,
    TypeError,
)


@dataclass(frozen=True, slots=True)
class DeviceCertificate:
    """What a device's certificate says once it is believed."""

    device_id: DeviceId
    public_key: ec.EllipticCurvePublicKey
    not_before_unix_s: int
    not_after_unix_s: int


def load_certificate(der: bytes) -> x509.Certificate:
    """Read a DER certificate.

    Raises:
        MalformedError: too large, or not a certificate.
    """
    if len(der) > MAX_CERTIFICATE_BYTES:
        raise MalformedError(f"a certificate may take {MAX_CERTIFICATE_BYTES} bytes, got {len(der)}")
    try:
        return x509.load_der_x509_certificate(der)
    except (ValueError, x509.InvalidVersion) as error:
        raise MalformedError("a certificate could not be read; expected X.509 in DER") from error


def verify_device_certificate(der: bytes, root: x509.Certificate, at_unix_s: int) -> DeviceCertificate:
    """Check that a certificate makes its holder a device, at a given time.

    Args:
        der: the certificate.
        root: the authority that must have issued it.
        at_unix_s: the time at which it must be valid.

    Raises:
        MalformedError: not a certificate, or not on P-256.
        VerificationError: of another authority, or for another purpose.
        RevokedError: not yet or no longer valid.
    """
    certificate = load_certificate(der)
    key = _leaf_key(certificate, root, ExtendedKeyUsageOID.CLIENT_AUTH, "device")
    first = int(certificate.not_valid_before_utc.timestamp())
    last = int(certificate.not_valid_after_utc.timestamp())
    if not first <= at_unix_s <= last:
        raise RevokedError(
            f"the certificate of device {device_id(key).hex()[:16]} is valid from "
            f"{_readable(first)} to {_readable(last)}, not at {_readable(at_unix_s)}"
        )
    return DeviceCertificate(device_id(key), key, first, last)


def verify_signing_certificate(der: bytes, root: x509.Certificate) -> ec.EllipticCurvePublicKey:
    """Check that a certificate holds the coordinator's signing key, and return the key.

    Raises:
        MalformedError: not a certificate, or not on P-256.
        VerificationError: of another authority, or for another purpose.
    """
    return _leaf_key(load_certificate(der), root, ExtendedKeyUsageOID.CODE_SIGNING, "signing")


def _leaf_key(
    certificate: x509.Certificate, root: x509.Certificate, usage: x509.ObjectIdentifier, kind: str
) -> ec.EllipticCurvePublicKey:
    try:
        certificate.verify_directly_issued_by(root)
    except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm) as error:
        raise SignatureInvalidError(f"the {kind} certificate was not issued by this coordinator's root") from error
    try:
        extensions = certificate.extensions
        usages = extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
        constraints = extensions.get_extension_for_class(x509.BasicConstraints).value
    except _EXTENSION_ERRORS as error:
        raise VerificationError(f"the {kind} certificate does not say what it is for") from error
    if list(usages) != [usage] or constraints.ca:
        raise VerificationError(f"a certificate for another purpose was offered as a {kind} certificate")
    if any(item.critical and isinstance(item.value, x509.UnrecognizedExtension) for item in extensions):
        # RFC 5280, section 4.2: what is critical and not understood must be refused.
        raise VerificationError(f"the {kind} certificate carries a critical extension that this build does not know")
    try:
        key = certificate.public_key()
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise MalformedError(f"the {kind} certificate's key could not be read; expected ECDSA on P-256") from error
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise MalformedError(f"the {kind} certificate's key is of another kind; expected ECDSA on P-256")
    return key


def _readable(unix_s: int) -> str:
    try:
        return f"{datetime.fromtimestamp(unix_s, UTC):%Y-%m-%dT%H:%MZ}"
    except (ValueError, OverflowError, OSError):
        return f"Unix time {unix_s}"
