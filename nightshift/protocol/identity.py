"""Who signs: P-256 keys, device ids and signatures.

A device id is the SHA-256 of the public key's SubjectPublicKeyInfo (RFC 5280,
section 4.1.2.7), so whoever holds the key is the device, whatever certificate
says so. Signatures are ECDSA P-256 over SHA-256, deterministic (RFC 6979),
64 bytes r ‖ s big endian, with s in the lower half of the order: one message
and key give one signature, which nobody can alter into a second valid one.
"""

from __future__ import annotations

import hashlib
from typing import NewType

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature

from nightshift.protocol.errors import MalformedError, SignatureInvalidError

DeviceId = NewType("DeviceId", bytes)
"""32 bytes: SHA-256 of the public key's SubjectPublicKeyInfo (DER)."""

DEVICE_ID_BYTES = 32
SIGNATURE_BYTES = 64
MAX_SPKI_BYTES = 512
_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
_SCHEME = ec.ECDSA(hashes.SHA256(), deterministic_signing=True)


def spki(public_key: ec.EllipticCurvePublicKey) -> bytes:
    """The public key as SubjectPublicKeyInfo, DER."""
    return public_key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)


def device_id(public_key: ec.EllipticCurvePublicKey) -> DeviceId:
    """The device id of a public key: 32 bytes."""
    return DeviceId(hashlib.sha256(spki(public_key)).digest())


def load_public_key(der: bytes) -> ec.EllipticCurvePublicKey:
    """Read a P-256 SubjectPublicKeyInfo.

    Raises:
        MalformedError: not a DER public key, or not on P-256.
    """
    if len(der) > MAX_SPKI_BYTES:
        raise MalformedError(f"a P-256 public key takes fewer than {MAX_SPKI_BYTES} bytes, got {len(der)}")
    try:
        key = serialization.load_der_public_key(der)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise MalformedError("a public key could not be read; expected a DER SubjectPublicKeyInfo") from error
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise MalformedError("a public key is of another kind; expected ECDSA on P-256")
    return key


def sign(private_key: ec.EllipticCurvePrivateKey, message: bytes) -> bytes:
    """Sign: 64 bytes r ‖ s, deterministic, low s."""
    r, s = decode_dss_signature(private_key.sign(message, _SCHEME))
    return r.to_bytes(32, "big") + min(s, _ORDER - s).to_bytes(32, "big")


def verify(public_key: ec.EllipticCurvePublicKey, signature: bytes, message: bytes, *, what: str) -> None:
    """Check a signature made by `sign`.

    Args:
        public_key: P-256 key that should have signed.
        signature: 64 bytes r ‖ s with s in the lower half.
        message: the signed bytes.
        what: names the signed thing in the error, "the plan's signature".

    Raises:
        SignatureInvalidError: wrong length, high s, or not made by this key.
    """
    if len(signature) != SIGNATURE_BYTES:
        raise SignatureInvalidError(f"{what} has {len(signature)} bytes, expected {SIGNATURE_BYTES}")
    r, s = int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:], "big")
    if not 0 < s <= _ORDER // 2:
        raise SignatureInvalidError(f"{what} is not in the canonical low-s form")
    try:
        public_key.verify(encode_dss_signature(r, s), message, _SCHEME)
    except (InvalidSignature, ValueError) as error:
        raise SignatureInvalidError(f"{what} was not made by the expected key") from error
