"""The certificate authority from day to day: the intermediate issues, the root may lie in a safe.

The root certifies the intermediate; the intermediate signs the server's
certificate (serverAuth), the signing certificate (codeSigning: plans,
checkpoints, releases) and the devices' (clientAuth, 30 days). Everyone else
holds the root certificate only. Private keys are files with mode 0600 and
nothing else: never a row, never a log line.

::

    keys/root.crt           what every device holds
    keys/root.key           only to make an intermediate; may be taken away (`coordinator ca offline`)
    keys/intermediate.pem   key and certificate
    keys/signing.key, .crt  made once; a device keeps the certificate that it joined with
    keys/server.pem         key and chain of both listeners; made anew when it ages
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID

from coordinator.enrolment import issuing
from coordinator.enrolment.issuing import BACKDATING, Issuer
from coordinator.enrolment.key_files import (
    certificates_pem,
    key_pem,
    read_certificates,
    read_key,
    read_pair,
    write_pair,
)
from nightshift.host.files import write_atomic
from nightshift.protocol import identity
from nightshift.protocol.chains import not_after_unix_s
from nightshift.protocol.errors import MalformedError, UsageError

DEVICE_LIFETIME = timedelta(days=30)
SERVER_LIFETIME = timedelta(days=397)
SERVER_RENEWAL = timedelta(days=60)
INTERMEDIATE_LIFETIME = timedelta(days=3 * 365)
INTERMEDIATE_WARNING_DAYS = 90
ROOT_LIFETIME = timedelta(days=3650)
MAX_REQUEST_BYTES = 4096

ROOT_CERTIFICATE = "root.crt"
ROOT_KEY = "root.key"
INTERMEDIATE = "intermediate.pem"
_SIGNING_CERTIFICATE, _SIGNING_KEY, _SERVER = "signing.crt", "signing.key", "server.pem"


@dataclass(frozen=True, slots=True)
class ServerCredentials:
    """What the listeners present: PEM key, and the chain from the server's certificate to the intermediate's."""

    key_pem: bytes
    chain_pem: bytes

    def __repr__(self) -> str:
        return "ServerCredentials(...)"


class Authority:
    """The intermediate and the signing key, as read from the keys directory."""

    def __init__(
        self,
        *,
        root: x509.Certificate,
        issuer: Issuer,
        signing_chain: Sequence[x509.Certificate],
        signing_key: ec.EllipticCurvePrivateKey,
        directory: Path,
    ) -> None:
        self.root = root
        self.directory = directory
        self.signing_certificate_der = _chain_der(signing_chain)
        self._issuer = issuer
        self._signing_key = signing_key

    @classmethod
    def create(cls, directory: Path, now_unix_s: int) -> Authority:
        """Make root, intermediate and signing key in an empty directory."""
        now = datetime.fromtimestamp(now_unix_s, UTC)
        root_key = issuing.new_key()
        name = "Nightshift root " + identity.device_id(root_key.public_key()).hex()[:16]
        root = Issuer(issuing.self_signed_root(root_key, name, now, ROOT_LIFETIME), root_key)
        issuer = new_intermediate(root, issuing.new_key(), now_unix_s)
        signing_key = issuing.new_key()
        signing = issuing.leaf(
            issuer,
            signing_key.public_key(),
            subject="Nightshift signing key",
            usage=ExtendedKeyUsageOID.CODE_SIGNING,
            not_before=now - BACKDATING,
            not_after=now + INTERMEDIATE_LIFETIME,
        )
        write_atomic(directory / ROOT_KEY, key_pem(root.key), mode=0o600)
        write_atomic(directory / ROOT_CERTIFICATE, certificates_pem(root.certificate), mode=0o644)
        write_pair(directory / INTERMEDIATE, issuer.key, issuer.certificate)
        write_atomic(directory / _SIGNING_KEY, key_pem(signing_key), mode=0o600)
        write_atomic(directory / _SIGNING_CERTIFICATE, certificates_pem(signing, issuer.certificate), mode=0o644)
        return cls.load(directory)

    @classmethod
    def load(cls, directory: Path) -> Authority:
        """Read what `create` made. The root's key is not needed.

        Raises:
            UsageError: a key file is missing, damaged, or readable by others.
        """
        key, (certificate, *_) = read_pair(directory / INTERMEDIATE)
        return cls(
            root=read_certificates(directory / ROOT_CERTIFICATE)[0],
            issuer=Issuer(certificate, key),
            signing_chain=read_certificates(directory / _SIGNING_CERTIFICATE),
            signing_key=read_key(directory / _SIGNING_KEY),
            directory=directory,
        )

    @property
    def root_der(self) -> bytes:
        """The root certificate."""
        return self.root.public_bytes(serialization.Encoding.DER)

    @property
    def root_pem(self) -> bytes:
        """The root certificate."""
        return certificates_pem(self.root)

    @property
    def intermediate(self) -> x509.Certificate:
        """The certificate of the key that issues."""
        return self._issuer.certificate

    def intermediate_days_left(self, now_unix_s: int) -> int:
        """Days until the intermediate ends, and every certificate below it."""
        return (not_after_unix_s(self._issuer.certificate) - now_unix_s) // 86_400

    def require_valid(self, now_unix_s: int) -> None:
        """Refuse to serve under a certificate that has ended: every device would turn away, and not say why.

        Raises:
            UsageError: the intermediate or the root has ended.
        """
        if now_unix_s >= not_after_unix_s(self.root):
            raise UsageError(
                "the root certificate has ended, and every device's trust with it; if this machine's clock is right, "
                "make a new coordinator (coordinator init) and let the devices join it"
            )
        if now_unix_s >= not_after_unix_s(self._issuer.certificate):
            raise UsageError(
                "the intermediate certificate has ended, and every certificate below it; if this machine's "
                "clock is right, run: coordinator ca renew-intermediate (or ca request, if the root's key is elsewhere)"
            )

    @property
    def signing_public_key(self) -> ec.EllipticCurvePublicKey:
        """Verifies what `sign` made."""
        return self._signing_key.public_key()

    def sign(self, message: bytes) -> bytes:
        """64 bytes by the signing key over a domain-separated message."""
        return identity.sign(self._signing_key, message)

    def issue_device_certificate(
        self, public_key: ec.EllipticCurvePublicKey, now_unix_s: int, *, not_before_unix_s: int | None = None
    ) -> bytes:
        """A certificate for a device's key: DER, followed by the intermediate's.

        Args:
            public_key: the device's.
            now_unix_s: it ends 30 days from here.
            not_before_unix_s: where it begins; an hour ago where not said.
        """
        now = datetime.fromtimestamp(now_unix_s, UTC)
        early = now - BACKDATING if not_before_unix_s is None else datetime.fromtimestamp(not_before_unix_s, UTC)
        certificate = issuing.leaf(
            self._issuer,
            public_key,
            subject="device " + identity.device_id(public_key).hex()[:32],
            usage=ExtendedKeyUsageOID.CLIENT_AUTH,
            not_before=early,
            not_after=now + DEVICE_LIFETIME,
        )
        return _chain_der([certificate, self._issuer.certificate])

    def certificates(self) -> dict[str, x509.Certificate]:
        """By role, the root's first; the server's once there is one."""
        signing = read_certificates(self.directory / _SIGNING_CERTIFICATE)[0]
        found = {"root": self.root, "intermediate": self._issuer.certificate, "signing": signing}
        if (self.directory / _SERVER).exists():
            found["server"] = read_certificates(self.directory / _SERVER)[0]
        return found

    def server_credentials(self, addresses: Sequence[str], now_unix_s: int, *, anew: bool = False) -> ServerCredentials:
        """The listeners' key and chain; made anew when they age, or the addresses or the intermediate changed.

        Args:
            addresses: host names and IP addresses.
            now_unix_s: by the coordinator's clock.
            anew: make them anew in any case.
        """
        now = datetime.fromtimestamp(now_unix_s, UTC)
        file, names = self.directory / _SERVER, issuing.server_names(addresses)
        if file.exists() and not anew:
            key, chain = read_pair(file)
            present = chain[0].extensions.get_extension_for_class(x509.SubjectAlternativeName).value
            lasting = chain[0].not_valid_after_utc - now > SERVER_RENEWAL
            if present == names and lasting and chain[1:] == [self._issuer.certificate]:
                return ServerCredentials(key_pem(key), certificates_pem(*chain))
        key = issuing.new_key()
        certificate = issuing.leaf(
            self._issuer,
            key.public_key(),
            subject="Nightshift coordinator",
            usage=ExtendedKeyUsageOID.SERVER_AUTH,
            not_before=now - BACKDATING,
            not_after=now + SERVER_LIFETIME,
            names=names,
        )
        write_pair(file, key, certificate, self._issuer.certificate)
        return ServerCredentials(key_pem(key), certificates_pem(certificate, self._issuer.certificate))


def new_intermediate(root: Issuer, key: ec.EllipticCurvePrivateKey, now_unix_s: int) -> Issuer:
    """An intermediate below a root whose key is at hand."""
    now = datetime.fromtimestamp(now_unix_s, UTC)
    return Issuer(certify_intermediate(root, key.public_key(), now), key)


def certify_intermediate(root: Issuer, public_key: ec.EllipticCurvePublicKey, now: datetime) -> x509.Certificate:
    """The root's word that a key may issue certificates."""
    name = "Nightshift intermediate " + identity.device_id(public_key).hex()[:16]
    return issuing.intermediate(root, public_key, name, now, INTERMEDIATE_LIFETIME)


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


def _chain_der(chain: Sequence[x509.Certificate]) -> bytes:
    return b"".join(each.public_bytes(serialization.Encoding.DER) for each in chain)
