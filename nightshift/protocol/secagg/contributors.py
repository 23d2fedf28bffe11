"""The frozen set U: who is in the sum, and the hash that everybody signs for."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from nightshift.protocol.domains import Domain, digest
from nightshift.protocol.errors import MalformedError
from nightshift.protocol.identity import DEVICE_ID_BYTES, DeviceId
from nightshift.protocol.secagg.device import HASH_BYTES, Contribution


@dataclass(frozen=True, slots=True)
class Contributor:
    """One entry of U.

    Attributes:
        device_id: 32 bytes.
        ciphertext_sha256: 32 bytes.
        sealed_sha256: 32 bytes for each member, in index order 1..C.
    """

    device_id: DeviceId
    ciphertext_sha256: bytes
    sealed_sha256: tuple[bytes, ...]

    @classmethod
    def of(cls, sender: DeviceId, contribution: Contribution) -> Contributor:
        """The entry of an upload (its shares by ascending index)."""
        return cls(
            device_id=sender,
            ciphertext_sha256=hashlib.sha256(contribution.ciphertext).digest(),
            sealed_sha256=tuple(hashlib.sha256(share.sealed).digest() for share in contribution.shares),
        )


def set_hash(plan_hash: bytes, contributors: Sequence[Contributor]) -> bytes:
    """hash(U) = SHA-256(domain ‖ H ‖ entries sorted by device id): 32 bytes.

    An entry is device id ‖ SHA-256(ciphertext) ‖ SHA-256(sealed_1) .. SHA-256(sealed_C).

    Raises:
        MalformedError: a device stands twice in the set, or an entry has hashes of the wrong number or length.
    """
    ordered = sorted(contributors, key=lambda contributor: contributor.device_id)
    entries: list[bytes] = []
    for contributor in ordered:
        hashes = (contributor.ciphertext_sha256, *contributor.sealed_sha256)
        if len(contributor.device_id) != DEVICE_ID_BYTES or any(len(item) != HASH_BYTES for item in hashes):
            raise MalformedError("an entry of the set of contributors has an id or a hash of the wrong length")
        if len(contributor.sealed_sha256) != len(ordered[0].sealed_sha256):
            raise MalformedError("the entries of the set of contributors are for committees of different sizes")
        entries.append(contributor.device_id + b"".join(hashes))
    for before, after in pairwise(ordered):
        if before.device_id == after.device_id:
            raise MalformedError(
                f"device {after.device_id.hex()} stands twice in the set of contributors; expected distinct devices"
            )
    return digest(Domain.SET_HASH, plan_hash, *entries)
