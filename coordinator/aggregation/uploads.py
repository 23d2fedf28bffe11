"""Contributions as they arrive: announced, durable part by part, checked, counted.

A contribution's only right size follows from its plan, so nothing larger is
ever read. Parts are objects; their rows say from where a device may go on after
a cut. When all bytes are there the signature that was announced is verified over
them, and only then the ciphertext is folded into the running sum.
"""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy.orm import Session

from coordinator.aggregation import places
from coordinator.aggregation.counting import count
from coordinator.aggregation.documents import contribution_size_bytes, document_of
from coordinator.aggregation.folding import ENDED
from coordinator.deployment import Deployment
from coordinator.diagnostics import short
from coordinator.enrolment.devices import certified_at
from coordinator.rounds.pool import spent_parent
from coordinator.rounds.rounds import division_of, place_of, round_of
from coordinator.storage.rows import Cohort, CohortState, Contribution, ContributionState, Device, UploadPart
from nightshift.host.failpoints import failpoint
from nightshift.protocol.errors import (
    MalformedError,
    NotFoundError,
    StateConflictError,
)
from nightshift.protocol.identity import SIGNATURE_BYTES

PART_BYTES = 1 << 20
"""Bytes that are made durable at once; what a cut costs at most."""


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a contribution has come: durable bytes, and whether it is counted."""

    offset_bytes: int
    complete: bool


def announce(
    deployment: Deployment,
    device: Device,
    *,
    cohort_id: bytes,
    plan_hash: bytes,
    size_bytes: int,
    signature: bytes,
    now_unix_s: int,
) -> Progress:
    """A device says what it will send; it learns from which byte.

    Raises:
        NotFoundError: no such cohort.
        MalformedError: another plan, or another size than the plan's.
        StateConflictError: uploads have ended, the cohort is full, or the device
            has sent another contribution for this cohort or this parent release.
    """
    with deployment.database.transaction() as session:
        cohort = _cohort(session, cohort_id)
        existing = session.get(Contribution, (cohort_id, device.device_id))
        if existing is not None and existing.signature != signature:
            raise StateConflictError(
                "another contribution of this device is here already; one is taken for each parent release"
            )
        if existing is not None and existing.state is ContributionState.COUNTED:
            return Progress(existing.size_bytes, complete=True)
        _require_open(cohort, now_unix_s)
        if existing is not None:
            return Progress(existing.durable_bytes, complete=False)
        if plan_hash != cohort.plan_hash:
            raise MalformedError("the announced plan hash is not that of the cohort's plan")
        expected_bytes = contribution_size_bytes(document_of(cohort))
        if len(signature) != SIGNATURE_BYTES:
            raise MalformedError(f"a signature has {SIGNATURE_BYTES} bytes, {len(signature)} were announced")
        if size_bytes != expected_bytes:
            raise MalformedError(
                f"a contribution to this cohort has {expected_bytes} bytes, {size_bytes} were announced"
            )
        if not certified_at(device, deployment.authority.root, cohort.created_unix_s):
            raise StateConflictError("this device was certified after the plan was logged; check in for the next round")
        if spent_parent(session, device.device_id, cohort.parent_release, now_unix_s):
            raise StateConflictError("this device has contributed to this parent release in another cohort")
        place = place_of(session, division_of(session, round_of(session, cohort)), device)
        if place is None or place.cohort_id != cohort_id:
            raise StateConflictError("this device belongs to another cohort of the round; check in for its plan")
        if cohort.counted >= cohort.n_max:
            raise StateConflictError("the cohort is full; check in again for the next round")
        assert device.certificate_position is not None, "a device is enrolled and logged together"
        session.add(
            Contribution(
                cohort_id=cohort_id,
                device_id=device.device_id,
                state=ContributionState.RECEIVING,
                size_bytes=size_bytes,
                signature=signature,
                certificate=device.certificate,
                certificate_position=device.certificate_position,
            )
        )
    failpoint("coordinator.announcement.durable")
    return Progress(0, complete=False)


class Receiver:
    """Takes the bytes of one stream of one contribution.

    Args:
        deployment: where they go.
        device_id: of the sender, from its certificate.
        cohort_id: of the announced contribution.
        offset_bytes: where the stream starts; must be what is durable.

    Raises:
        StateConflictError: not announced, another offset, or uploads have ended.
    """

    def __init__(self, deployment: Deployment, device_id: bytes, cohort_id: bytes, offset_bytes: int) -> None:
        self._deployment = deployment
        self._key = (cohort_id, device_id)
        with deployment.database.reading() as session:
            row = session.get(Contribution, self._key)
        if row is None:
            raise StateConflictError("the contribution was not announced; call OpenUpload first")
        self.complete = row.state is ContributionState.COUNTED
        if row.state is ContributionState.DISCARDED:
            raise StateConflictError(ENDED)
        if not self.complete and offset_bytes != row.durable_bytes:
            raise StateConflictError(f"{row.durable_bytes} bytes are durable here, the stream starts at {offset_bytes}")
        self._size_bytes = row.size_bytes
        self.offset_bytes = row.size_bytes if self.complete else row.durable_bytes
        self._buffer = bytearray()

    def take(self, data: bytes) -> None:
        """Take the next bytes; they become durable a megabyte at a time.

        Raises:
            MalformedError: more bytes than were announced.
            StateConflictError: uploads have ended.
        """
        if self.offset_bytes + len(self._buffer) + len(data) > self._size_bytes:
            raise MalformedError(f"more than the announced {self._size_bytes} bytes were sent")
        self._buffer += data
        if len(self._buffer) >= PART_BYTES:
            self.flush()

    def flush(self) -> None:
        """Make what was taken durable."""
        if not self._buffer:
            return
        cohort_id, device_id = self._key
        key = places.part_key(cohort_id, device_id, self.offset_bytes)
        self._deployment.objects.put(key, bytes(self._buffer))
        failpoint("coordinator.part.stored")
        try:
            self._record(key)
        except StateConflictError:
            places.discard(self._deployment.objects, key)
            raise
        self.offset_bytes += len(self._buffer)
        self._buffer.clear()
        failpoint("coordinator.part.durable")

    def _record(self, key: str) -> None:
        cohort_id, device_id = self._key
        with self._deployment.database.transaction() as session:
            row = session.get_one(Contribution, self._key)
            if row.state is not ContributionState.RECEIVING or row.durable_bytes != self.offset_bytes:
                raise StateConflictError("uploads of this cohort have ended, or another stream went ahead; ask again")
            session.add(
                UploadPart(
                    cohort_id=cohort_id,
                    device_id=device_id,
                    offset_bytes=self.offset_bytes,
                    size_bytes=len(self._buffer),
                    object_key=key,
                )
            )
            row.durable_bytes += len(self._buffer)

    @property
    def everything_is_here(self) -> bool:
        """Whether all announced bytes are durable."""
        return self.offset_bytes == self._size_bytes


def finish(deployment: Deployment, device: Device, cohort_id: bytes, now_unix_s: int) -> None:
    """Check a contribution whose bytes are all here, and count it.

    What fails its checks is erased; nothing of it was counted. Who comes at the same moment is counted together.

    Raises:
        HashMismatchError: the bytes do not end with the announced signature.
        MalformedError, SignatureInvalidError: not a contribution to this plan by this device.
        StateConflictError: the cohort froze, or is full.
        RevokedError: the device was revoked while it sent.
        OverloadedError: other processes were faster every time; ask again.
        UnavailableError: a store does not answer.
    """
    deployment.counting.ask(
        cohort_id, device.device_id, lambda device_ids: count(deployment, cohort_id, device_ids, now_unix_s)
    )


def _cohort(session: Session, cohort_id: bytes) -> Cohort:
    cohort = session.get(Cohort, cohort_id)
    if cohort is None:
        raise NotFoundError(f"this coordinator has no cohort {short(cohort_id)}; check in again")
    return cohort


def _require_open(cohort: Cohort, now_unix_s: int) -> None:
    if cohort.state is not CohortState.OPEN or now_unix_s > cohort.upload_deadline_unix_s:
        raise StateConflictError(
            f"uploads of round {cohort.round_number} of task {cohort.task} have ended; "
            "check in for the next round: the reply says when to come"
        )
