"""Prekeys: X25519 keys that a device signs in advance, so that others can seal to it while it is off.

What the caller must persist: the private half, durably, before the signed prekey
is sent; with it the first plan hash it is bound to. It is erased when answered, when
the cohort ends, or at `not_after`. All private halves and the record of answers live
in one store: if that is lost, a new epoch begins and no earlier prekey is used.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from nightshift.protocol.domains import Domain, frame
from nightshift.protocol.errors import MalformedError, VerificationError
from nightshift.protocol.identity import DeviceId, device_id
from nightshift.protocol.identity import verify as verify_signature
from nightshift.protocol.secagg.device import Sign
from nightshift.protocol.secagg.sampling import Randomness, draw
from nightshift.protocol.secagg.sealing import X25519_KEY_BYTES, load_prekey

MAX_LIFETIME_S = 14 * 24 * 3600
PREKEYS_KEPT = 8
"""How many unspent prekeys a device tops up to at each contact."""

_U64 = 1 << 64


@dataclass(frozen=True, slots=True)
class SignedPrekey:
    """A prekey as it is published.

    Attributes:
        device_id: whose it is.
        serial: counts this device's prekeys within an epoch.
        epoch: raised when the device lost its store; older epochs are dead.
        not_after: unix time in seconds after which it is not used.
        public: X25519 public key, 32 bytes.
        signature: of `prekey_message`, 64 bytes.
    """

    device_id: DeviceId
    serial: int
    epoch: int
    not_after: int
    public: bytes
    signature: bytes


def prekey_message(device: DeviceId, serial: int, epoch: int, not_after: int, public: bytes) -> bytes:
    """What a device signs: domain ‖ device id ‖ serial ‖ epoch ‖ not_after (u64, big endian) ‖ public.

    Raises:
        MalformedError: a number does not fit 64 bits.
    """
    if not all(0 <= number < _U64 for number in (serial, epoch, not_after)):
        raise MalformedError("a prekey's serial, epoch and not_after must fit 64 bits")
    numbers = (struct.pack(">Q", number) for number in (serial, epoch, not_after))
    return frame(Domain.PREKEY, device, *numbers, public)


def new_prekey(
    *, device: DeviceId, serial: int, epoch: int, not_after: int, sign: Sign, randomness: Randomness
) -> tuple[bytes, SignedPrekey]:
    """Make a prekey: (private half, 32 bytes; what is published).

    Args:
        device: this device.
        serial: not used before in this epoch.
        epoch: of this device's store.
        not_after: unix seconds, at most 14 days ahead.
        sign: with this device's identity key.
        randomness: `os.urandom`.
    """
    private = draw(randomness, X25519_KEY_BYTES)
    public = X25519PrivateKey.from_private_bytes(private).public_key().public_bytes_raw()
    signature = sign(prekey_message(device, serial, epoch, not_after, public))
    return private, SignedPrekey(
        device_id=device, serial=serial, epoch=epoch, not_after=not_after, public=public, signature=signature
    )


def verify(prekey: SignedPrekey, public_key: ec.EllipticCurvePublicKey, now: int | None = None) -> None:
    """Check a prekey.

    Args:
        prekey: as published.
        public_key: of the device that it claims.
        now: unix seconds; None skips the checks of time (a plan's prekeys are judged
            against its final answer deadline by the caller).

    Raises:
        MalformedError: the key is not the device's, of low order, or a number is out of range.
        SignatureInvalidError: the device did not sign it.
        VerificationError: expired, or valid for more than 14 days.
    """
    if device_id(public_key) != prekey.device_id:
        raise MalformedError(f"the key given for the prekey of {prekey.device_id.hex()} is another device's")
    message = prekey_message(prekey.device_id, prekey.serial, prekey.epoch, prekey.not_after, prekey.public)
    verify_signature(public_key, prekey.signature, message, what="a prekey's signature")
    load_prekey(prekey.public)
    if now is None:
        return
    if prekey.not_after <= now:
        raise VerificationError(
            f"prekey {prekey.serial} of {prekey.device_id.hex()} expired at {prekey.not_after}, now is {now}"
        )
    if prekey.not_after > now + MAX_LIFETIME_S:
        raise VerificationError(
            f"prekey {prekey.serial} of {prekey.device_id.hex()} is valid for more than {MAX_LIFETIME_S} s"
        )
