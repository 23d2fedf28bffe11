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

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from nightshift.protocol.errors import MalformedError, UsageError
from nightshift.protocol.identity import DEVICE_ID_BYTES, DeviceId
from nightshift.protocol.secagg import packing, sharing
from nightshift.protocol.secagg.contribution import Contribution, entry_of
from nightshift.protocol.secagg.contributors import contribution_message
from nightshift.protocol.secagg.parameters import RING_DIMENSION, CohortParameters
from nightshift.protocol.secagg.public_matrix import PublicMatrix
from nightshift.protocol.secagg.ring import Multiplier
from nightshift.protocol.secagg.sampling import Randomness, centred_binomial, draw, stretch
from nightshift.protocol.secagg.sealing import load_prekey, seal, seal_info

BATCH = 4
"""Polynomials worked on at a time: 128 KiB of coefficients, so that five such temporaries stay in an L2 of 1 MiB."""

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
    sealed = tuple(
        seal(sharing.to_bytes(vector, parameters), member.prekey, seal_info(plan_hash, sender, member.device_id))
        for member, vector in zip(members, sharing.split(secret, parameters, randomness), strict=True)
    )
    unsigned = Contribution(ciphertext, sealed, signature=b"")
    return replace(unsigned, signature=sign(contribution_message(plan_hash, entry_of(plan_hash, sender, unsigned))))


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
    encrypted = np.empty((count, RING_DIMENSION), dtype=np.uint64)
    per_polynomial = parameters.values_per_coefficient * RING_DIMENSION
    for first in range(0, count, BATCH):
        rows = min(BATCH, count - first)
        coefficients = product.times(matrix.take(rows))
        words = noise.take(8 * RING_DIMENSION * rows).view("<u8").reshape(rows, RING_DIMENSION)
        coefficients += centred_binomial(words).view(np.uint64)
        part = values[first * per_polynomial : (first + rows) * per_polynomial]
        np.add(coefficients, _slots(parameters, part, rows), out=encrypted[first : first + rows])
    return packing.pack(encrypted.reshape(-1), parameters.words(len(values)))


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
