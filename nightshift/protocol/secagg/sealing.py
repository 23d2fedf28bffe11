"""Sealing a share to one member: HPKE (RFC 9180), base mode, empty AAD.

DHKEM(X25519, HKDF-SHA256), HKDF-SHA256, ChaCha20-Poly1305. The info string binds the
share to plan, sender and member, so that a sealed share opens nowhere else.
"""

from __future__ import annotations

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hpke
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey

from nightshift.protocol.domains import Domain, frame
from nightshift.protocol.errors import MalformedError
from nightshift.protocol.identity import DeviceId
from nightshift.protocol.secagg.parameters import CohortParameters

X25519_KEY_BYTES = 32
_SUITE = hpke.Suite(hpke.KEM.X25519, hpke.KDF.HKDF_SHA256, hpke.AEAD.CHACHA20_POLY1305)
_FIELD_MODULUS = 2**255 - 19
# Any scalar does: X25519 clears the cofactor, so a low-order point gives zero under every one.
_PROBE = X25519PrivateKey.from_private_bytes(bytes(range(X25519_KEY_BYTES)))


def load_prekey(public: bytes) -> X25519PublicKey:
    """Read an X25519 public key (RFC 7748): 32 bytes, canonical, not of low order.

    Raises:
        MalformedError: wrong length, not below 2^255 - 19, or a low-order point.
    """
    if len(public) != X25519_KEY_BYTES:
        raise MalformedError(f"a prekey has {len(public)} bytes, expected {X25519_KEY_BYTES}")
    if int.from_bytes(public, "little") >= _FIELD_MODULUS:
        raise MalformedError("a prekey is not in canonical form (RFC 7748, section 5)")
    key = X25519PublicKey.from_public_bytes(public)
    try:
        _PROBE.exchange(key)
    except ValueError as error:
        raise MalformedError("a prekey is a low-order point; whoever published it knows every secret") from error
    return key


def seal_info(plan_hash: bytes, sender: DeviceId, member: DeviceId) -> bytes:
    """HPKE info: domain ‖ H ‖ sender ‖ member."""
    return frame(Domain.SHARE_SEAL, plan_hash, sender, member)


def seal(share: bytes, prekey: bytes, info: bytes) -> bytes:
    """Seal to a prekey that `load_prekey` accepted: encapsulated key ‖ ciphertext ‖ tag.

    The library draws the ephemeral key.
    """
    return _SUITE.encrypt(share, X25519PublicKey.from_public_bytes(prekey), info=info)


def open_sealed(sealed: bytes, prekey_private: bytes, info: bytes, parameters: CohortParameters) -> bytes:
    """Open a sealed share.

    Args:
        sealed: bytes from the other side.
        prekey_private: 32 bytes.
        info: what `seal_info` gives for this plan, sender and member.
        parameters: give the exact size.

    Raises:
        MalformedError: wrong size, or it does not open under this key and info.
    """
    if len(sealed) != parameters.sealed_share_bytes:
        raise MalformedError(f"a sealed share has {len(sealed)} bytes, expected {parameters.sealed_share_bytes}")
    try:
        return _SUITE.decrypt(sealed, X25519PrivateKey.from_private_bytes(prekey_private), info=info)
    except (InvalidTag, ValueError) as error:
        raise MalformedError("a sealed share does not open under this prekey, plan, sender and member") from error
