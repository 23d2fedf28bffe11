"""What a device does: encrypt its vector, share the key, and fall silent.

The device speaks once. It draws a fresh key s, encrypts
C_j = A_j s + e_j + 2^noise_bits M_j, and seals one Shamir share of s to each
committee member. Afterwards it forgets s; nobody needs the device again.

What the caller must persist: the returned `Contribution`, fsynced, together
with (task, parent release), before the first byte is sent. A retry sends those
bytes; calling `contribute` again for the same parent would let a coordinator
subtract two sums.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from cryptography.hazmat.primitives.asymmetric import ec

from nightshift.protocol.domains import Domain, frame
from nightshift.protocol.errors import MalformedError, UsageError
from nightshift.protocol.identity import DEVICE_ID_BYTES, DeviceId, verify
from nightshift.protocol.secagg import packing, sharing
from nightshift.protocol.secagg.parameters import RING_DIMENSION, CohortParameters
from nightshift.protocol.secagg.public_matrix import PublicMatrix
from nightshift.protocol.secagg.ring import Multiplier
from nightshift.protocol.secagg.sampling import Randomness, centred_binomial, draw, stretch
from nightshift.protocol.secagg.sealing import load_prekey, seal, seal_info

HASH_BYTES = 32
BATCH = 8
"""Polynomials worked on at a time: 256 KiB of coefficients, so that the temporaries stay in L2."""

Sign = Callable[[bytes], bytes]
"""message -> signature, as `nightshift.protocol.identity.sign` makes them."""


@dataclass(frozen=True, slots=True)
class MemberKey:
    """A committee member as the plan names it.

    Attributes:
        index: x of the member's share, 1..C.
        device_id: 32 bytes.
        prekey: X25519 public key, 32 bytes.
    """

    index: int
    device_id: DeviceId
    prekey: bytes


@dataclass(frozen=True, slots=True)
class SealedShare:
    """One member's share of the key, as the device sends it.

    Attributes:
        index: the member's, 1..C.
        sealed: `CohortParameters.sealed_share_bytes` bytes.
        signature: of `share_signature_message`, 64 bytes.
    """

    index: int
    sealed: bytes
    signature: bytes


@dataclass(frozen=True, slots=True)
class Contribution:
    """Everything a device uploads.

    Attributes:
        ciphertext: `CohortParameters.ciphertext_bytes(length)` bytes.
        shares: one for each member, by ascending index.
    """

    ciphertext: bytes
    shares: tuple[SealedShare, ...]


def share_signature_message(
    plan_hash: bytes, sender: DeviceId, member: DeviceId, sealed_sha256: bytes, ciphertext_sha256: bytes
) -> bytes:
    """What the sender signs for each member: domain ‖ H ‖ sender ‖ member ‖ both hashes.

    Without it the coordinator could swap a device's shares for ones it knows and
    so learn the other device's key from the members' sum.
    """
    return frame(Domain.SHARE_SIGNATURE, plan_hash, sender, member, sealed_sha256, ciphertext_sha256)


def check_members(parameters: CohortParameters, members: Sequence[MemberKey]) -> None:
    """Check that a committee is well formed.

    Raises:
        MalformedError: not exactly C members, indexes not 1..C in order, a repeated
            device or prekey, an id of the wrong length, or a prekey of low order.
    """
    expected = list(range(1, parameters.committee_size + 1))
    if [member.index for member in members] != expected:
        raise MalformedError(
            f"a committee lists its members by index 1..{parameters.committee_size}, "
            f"got {[member.index for member in members][:40]}"
        )
    if any(len(member.device_id) != DEVICE_ID_BYTES for member in members):
        raise MalformedError(f"a committee member's device id must have {DEVICE_ID_BYTES} bytes")
    if len({member.device_id for member in members}) != len(members):
        raise MalformedError("a device stands twice in the committee; its shares would count twice")
    if len({member.prekey for member in members}) != len(members):
        raise MalformedError("two committee members have the same prekey; one of them is not who it claims to be")
    for member in members:
        load_prekey(member.prekey)


def contribute(
    *,
    parameters: CohortParameters,
    plan_hash: bytes,
    sender: DeviceId,
    members: Sequence[MemberKey],
    values: npt.NDArray[np.uint64],
    sign: Sign,
    randomness: Randomness,
) -> Contribution:
    """Encrypt a vector and seal the shares of its key.

    Args:
        parameters: of the cohort.
        plan_hash: H, 32 bytes.
        sender: this device.
        members: the committee, by index.
        values: uint64[D], each below 2^value_bits, from `VectorLayout.encode`.
        sign: with this device's identity key.
        randomness: `os.urandom`. Only HPKE's ephemeral keys come from elsewhere, from the library.

    Raises:
        MalformedError: the committee is not well formed.
        UsageError: a value does not fit, or the vector is empty or too long.
    """
    check_members(parameters, members)
    if values.ndim != 1 or values.dtype != np.uint64:
        raise UsageError(f"values must be a uint64 vector, got {values.dtype}{list(values.shape)}")
    parameters.polynomials(len(values))
    if int(values.max()) >> parameters.value_bits:
        raise UsageError(f"a value does not fit {parameters.value_bits} bits; its slot could overflow in the sum")
    secret = centred_binomial(np.frombuffer(draw(randomness, 8 * RING_DIMENSION), dtype="<u8"))
    ciphertext = _encrypt(parameters, plan_hash, secret, values, randomness)
    ciphertext_sha256 = hashlib.sha256(ciphertext).digest()
    shares: list[SealedShare] = []
    for member, vector in zip(members, sharing.split(secret, parameters, randomness), strict=True):
        info = seal_info(plan_hash, sender, member.device_id)
        sealed = seal(sharing.to_bytes(vector, parameters), member.prekey, info)
        message = share_signature_message(
            plan_hash, sender, member.device_id, hashlib.sha256(sealed).digest(), ciphertext_sha256
        )
        shares.append(SealedShare(index=member.index, sealed=sealed, signature=sign(message)))
    return Contribution(ciphertext=ciphertext, shares=tuple(shares))


def _encrypt(
    parameters: CohortParameters,
    plan_hash: bytes,
    secret: npt.NDArray[np.int64],
    values: npt.NDArray[np.uint64],
    randomness: Randomness,
) -> bytes:
    """C_j = A_j s + e_j + 2^noise_bits M_j, packed."""
    count = parameters.polynomials(len(values))
    matrix = PublicMatrix(plan_hash)
    product = Multiplier(secret, parameters.modulus_bits)
    noise = stretch(randomness)
    packed = np.empty((count, RING_DIMENSION * parameters.modulus_bits // 8), dtype=np.uint8)
    per_polynomial = parameters.values_per_coefficient * RING_DIMENSION
    for first in range(0, count, BATCH):
        rows = min(BATCH, count - first)
        coefficients = product.times(matrix.take(rows))
        words = noise.take(8 * RING_DIMENSION * rows).view("<u8").reshape(rows, RING_DIMENSION)
        coefficients += centred_binomial(words).view(np.uint64)
        part = values[first * per_polynomial : (first + rows) * per_polynomial]
        coefficients += _slots(parameters, part, rows)
        packing.pack_into(coefficients, parameters.modulus_bits, packed[first : first + rows])
    return packed.tobytes()


def _slots(parameters: CohortParameters, values: npt.NDArray[np.uint64], rows: int) -> npt.NDArray[np.uint64]:
    """2^noise_bits M: k values to a coefficient, lowest slot first, padded with zeros: uint64[rows, N]."""
    per_coefficient = parameters.values_per_coefficient
    wanted = rows * RING_DIMENSION * per_coefficient
    if len(values) < wanted:
        values = np.concatenate([values, np.zeros(wanted - len(values), dtype=np.uint64)])
    slots = values.reshape(rows, RING_DIMENSION, per_coefficient)
    message = slots[..., 0] << np.uint64(parameters.noise_bits)
    for slot in range(1, per_coefficient):
        message |= slots[..., slot] << np.uint64(parameters.noise_bits + slot * parameters.slot_bits)
    return message


def verify_shares(
    *,
    parameters: CohortParameters,
    length: int,
    plan_hash: bytes,
    sender: DeviceId,
    public_key: ec.EllipticCurvePublicKey,
    members: Sequence[MemberKey],
    contribution: Contribution,
) -> None:
    """What the coordinator checks when an upload is complete, before it folds it.

    Args:
        parameters: of the cohort.
        length: D, from the plan.
        plan_hash: H, 32 bytes.
        sender: the uploading device.
        public_key: of the sender.
        members: the committee, by index.
        contribution: the upload.

    Raises:
        MalformedError: the ciphertext or a share has the wrong size, or indexes are not 1..C.
        SignatureInvalidError: a signature over SHA-256(sealed) and SHA-256(ciphertext) is wrong.
    """
    expected = parameters.ciphertext_bytes(length)
    if len(contribution.ciphertext) != expected:
        raise MalformedError(f"a ciphertext has {len(contribution.ciphertext)} bytes, expected {expected}")
    verify_share_signatures(
        parameters=parameters,
        plan_hash=plan_hash,
        sender=sender,
        public_key=public_key,
        members=members,
        shares=contribution.shares,
        ciphertext_sha256=hashlib.sha256(contribution.ciphertext).digest(),
    )


def verify_share_signatures(
    *,
    parameters: CohortParameters,
    plan_hash: bytes,
    sender: DeviceId,
    public_key: ec.EllipticCurvePublicKey,
    members: Sequence[MemberKey],
    shares: Sequence[SealedShare],
    ciphertext_sha256: bytes,
) -> None:
    """`verify_shares` for a ciphertext that was hashed, and its size checked, while it streamed in.

    Raises:
        MalformedError: a share has the wrong size, or indexes are not 1..C.
        SignatureInvalidError: a signature is wrong.
    """
    expected = list(range(1, parameters.committee_size + 1))
    if [share.index for share in shares] != expected:
        raise MalformedError(
            f"a contribution lists its shares by index 1..{parameters.committee_size}, "
            f"got {[share.index for share in shares][:40]}"
        )
    for share, member in zip(shares, members, strict=True):
        if len(share.sealed) != parameters.sealed_share_bytes:
            raise MalformedError(
                f"the sealed share for member {share.index} has {len(share.sealed)} bytes, "
                f"expected {parameters.sealed_share_bytes}"
            )
        message = share_signature_message(
            plan_hash, sender, member.device_id, hashlib.sha256(share.sealed).digest(), ciphertext_sha256
        )
        verify(public_key, share.signature, message, what=f"the signature of the share for member {share.index}")
