"""A certificate authority for tests: the real X.509, with every part that a test may want to spoil."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID, ObjectIdentifier

from nightshift.protocol.identity import sign

NOW_UNIX_S = 1_800_000_000
HOUR_S = 3600
DAY_S = 24 * HOUR_S

PublicKey = ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey | rsa.RSAPublicKey
Extension = tuple[x509.ExtensionType, bool]


def new_key() -> ec.EllipticCurvePrivateKey:
    """A fresh P-256 key."""
    return ec.generate_private_key(ec.SECP256R1())


def name(text: str) -> x509.Name:
    """A distinguished name with a common name only."""
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def moment(unix_s: int) -> datetime:
    """Unix seconds as X.509 wants them."""
    return datetime.fromtimestamp(unix_s, UTC)


def der(certificate: x509.Certificate) -> bytes:
    """The certificate as it travels."""
    return certificate.public_bytes(serialization.Encoding.DER)


@dataclass(frozen=True, slots=True)
class Authority:
    """A root, and the key that signs plans, checkpoints, releases and revocation lists."""

    root_key: ec.EllipticCurvePrivateKey
    root: x509.Certificate
    signing_key: ec.EllipticCurvePrivateKey

    @classmethod
    def make(cls, *, common_name: str = "Test root") -> Authority:
        """A root that is valid from 2022 on, for a working life: TLS judges it by the real clock."""
        root_key = new_key()
        root = (
            x509.CertificateBuilder(issuer_name=name(common_name), subject_name=name(common_name))
            .public_key(root_key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(moment(NOW_UNIX_S - 5 * 365 * DAY_S))
            .not_valid_after(moment(NOW_UNIX_S + 50 * 365 * DAY_S))
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .sign(root_key, hashes.SHA256())
        )
        return cls(root_key, root, new_key())

    def sign(self, message: bytes) -> bytes:
        """The signing key's signature."""
        return sign(self.signing_key, message)

    def issue(
        self,
        public_key: PublicKey,
        *,
        usages: Sequence[ObjectIdentifier] | None = (ExtendedKeyUsageOID.CLIENT_AUTH,),
        ca: bool | None = False,
        not_before_unix_s: int = NOW_UNIX_S - DAY_S,
        not_after_unix_s: int = NOW_UNIX_S + 30 * DAY_S,
        extensions: Sequence[Extension] = (),
    ) -> bytes:
        """A leaf certificate, DER; an honest device's by default.

        Args:
            public_key: whose.
            usages: extended key usages; None leaves the extension out.
            ca: the basic constraint; None leaves the extension out.
            not_before_unix_s: start of validity.
            not_after_unix_s: end of validity.
            extensions: more of them, each with whether it is critical.
        """
        builder = (
            x509.CertificateBuilder(issuer_name=self.root.subject, subject_name=name("leaf"))
            .public_key(public_key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(moment(not_before_unix_s))
            .not_valid_after(moment(not_after_unix_s))
        )
        if ca is not None:
            builder = builder.add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
        if usages is not None:
            builder = builder.add_extension(x509.ExtendedKeyUsage(list(usages)), critical=False)
        for extension, critical in extensions:
            builder = builder.add_extension(extension, critical=critical)
        return der(builder.sign(self.root_key, hashes.SHA256()))
