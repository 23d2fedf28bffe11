"""A published adapter: signed, logged, identified by the digest of its bytes as received."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from google.protobuf.message import DecodeError

from nightshift.protocol.adapters.layout import AdapterLayout
from nightshift.protocol.domains import Domain, digest, frame
from nightshift.protocol.errors import MalformedError
from nightshift.protocol.identity import verify
from nightshift.protocol.log import LogView, task_subject
from nightshift.protocol.plan import (
    HASH_BYTES,
    MAX_NUMBER,
    MAX_TASK_CHARACTERS,
    MAX_UNIX_S,
    N_MIN_FLOOR,
    layout_from_proto,
)
from nightshift.protocol.trust import Trust
from nightshift.v1 import device_pb2, log_pb2, release_pb2

MAX_RELEASE_BYTES = 256 * 1024
MAX_ADAPTER_BYTES = 2**31


@dataclass(frozen=True, slots=True)
class ReleaseDocument:
    """A release whose every field is in range; nothing is proved about it yet.

    Attributes:
        restores: id of the earlier release whose adapter this is again; None for one that was learned.
    """

    task: str
    number: int
    parent: bytes | None
    base_model: bytes
    layout: AdapterLayout
    adapter_sha256: bytes
    adapter_size_bytes: int
    time_unix_s: int
    plan_hashes: tuple[bytes, ...]
    contributors: int
    restores: bytes | None

    @classmethod
    def parse(cls, release_bytes: bytes) -> ReleaseDocument:
        """Read a release.

        Raises:
            MalformedError: not a release, or a field out of range; names it.
        """
        if len(release_bytes) > MAX_RELEASE_BYTES:
            raise MalformedError(f"a release may take {MAX_RELEASE_BYTES} bytes, got {len(release_bytes)}")
        try:
            message = release_pb2.Release.FromString(release_bytes)
        except DecodeError as error:
            raise MalformedError("a release could not be read; its bytes are damaged") from error
        hashes = [message.base_model, message.adapter_sha256, *message.plan_hashes]
        if any(len(item) != HASH_BYTES for item in hashes):
            raise MalformedError("a release names a hash that is not of 32 bytes")
        if len(set(message.plan_hashes)) != len(message.plan_hashes) or (message.plan_hashes and not message.number):
            raise MalformedError("a release names the plan of each cohort once, and number 0 none")
        if message.contributors < N_MIN_FLOOR * len(message.plan_hashes):
            raise MalformedError(
                f"a release says that {len(message.plan_hashes)} cohorts had {message.contributors} contributors; "
                f"a sum over fewer than {N_MIN_FLOOR} is never opened"
            )
        if message.restores and (
            len(message.restores) != HASH_BYTES or not message.number or message.plan_hashes or message.contributors
        ):
            raise MalformedError(
                "a release that restores an earlier one names it by 32 bytes, has a number above 0, and holds no sums"
            )
        if len(message.parent) != (HASH_BYTES if message.number else 0):
            raise MalformedError("a release must name its parent, except number 0, which has none")
        if not (0 < len(message.task) <= MAX_TASK_CHARACTERS and message.task.isprintable()):
            raise MalformedError(f"a release's task must be 1 to {MAX_TASK_CHARACTERS} printable characters")
        if message.number > MAX_NUMBER or not 0 < message.time_unix_s <= MAX_UNIX_S:
            raise MalformedError(
                f"a release's number {message.number} or time_unix_s {message.time_unix_s} is outside the range"
            )
        if not 0 < message.adapter_size_bytes <= MAX_ADAPTER_BYTES:
            raise MalformedError(f"a release's adapter has {message.adapter_size_bytes} bytes, outside the range")
        return cls(
            task=message.task,
            number=message.number,
            parent=message.parent or None,
            base_model=message.base_model,
            layout=layout_from_proto(message.layout),
            adapter_sha256=message.adapter_sha256,
            adapter_size_bytes=message.adapter_size_bytes,
            time_unix_s=message.time_unix_s,
            plan_hashes=tuple(message.plan_hashes),
            contributors=message.contributors,
            restores=message.restores or None,
        )


@dataclass(frozen=True, slots=True)
class VerifiedRelease:
    """A release that the coordinator signed and logged."""

    document: ReleaseDocument
    release_id: bytes
    release_bytes: bytes


def release_id(release_bytes: bytes) -> bytes:
    """The release's id: 32 bytes."""
    return digest(Domain.RELEASE_ID, release_bytes)


def sign_release(release_bytes: bytes, sign: Callable[[bytes], bytes]) -> bytes:
    """The coordinator's signature over a release's bytes."""
    return sign(frame(Domain.RELEASE_SIGNATURE, release_bytes))


def verify_release(offer: device_pb2.ReleaseOffer, *, view: LogView, trust: Trust) -> VerifiedRelease:
    """Check a release as offered.

    Raises:
        SignatureInvalidError: not made by the signing key.
        MalformedError: unreadable or out of range.
        LogInconsistentError: the log does not hold it.
    """
    verify(
        trust.signing_key,
        offer.signature,
        frame(Domain.RELEASE_SIGNATURE, offer.release),
        what="the release's signature",
    )
    document = ReleaseDocument.parse(offer.release)
    identifier = release_id(offer.release)
    view.require(
        offer.proof,
        kind=log_pb2.LOG_ENTRY_KIND_RELEASE,
        subject=task_subject(document.task),
        digest=identifier,
    )
    return VerifiedRelease(document, identifier, offer.release)
