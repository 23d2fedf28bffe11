"""A decision about which release of a task is served: signed, logged, identified by the digest of its bytes.

What devices train on from and what they serve are two things. A round's release is the parent of the next round
at once; that devices *serve* it takes a decision, and going back takes one, too. The decisions of a task are
numbered without a gap in meaning: the one with the highest number holds, and a device accepts no older one again.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

from google.protobuf.message import DecodeError

from nightshift.protocol.domains import Domain, digest, frame
from nightshift.protocol.errors import MalformedError
from nightshift.protocol.identity import verify
from nightshift.protocol.log import LogView, task_subject
from nightshift.protocol.plan import HASH_BYTES, MAX_NUMBER, MAX_TASK_CHARACTERS, MAX_UNIX_S, N_MIN_FLOOR
from nightshift.protocol.trust import Trust
from nightshift.v1 import device_pb2, log_pb2, release_pb2

MAX_DECISION_BYTES = 256 * 1024
MAX_REASON_CHARACTERS = 500


class DecisionKind(Enum):
    """What was decided; the comments of release.proto say what each means."""

    FIRST = release_pb2.DECISION_KIND_FIRST
    UNGATED = release_pb2.DECISION_KIND_UNGATED
    PROMOTED = release_pb2.DECISION_KIND_PROMOTED
    DROPPED = release_pb2.DECISION_KIND_DROPPED
    SET_ASIDE = release_pb2.DECISION_KIND_SET_ASIDE
    PROMOTED_BY_OPERATOR = release_pb2.DECISION_KIND_PROMOTED_BY_OPERATOR
    ROLLED_BACK = release_pb2.DECISION_KIND_ROLLED_BACK

    @property
    def words(self) -> str:
        """For people."""
        return self.name.lower().replace("_", " ")


JUDGED_BY_THE_GATE = frozenset({DecisionKind.PROMOTED, DecisionKind.DROPPED})
"""Kinds that say by which measurement."""


@dataclass(frozen=True, slots=True)
class Measurement:
    """What the devices of one round measured, as sums over all of them say it.

    Attributes:
        plan_hashes: of the cohorts that measured.
        devices: how many devices measured.
        loss_served: mean over devices, nats per answer token, under the release that is served.
        loss_candidate: the same under the candidate.
        devices_better: devices for which the candidate is better.
        share_better: of the devices' weight, 0 to 1.
    """

    plan_hashes: tuple[bytes, ...]
    devices: int
    loss_served: float
    loss_candidate: float
    devices_better: int
    share_better: float


@dataclass(frozen=True, slots=True)
class DecisionDocument:
    """A decision whose every field is in range; nothing is proved about it yet.

    Attributes:
        task: name of the task.
        number: counts up within the task, from 1.
        kind: what was decided.
        served: id of the release that devices serve from now on, 32 bytes.
        served_number: its number.
        judged: id of the release that was judged.
        next_parent: id of the release that the next round trains on from.
        time_unix_s: when.
        reason: a few plain words.
        measurement: by what the gate judged; None where it did not.
    """

    task: str
    number: int
    kind: DecisionKind
    served: bytes
    served_number: int
    judged: bytes
    next_parent: bytes
    time_unix_s: int
    reason: str
    measurement: Measurement | None

    @classmethod
    def parse(cls, decision_bytes: bytes) -> DecisionDocument:
        """Read a decision.

        Raises:
            MalformedError: not a decision, or a field out of range; names it.
        """
        if len(decision_bytes) > MAX_DECISION_BYTES:
            raise MalformedError(f"a decision may take {MAX_DECISION_BYTES} bytes, got {len(decision_bytes)}")
        try:
            message = release_pb2.Decision.FromString(decision_bytes)
        except DecodeError as error:
            raise MalformedError("a decision could not be read; its bytes are damaged") from error
        for name in ("served", "judged", "next_parent"):
            if len(getattr(message, name)) != HASH_BYTES:
                raise MalformedError(f"a decision's {name} must be the {HASH_BYTES} bytes of a release id")
        if not (0 < len(message.task) <= MAX_TASK_CHARACTERS and message.task.isprintable()):
            raise MalformedError(f"a decision's task must be 1 to {MAX_TASK_CHARACTERS} printable characters")
        if not (0 < len(message.reason) <= MAX_REASON_CHARACTERS and message.reason.isprintable()):
            raise MalformedError(f"a decision's reason must be 1 to {MAX_REASON_CHARACTERS} printable characters")
        if not (1 <= message.number <= MAX_NUMBER and message.served_number <= MAX_NUMBER):
            raise MalformedError(f"a decision's number {message.number} or served_number is outside the range")
        if not 0 < message.time_unix_s <= MAX_UNIX_S:
            raise MalformedError(f"a decision's time_unix_s {message.time_unix_s} is outside the range")
        try:
            kind = DecisionKind(message.kind)
        except ValueError as error:
            raise MalformedError(f"a decision's kind {message.kind} is none that this build knows") from error
        if (kind in JUDGED_BY_THE_GATE) != message.HasField("measurement"):
            raise MalformedError("a decision of the gate, and no other, says by which measurement")
        return cls(
            task=message.task,
            number=message.number,
            kind=kind,
            served=message.served,
            served_number=message.served_number,
            judged=message.judged,
            next_parent=message.next_parent,
            time_unix_s=message.time_unix_s,
            reason=message.reason,
            measurement=_measurement(message.measurement) if message.HasField("measurement") else None,
        )


def measurement_to_proto(measurement: Measurement) -> release_pb2.GateMeasurement:
    """A measurement as it travels."""
    return release_pb2.GateMeasurement(
        plan_hashes=measurement.plan_hashes,
        devices=measurement.devices,
        loss_served=measurement.loss_served,
        loss_candidate=measurement.loss_candidate,
        devices_better=measurement.devices_better,
        share_better=measurement.share_better,
    )


def _measurement(message: release_pb2.GateMeasurement) -> Measurement:
    hashes = tuple(message.plan_hashes)
    if not hashes or len(set(hashes)) != len(hashes) or any(len(item) != HASH_BYTES for item in hashes):
        raise MalformedError("a measurement names the plan of each cohort that measured once, by 32 bytes")
    if message.devices < N_MIN_FLOOR * len(hashes) or message.devices_better > message.devices:
        raise MalformedError(
            f"a measurement of {len(hashes)} cohorts says that the candidate is better for {message.devices_better} of "
            f"{message.devices} devices; a sum over fewer than {N_MIN_FLOOR} is never opened"
        )
    for name in ("loss_served", "loss_candidate"):
        value = getattr(message, name)
        if not (math.isfinite(value) and value >= 0):
            raise MalformedError(f"a measurement's {name} must be a finite loss, got {value}")
    if not 0 <= message.share_better <= 1:
        raise MalformedError(f"a measurement's share_better must lie in 0..1, got {message.share_better}")
    return Measurement(
        plan_hashes=hashes,
        devices=message.devices,
        loss_served=message.loss_served,
        loss_candidate=message.loss_candidate,
        devices_better=message.devices_better,
        share_better=message.share_better,
    )


@dataclass(frozen=True, slots=True)
class VerifiedDecision:
    """A decision that the coordinator signed and logged."""

    document: DecisionDocument
    decision_id: bytes


def decision_id(decision_bytes: bytes) -> bytes:
    """The decision's id: 32 bytes."""
    return digest(Domain.DECISION_ID, decision_bytes)


def sign_decision(decision_bytes: bytes, sign: Callable[[bytes], bytes]) -> bytes:
    """The coordinator's signature over a decision's bytes."""
    return sign(frame(Domain.DECISION_SIGNATURE, decision_bytes))


def verify_decision(offer: device_pb2.DecisionOffer, *, view: LogView, trust: Trust) -> VerifiedDecision:
    """Check a decision as offered.

    Raises:
        SignatureInvalidError: not made by the signing key.
        MalformedError: unreadable or out of range.
        LogInconsistentError: the log does not hold it.
    """
    verify(
        trust.signing_key,
        offer.signature,
        frame(Domain.DECISION_SIGNATURE, offer.decision),
        what="the signature of a decision about releases",
    )
    document = DecisionDocument.parse(offer.decision)
    identifier = decision_id(offer.decision)
    view.require(
        offer.proof,
        kind=log_pb2.LOG_ENTRY_KIND_DECISION,
        subject=task_subject(document.task),
        digest=identifier,
    )
    return VerifiedDecision(document, identifier)
