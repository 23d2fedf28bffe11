"""Who this device is, and to which coordinator it belongs.

The private key is made here, never leaves, and is a file of its own, so that a
lost database does not lose the identity. Everything that `join` brings back is
one file, replaced as a whole: there is no moment at which a certificate of one
coordinator stands beside the root of another.
"""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass, replace
from typing import Any

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from edge_client.home import Home
from nightshift.host.files import read_private, write_atomic
from nightshift.protocol.errors import NotJoinedError, UsageError
from nightshift.protocol.identity import DeviceId, device_id, sign

_VERSION = 1
_BINARY = ("certificate", "root", "signing_certificate", "next_certificate", "release_root")
_TEXT = ("join_address", "device_address", "log_origin", "device_name")


@dataclass(frozen=True, slots=True)
class Identity:
    """The device's key."""

    private_key: ec.EllipticCurvePrivateKey

    def __repr__(self) -> str:
        return f"Identity({self.device_id.hex()[:16]}…)"

    @property
    def device_id(self) -> DeviceId:
        """32 bytes: SHA-256 of the public key."""
        return device_id(self.private_key.public_key())

    def sign(self, message: bytes) -> bytes:
        """64 bytes, deterministic (nightshift.protocol.identity)."""
        return sign(self.private_key, message)

    def certificate_request(self) -> bytes:
        """PKCS #10 (RFC 2986), DER; deterministic, so that a retry is the same request byte for byte."""
        from cryptography import x509
        from cryptography.hazmat.primitives import hashes
        from cryptography.x509.oid import NameOID

        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, self.device_id.hex())])
        builder = x509.CertificateSigningRequestBuilder().subject_name(subject)
        signed = builder.sign(self.private_key, hashes.SHA256(), ecdsa_deterministic=True)
        return signed.public_bytes(serialization.Encoding.DER)

    def private_key_pem(self) -> bytes:
        """The key as gRPC wants it. Never log it."""
        return self.private_key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )


@dataclass(frozen=True, slots=True)
class Membership:
    """What `join` brought back; certificates are DER.

    Attributes:
        certificate: this device's.
        root: the coordinator's root; the only one that is trusted.
        signing_certificate: of the key that signs plans, checkpoints and releases.
        join_address: host:port without client certificates.
        device_address: host:port over mutual TLS.
        log_origin: name of the transparency log.
        device_name: for people.
        joined_unix_s: when.
        next_certificate: renewed, and not yet known to work; empty for none.
        release_root: first root of the release metadata that this device trusts (TUF, JSON).
    """

    certificate: bytes
    root: bytes
    signing_certificate: bytes
    join_address: str
    device_address: str
    log_origin: str
    device_name: str
    joined_unix_s: int
    next_certificate: bytes = b""
    release_root: bytes = b""


def load_identity(home: Home) -> Identity | None:
    """Read the key, None if there is none yet.

    Raises:
        UsageError: others can read the file, or it is no P-256 key.
    """
    if not home.key_file.exists():
        return None
    pem = read_private(home.key_file)
    try:
        key = serialization.load_pem_private_key(pem, password=None)
    except (ValueError, TypeError) as error:
        raise UsageError(f"{home.key_file} is not a private key in PEM form; restore it or join again") from error
    if not isinstance(key, ec.EllipticCurvePrivateKey) or not isinstance(key.curve, ec.SECP256R1):
        raise UsageError(f"{home.key_file} is a key of another kind, expected P-256; join again with a new home")
    return Identity(key)


def create_identity(home: Home) -> Identity:
    """Make a key and keep it, mode 0600."""
    identity = Identity(ec.generate_private_key(ec.SECP256R1()))
    write_atomic(home.key_file, identity.private_key_pem(), mode=0o600)
    return identity


def load_membership(home: Home) -> Membership | None:
    """Read what `join` brought back, None before the first join.

    Raises:
        UsageError: the file is not what this program wrote.
    """
    try:
        data = json.loads(home.membership_file.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise _unreadable(home) from error
    try:
        if data["version"] != _VERSION:
            raise _unreadable(home)
        fields: dict[str, Any] = {name: base64.b64decode(data[name], validate=True) for name in _BINARY}
        fields |= {name: str(data[name]) for name in _TEXT}
        return Membership(**fields, joined_unix_s=int(data["joined_unix_s"]))
    except (KeyError, TypeError, ValueError) as error:
        raise _unreadable(home) from error


def save_membership(home: Home, membership: Membership) -> None:
    """Replace the file as a whole."""
    data: dict[str, object] = {"version": _VERSION, "joined_unix_s": membership.joined_unix_s}
    data |= {name: base64.b64encode(getattr(membership, name)).decode("ascii") for name in _BINARY}
    data |= {name: getattr(membership, name) for name in _TEXT}
    write_atomic(home.membership_file, json.dumps(data, indent=1).encode() + b"\n")


def update_membership(home: Home, **changes: Any) -> Membership:
    """Change some fields of what is on the disk now; for the holder of the home's lock.

    Raises:
        NotJoinedError: there is nothing to change.
    """
    _, present = require_joined(home)
    changed = replace(present, **changes)
    save_membership(home, changed)
    return changed


def require_joined(home: Home) -> tuple[Identity, Membership]:
    """The key and the membership.

    Raises:
        NotJoinedError: this device has not joined yet.
    """
    identity, membership = load_identity(home), load_membership(home)
    if identity is None or membership is None:
        raise NotJoinedError(
            f"this device has not joined a coordinator (home {home.state}); "
            "ask its operator for a token and run: edge-client join TOKEN"
        )
    return identity, membership


def _unreadable(home: Home) -> UsageError:
    return UsageError(f"{home.membership_file} is damaged; move it away and run: edge-client join TOKEN")
