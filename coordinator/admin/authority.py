"""The admin authority: it issues operators' certificates and nothing else.

It does not stand below the root that devices trust, so that no certificate of
a device passes the handshake of the admin listener, and none of an operator
that of the device listener.

::

    keys/admin-authority.pem   key and certificate, mode 0600
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID

from coordinator.enrolment import issuing
from coordinator.enrolment.issuing import BACKDATING, Issuer
from coordinator.enrolment.key_files import certificates_pem, read_pair, write_pair
from nightshift.protocol import identity

ADMIN_AUTHORITY = "admin-authority.pem"
LIFETIME = timedelta(days=3650)


@dataclass(frozen=True, slots=True)
class AdminAuthority:
    """As read from the keys directory."""

    issuer: Issuer

    @classmethod
    def create(cls, keys: Path, now_unix_s: int) -> AdminAuthority:
        """Make its key and certificate."""
        key = issuing.new_key()
        name = "Nightshift operators " + identity.device_id(key.public_key()).hex()[:16]
        certificate = issuing.self_signed_root(key, name, datetime.fromtimestamp(now_unix_s, UTC), LIFETIME)
        write_pair(keys / ADMIN_AUTHORITY, key, certificate)
        return cls(Issuer(certificate, key))

    @classmethod
    def load(cls, keys: Path) -> AdminAuthority:
        """Read what `create` made.

        Raises:
            UsageError: absent, readable by others, or damaged.
        """
        key, (certificate, *_) = read_pair(keys / ADMIN_AUTHORITY)
        return cls(Issuer(certificate, key))

    @property
    def certificate_pem(self) -> bytes:
        """What the admin listener asks its callers' certificates to stand below."""
        return certificates_pem(self.issuer.certificate)

    def issue(self, public_key: ec.EllipticCurvePublicKey, name: str, now_unix_s: int, days: int) -> x509.Certificate:
        """A certificate for an operator's key."""
        now = datetime.fromtimestamp(now_unix_s, UTC)
        return issuing.leaf(
            self.issuer,
            public_key,
            subject=name,
            usage=ExtendedKeyUsageOID.CLIENT_AUTH,
            not_before=now - BACKDATING,
            not_after=now + timedelta(days=days),
        )
