"""X.509 as this protocol uses it: who may be a device, and who may sign for the coordinator.

One root, through an intermediate, issues three kinds of leaf, told apart by
their extended key usage (RFC 5280, section 4.2.1.12): devices clientAuth, the
server serverAuth, the signing key codeSigning. A leaf of one kind never passes
for another.
"""

from __future__ import annotations

from dataclasses import dataclass

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID

from nightshift.protocol.chains import (
    EXTENSION_ERRORS,
    MAX_CERTIFICATE_BYTES,
    load_certificate,
    load_chain,
    not_after_unix_s,
    not_before_unix_s,
    require_known_extensions,
    verified_issuer,
)
from nightshift.protocol.errors import MalformedError, RevokedError, SignatureInvalidError, VerificationError
from nightshift.protocol.identity import DeviceId, device_id
from nightshift.protocol.times import readable_time

__all__ = [
    "MAX_CERTIFICATE_BYTES",
    "DeviceCertificate",
    "leaf_public_key",
    "load_certificate",
    "read_device_certificate",
    "verify_device_certificate",
    "verify_signing_certificate",
]


RENEWAL_BEFORE_END_S = 10 * 86_400
"""A third of the 30 days for which a device is certified; a renewed certificate begins within the time of the one
before, which must not bring its own renewal forward."""


@dataclass(frozen=True, slots=True)
class DeviceCertificate:
    """What a device's certificate says once it is believed."""

    device_id: DeviceId
    public_key: ec.EllipticCurvePublicKey
    not_before_unix_s: int
    not_after_unix_s: int

    @property
    def renewal_due_unix_s(self) -> int:
        """When two thirds of its life are over; ten days before its end where it begins before it was issued."""
        life_s = self.not_after_unix_s - self.not_before_unix_s
        return self.not_after_unix_s - min(-(-life_s // 3), RENEWAL_BEFORE_END_S)


def verify_device_certificate(der: bytes, root: x509.Certificate, at_unix_s: int) -> DeviceCertificate:
    """Check that a certificate makes its holder a device, at a given time.

    Args:
        der: the certificate, followed by its issuer's where that is not the root.
        root: the authority that must stand behind it.
        at_unix_s: the time at which it must be valid.

    Raises:
        MalformedError: not a certificate, or not on P-256.
        VerificationError: of another authority, or for another purpose.
        RevokedError: not yet or no longer valid.
    """
    chain = load_chain(der)
    issuer = verified_issuer(chain, root, at_unix_s=at_unix_s)
    key = _leaf_key(chain.leaf, issuer, ExtendedKeyUsageOID.CLIENT_AUTH, "device")
    first, last = not_before_unix_s(chain.leaf), not_after_unix_s(chain.leaf)
    if not first <= at_unix_s <= last:
        raise RevokedError(
            f"the certificate of device {device_id(key).hex()[:16]} is valid from "
            f"{readable_time(first)} to {readable_time(last)}, not at {readable_time(at_unix_s)}"
        )
    return DeviceCertificate(device_id(key), key, first, last)


def verify_signing_certificate(der: bytes, root: x509.Certificate) -> ec.EllipticCurvePublicKey:
    """Check that a certificate holds the coordinator's signing key, and return the key.

    Its validity is not asked: a device keeps the one that it joined with.

    Raises:
        MalformedError: not a certificate, or not on P-256.
        VerificationError: of another authority, or for another purpose.
    """
    chain = load_chain(der)
    issuer = verified_issuer(chain, root, at_unix_s=None)
    return _leaf_key(chain.leaf, issuer, ExtendedKeyUsageOID.CODE_SIGNING, "signing")


def read_device_certificate(der: bytes) -> DeviceCertificate:
    """What a certificate says that was verified before; nothing is checked again.

    Raises:
        MalformedError: not a certificate, or not on P-256.
    """
    leaf = load_chain(der).leaf
    key = _p256_key(leaf, "device")
    return DeviceCertificate(device_id(key), key, not_before_unix_s(leaf), not_after_unix_s(leaf))


def leaf_public_key(der: bytes) -> ec.EllipticCurvePublicKey:
    """The public key of a device's certificate that was verified before.

    Raises:
        MalformedError: not a certificate, or not on P-256.
    """
    return read_device_certificate(der).public_key


def _leaf_key(
    certificate: x509.Certificate, issuer: x509.Certificate, usage: x509.ObjectIdentifier, kind: str
) -> ec.EllipticCurvePublicKey:
    try:
        certificate.verify_directly_issued_by(issuer)
    except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm) as error:
        raise SignatureInvalidError(f"the {kind} certificate was not issued by this coordinator's root") from error
    try:
        extensions = certificate.extensions
        usages = extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
        constraints = extensions.get_extension_for_class(x509.BasicConstraints).value
    except EXTENSION_ERRORS as error:
        raise VerificationError(f"the {kind} certificate does not say what it is for") from error
    if list(usages) != [usage] or constraints.ca:
        raise VerificationError(f"a certificate for another purpose was offered as a {kind} certificate")
    require_known_extensions(certificate, kind)
    return _p256_key(certificate, kind)


def _p256_key(certificate: x509.Certificate, kind: str) -> ec.EllipticCurvePublicKey:
    try:
        key = certificate.public_key()
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise MalformedError(f"the {kind} certificate's key could not be read; expected ECDSA on P-256") from error
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise MalformedError(f"the {kind} certificate's key is of another kind; expected ECDSA on P-256")
    return key
