"""The frozen set U: who is in the sum, what each of them signed, and the hash that everybody signs for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from nightshift.protocol.domains import Domain, digest, frame
from nightshift.protocol.errors import MalformedError
from nightshift.protocol.identity import DEVICE_ID_BYTES, DeviceId

HASH_BYTES = 32
CIPHERTEXT_TAG_BYTES = 16


@dataclass(frozen=True, slots=True)
class Contributor:
    """One entry of U: all that a contributor signed.

    Attributes:
        device_id: 32 bytes.
        ciphertext_tag: 16 bytes, of `contribution.ciphertext_tag`.
        sealed_sha256: 32 bytes for each member, in index order 1..C.
    """

    device_id: DeviceId
    ciphertext_tag: bytes
    sealed_sha256: tuple[bytes, ...]


def contribution_message(plan_hash: bytes, contributor: Contributor) -> bytes:
    """What a contributor signs, once: domain ‖ H ‖ sender ‖ tag ‖ SHA-256(sealed_1) .. SHA-256(sealed_C).

    Without it the coordinator could swap a device's shares for ones it knows and so learn the
    other devices' keys from the members' sum. One signature binds all shares to each other, so
    that two members that accept a contributor hold shares of one and the same list.
    """
    return frame(
        Domain.CONTRIBUTION,
        plan_hash,
        contributor.device_id,
        contributor.ciphertext_tag,
        *contributor.sealed_sha256,
    )


def check_entry(contributor: Contributor, committee_size: int) -> None:
    """Check the lengths of an entry.

    Raises:
        MalformedError: an id, a tag or a hash of the wrong length, or not one hash for each member.
    """
    if len(contributor.device_id) != DEVICE_ID_BYTES:
        raise MalformedError(f"a contributor's id has {len(contributor.device_id)} bytes, expected {DEVICE_ID_BYTES}")
    if len(contributor.ciphertext_tag) != CIPHERTEXT_TAG_BYTES:
        raise MalformedError(
            f"a contributor's ciphertext tag has {len(contributor.ciphertext_tag)} bytes, "
            f"expected {CIPHERTEXT_TAG_BYTES}"
        )
    if len(contributor.sealed_sha256) != committee_size or any(
        len(item) != HASH_BYTES for item in contributor.sealed_sha256
    ):
        raise MalformedError(
            f"a contributor's entry does not carry one {HASH_BYTES}-byte hash for each of {committee_size} members"
        )


def set_hash(plan_hash: bytes, contributors: Sequence[Contributor]) -> bytes:
    """hash(U) = SHA-256(domain ‖ H ‖ entries sorted by device id): 32 bytes.

    An entry is device id ‖ tag of the ciphertext ‖ SHA-256(sealed_1) .. SHA-256(sealed_C).

    Raises:
        MalformedError: a device stands twice in the set, or an entry's fields are of the wrong number or length.
    """
    ordered = sorted(contributors, key=lambda contributor: contributor.device_id)
    entries: list[bytes] = []
    for contributor in ordered:
        check_entry(contributor, committee_size=len(ordered[0].sealed_sha256))
        entries.append(contributor.device_id + contributor.ciphertext_tag + b"".join(contributor.sealed_sha256))
    for before, after in pairwise(ordered):
        if before.device_id == after.device_id:
            raise MalformedError(
                f"device {after.device_id.hex()} stands twice in the set of contributors; expected distinct devices"
            )
    return digest(Domain.SET_HASH, plan_hash, *entries)
