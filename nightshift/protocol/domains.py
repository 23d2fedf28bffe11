"""Every domain string of the protocol, and the one way bytes are framed under it.

A signature, a hash, a key derivation and an AEAD input each begin with a
domain string of their own, so that bytes made for one purpose can never be
presented for another. The fields that follow are length-prefixed (u32, big
endian), so that two different lists of fields never frame to the same bytes.
"""

from __future__ import annotations

import hashlib
import struct
from enum import Enum

MAX_FIELD_BYTES = 0xFFFFFFFF


class Domain(Enum):
    """The table of domain strings. The value travels, the name does not."""

    PLAN_HASH = "nightshift/v1/plan-hash"
    PLAN_SIGNATURE = "nightshift/v1/plan-signature"
    PUBLIC_MATRIX = "nightshift/v1/public-matrix"
    PREKEY = "nightshift/v1/prekey"
    SHARE_SEAL = "nightshift/v1/share-seal"
    CIPHERTEXT_TAG = "nightshift/v1/ciphertext-tag"
    CONTRIBUTION = "nightshift/v1/contribution"
    SET_HASH = "nightshift/v1/set-hash"
    ANSWER = "nightshift/v1/answer"
    ERASURE = "nightshift/v1/erasure"
    REFUSAL = "nightshift/v1/refusal"
    COMMITTEE_DRAW = "nightshift/v1/committee-draw"
    COMMITTEE_SEED = "nightshift/v1/committee-seed"
    LOG_HEAD = "nightshift/v1/log-head"
    RELEASE_ID = "nightshift/v1/release-id"
    RELEASE_SIGNATURE = "nightshift/v1/release-signature"
    DECISION_ID = "nightshift/v1/decision-id"
    DECISION_SIGNATURE = "nightshift/v1/decision-signature"
    REVOCATION_LIST = "nightshift/v1/revocation-list"
    RENEWAL_CHALLENGE = "nightshift/v1/renewal-challenge"
    RENEWAL_PROOF = "nightshift/v1/renewal-proof"
    ADDRESSES = "nightshift/v1/addresses"
    RELEASE_ROOT = "nightshift/v1/release-root"
    ADAPTER_SEED = "nightshift/v1/adapter-seed"
    ROTATION = "nightshift/v1/rotation"


def frame(domain: Domain, *fields: bytes) -> bytes:
    """Return the domain string and the fields, each behind a u32 big-endian length.

    Raises:
        ValueError: a field is longer than a u32 can say.
    """
    parts = [domain.value.encode("ascii"), *fields]
    for part in parts:
        if len(part) > MAX_FIELD_BYTES:
            raise ValueError(f"a framed field may hold {MAX_FIELD_BYTES} bytes, got {len(part)}")
    return b"".join(struct.pack(">I", len(part)) + part for part in parts)


def digest(domain: Domain, *fields: bytes) -> bytes:
    """SHA-256 (FIPS 180-4) over the framed fields: 32 bytes."""
    return hashlib.sha256(frame(domain, *fields)).digest()


def u32(value: int) -> bytes:
    """A number as a fixed-width field: 4 bytes, big endian."""
    return struct.pack(">I", value)


def u64(value: int) -> bytes:
    """A number as a fixed-width field: 8 bytes, big endian."""
    return struct.pack(">Q", value)
