"""The certificate authority: one root, three kinds of leaf (RFC 5280).

The root signs the server's certificate (serverAuth), the signing certificate
(codeSigning: plans, checkpoints, releases) and the devices' (clientAuth, 30
days, valid from an hour ago so that a slow clock is no obstacle). All keys are
ECDSA P-256: gRPC's TLS accepts no Ed25519 leaf. Private keys are files with
mode 0600 and nothing else: never a row, never a log line.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from nightshift.host.files import read_private, write_atomic
from nightshift.protocol import identity
from nightshift.protocol.errors import MalformedError, UsageError

DEVICE_LIFETIME = timedelta(days=30)
SERVER_LIFETIME = timedelta(days=397)
SERVER_RENEWAL = timedelta(days=60)
ROOT_LIFETIME = timedelta(days=3650)
BACKDATING = timedelta(hours=1)
MAX_REQUEST_BYTES = 4096
_LABEL = "[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_HOST_NAME = re.compile(rf"(?=.{{1,253}}$){_LABEL}(\.{_LABEL})*")


@dataclass(frozen=True, slots=True)
class ServerCredentials:
    """What the listeners present: PEM key and certificate."""

    key_pem: bytes
    certificate_pem: bytes


class Authority:
    """The root and the signing key, as read from the keys directory."""

    def __init__(
        self,
        *,
        root: x509.Certificate,
        root_key: ec.EllipticCurvePrivateKey,
        signing_certificate: x509.Certificate,
        signing_key: ec.EllipticCurvePrivateKey,
        directory: Path,
    ) -> None:
        self.root = root
        self.signing_certificate_der = _der(signing_certificate)
        self._root_key = root_key
        self._signing_key = signing_key
        self._directory = directory

    @classmethod
    def create(cls, directory: Path, now_unix_s: int) -> Authority:
        """Make the root and the signing key in an empty directory."""
        now = datetime.fromtimestamp(now_unix_s, UTC)
        root_key = ec.generate_private_key(ec.SECP256R1())
        name = _name("Nightshift root " + identity.device_id(root_key.public_key()).hex()[:16])
        usage = _key_usage(signs_certificates=True)
        root = (
            x509.CertificateBuilder(issuer_name=name, subject_name=name)
            .public_key(root_key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - BACKDATING)
            .not_valid_after(now + ROOT_LIFETIME)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(usage, critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(root_key.public_key()), critical=False)
            .sign(root_key, hashes.SHA256())
        )
        signing_key = ec.generate_private_key(ec.SECP256R1())
        signing = _leaf(
            root,
            root_key,
            signing_key.public_key(),
            subject="Nightshift signing key",
            usage=ExtendedKeyUsageOID.CODE_SIGNING,
            not_before=now - BACKDATING,
            lifetime=ROOT_LIFETIME,
        )
        for stem, key, certificate in (("root", root_key, root), ("signing", signing_key, signing)):
            write_atomic(directory / f"{stem}.key", _key_pem(key), mode=0o600)
            write_atomic(directory / f"{stem}.crt", _pem(certificate), mode=0o644)
        return cls.load(directory)

    @classmethod
    def load(cls, directory: Path) -> Authority:
        """Read what `create` made.

        Raises:
            UsageError: a key file is missing, damaged, or readable by others.
        """
        return cls(
            root=_read_certificate(directory / "root.crt"),
            root_key=_read_key(directory / "root.key"),
            signing_certificate=_read_certificate(directory / "signing.crt"),
            signing_key=_read_key(directory / "signing.key"),
            directory=directory,
        )

    @property
    def root_der(self) -> bytes:
        """The root certificate."""
        return _der(self.root)

    @property
    def root_pem(self) -> bytes:
        """The root certificate."""
        return _pem(self.root)

    @property
    def signing_public_key(self) -> ec.EllipticCurvePublicKey:
        """Verifies what `sign` made."""
        return self._signing_key.public_key()

    def sign(self, message: bytes) -> bytes:
        """64 bytes by the signing key over a domain-separated message."""
        return identity.sign(self._signing_key, message)

    def issue_device_certificate(self, public_key: ec.EllipticCurvePublicKey, now_unix_s: int) -> bytes:
        """A certificate for a device's key: DER, 30 days."""
        now = datetime.fromtimestamp(now_unix_s, UTC)
        certificate = _leaf(
            self.root,
            self._root_key,
            public_key,
            subject="device " + identity.device_id(public_key).hex()[:32],
            usage=ExtendedKeyUsageOID.CLIENT_AUTH,
            not_before=now - BACKDATING,
            lifetime=DEVICE_LIFETIME,
        )
        return _der(certificate)

    def server_credentials(self, addresses: Sequence[str], now_unix_s: int) -> ServerCredentials:
        """The listeners' key and certificate; made anew when it ages or the addresses changed."""
        now = datetime.fromtimestamp(now_unix_s, UTC)
        key_file, certificate_file = self._directory / "server.key", self._directory / "server.crt"
        names = x509.SubjectAlternativeName([_general_name(address) for address in addresses])
        if key_file.exists() and certificate_file.exists():
            certificate = _read_certificate(certificate_file)
            present = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
            if present == names and certificate.not_valid_after_utc - now > SERVER_RENEWAL:
                return ServerCredentials(read_private(key_file), certificate_file.read_bytes())
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = _leaf(
            self.root,
            self._root_key,
            key.public_key(),
            subject="Nightshift coordinator",
            usage=ExtendedKeyUsageOID.SERVER_AUTH,
            not_before=now - BACKDATING,
            lifetime=SERVER_LIFETIME,
            names=names,
        )
        # The certificate goes last: a crash in between leaves none, and the next start makes both again.
        certificate_file.unlink(missing_ok=True)
        write_atomic(key_file, _key_pem(key), mode=0o600)
        write_atomic(certificate_file, _pem(certificate), mode=0o644)
        return ServerCredentials(read_private(key_file), certificate_file.read_bytes())


def requested_key(request_der: bytes) -> ec.EllipticCurvePublicKey:
    """The public key of a signing request (PKCS #10), once it proved that its sender holds the private one.

    Raises:
        MalformedError: too large, not a request, another kind of key, or a wrong signature.
    """
    if len(request_der) > MAX_REQUEST_BYTES:
        raise MalformedError(f"a signing request may take {MAX_REQUEST_BYTES} bytes, got {len(request_der)}")
    try:
        request = x509.load_der_x509_csr(request_der)
        key = request.public_key()
        valid = request.is_signature_valid
    except Exception as error:  # cryptography raises several kinds for hostile DER
        raise MalformedError("the signing request could not be read; expected PKCS #10 in DER") from error
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise MalformedError("the signing request is for another kind of key; expected ECDSA on P-256")
    if not valid:
        raise MalformedError("the signing request was not signed by its own key")
    return key


def _leaf(
    root: x509.Certificate,
    root_key: ec.EllipticCurvePrivateKey,
    public_key: ec.EllipticCurvePublicKey,
    *,
    subject: str,
    usage: x509.ObjectIdentifier,
    not_before: datetime,
    lifetime: timedelta,
    names: x509.SubjectAlternativeName | None = None,
) -> x509.Certificate:
    builder = (
        x509.CertificateBuilder(issuer_name=root.subject, subject_name=_name(subject))
        .public_key(public_key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(not_before)
        .not_valid_after(not_before + BACKDATING + lifetime)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_key_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(root_key.public_key()), critical=False)
    )
    if names is not None:
        builder = builder.add_extension(names, critical=False)
    return builder.sign(root_key, hashes.SHA256())


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


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def _der(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.DER)


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _read_certificate(path: Path) -> x509.Certificate:
    try:
        return x509.load_pem_x509_certificate(path.read_bytes())
    except FileNotFoundError as error:
        raise UsageError(f"{path} is missing; restore the keys directory from a backup") from error
    except ValueError as error:
        raise UsageError(f"{path} is not a PEM certificate; restore the keys directory from a backup") from error


def _read_key(path: Path) -> ec.EllipticCurvePrivateKey:
    pem = read_private(path)
    try:
        key = serialization.load_pem_private_key(pem, password=None)
    except (ValueError, TypeError):
        key = None
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise UsageError(f"{path} is not a P-256 private key; restore the keys directory from a backup")
    return key
