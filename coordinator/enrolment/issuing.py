"""X.509 certificates as this authority makes them (RFC 5280).

All keys are ECDSA P-256: gRPC's TLS accepts no Ed25519 leaf. Every certificate
begins an hour early, so that a slow clock is no obstacle, and none begins before or
outlives its issuer.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from nightshift.protocol.errors import UsageError

BACKDATING = timedelta(hours=1)
_LABEL = "[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_HOST_NAME = re.compile(rf"(?=.{{1,253}}$){_LABEL}(\.{_LABEL})*")


@dataclass(frozen=True, slots=True)
class Issuer:
    """A certificate that may issue others, and its key."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    def __repr__(self) -> str:
        return f"Issuer({self.certificate.subject.rfc4514_string()})"


def new_key() -> ec.EllipticCurvePrivateKey:
    """A fresh P-256 key."""
    return ec.generate_private_key(ec.SECP256R1())


def self_signed_root(
    key: ec.EllipticCurvePrivateKey, name: str, now: datetime, lifetime: timedelta
) -> x509.Certificate:
    """A root that may have intermediates below it, one deep."""
    return _authority(
        name,
        key,
        name=name,
        public_key=key.public_key(),
        not_before=now - BACKDATING,
        not_after=now + lifetime,
        path_length=1,
    )


def intermediate(
    root: Issuer, public_key: ec.EllipticCurvePublicKey, name: str, now: datetime, lifetime: timedelta
) -> x509.Certificate:
    """An authority below the root, for leaves only."""
    return _authority(
        common_name(root.certificate),
        root.key,
        name=name,
        public_key=public_key,
        not_before=now - BACKDATING,
        not_after=min(now + lifetime, root.certificate.not_valid_after_utc),
        path_length=0,
    )


def leaf(
    issuer: Issuer,
    public_key: ec.EllipticCurvePublicKey,
    *,
    subject: str,
    usage: x509.ObjectIdentifier,
    not_before: datetime,
    not_after: datetime,
    names: x509.SubjectAlternativeName | None = None,
) -> x509.Certificate:
    """A certificate for one purpose.

    Args:
        issuer: who signs; the leaf lies within its validity.
        public_key: whose it is.
        subject: the common name.
        usage: the one extended key usage.
        not_before: start of validity.
        not_after: end of validity.
        names: of a server.
    """
    builder = (
        x509.CertificateBuilder(issuer_name=issuer.certificate.subject, subject_name=_name(subject))
        .public_key(public_key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(max(not_before, issuer.certificate.not_valid_before_utc))
        .not_valid_after(min(not_after, issuer.certificate.not_valid_after_utc))
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_key_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer.key.public_key()), critical=False)
    )
    if names is not None:
        builder = builder.add_extension(names, critical=False)
    return builder.sign(issuer.key, hashes.SHA256())


def server_names(addresses: Sequence[str]) -> x509.SubjectAlternativeName:
    """Host names and IP addresses as a server certificate carries them.

    Raises:
        UsageError: one of them is neither.
    """
    return x509.SubjectAlternativeName([_general_name(address) for address in addresses])


def common_name(certificate: x509.Certificate) -> str:
    """The subject's common name."""
    return str(certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value)


def _authority(
    issuer_name: str,
    issuer_key: ec.EllipticCurvePrivateKey,
    *,
    name: str,
    public_key: ec.EllipticCurvePublicKey,
    not_before: datetime,
    not_after: datetime,
    path_length: int,
) -> x509.Certificate:
    return (
        x509.CertificateBuilder(issuer_name=_name(issuer_name), subject_name=_name(name))
        .public_key(public_key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(not_before)
        .not_valid_after(not_after)
        .add_extension(x509.BasicConstraints(ca=True, path_length=path_length), critical=True)
        .add_extension(_key_usage(signs_certificates=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()), critical=False)
        .sign(issuer_key, hashes.SHA256())
    )


def _key_usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _general_name(address: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(address))
    except ValueError:
        pass
    if not _HOST_NAME.fullmatch(address):
        raise UsageError(f"{address!r} is neither a host name nor an IP address")
    return x509.DNSName(address)
