"""The running sum moves on: what was folded into it is from that moment on a member of U.

The new running sum is a new object. One transaction makes it the cohort's sum
and marks its new contributions counted, so that after a crash the sum holds exactly
the contributions that the rows call counted: never one less, never one twice.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import delete
from sqlalchemy.orm import Session

from coordinator.deployment import Deployment
from coordinator.diagnostics import short
from coordinator.enrolment.devices import require_enrolled
from coordinator.rounds.states import Event, next_state
from coordinator.rounds.transitions import freeze
from coordinator.storage.rows import Cohort, Contribution, ContributionState, UploadPart
from nightshift.protocol.errors import NightshiftError, NotFoundError, RevokedError, StateConflictError
from nightshift.protocol.identity import DeviceId
from nightshift.protocol.plan import PlanDocument
from nightshift.protocol.secagg.contributors import Contributor

ENDED = "uploads of this cohort have ended; check in again for the next round"


@dataclass(frozen=True, slots=True)
class Folded:
    """A verified contribution, as it is going to stand in U.

    Attributes:
        device_id: of its sender.
        entry: of U.
        sealed_key: the object that holds its sealed shares.
    """

    device_id: DeviceId
    entry: Contributor
    sealed_key: str


class SumMovedError(Exception):
    """Another process counted a contribution since the sum was read."""


class UncountableError(Exception):
    """Devices whose contribution may not be counted any more, though it is in the sum that was made.

    Attributes:
        why: of each.
    """

    def __init__(self, why: Mapping[bytes, NightshiftError]) -> None:
        super().__init__(f"{len(why)} contributions may not be counted any more")
        self.why = dict(why)


def fold(
    deployment: Deployment, document: PlanDocument, cohort: Cohort, ciphertexts: Iterable[bytes | memoryview]
) -> bytes:
    """The cohort's sum with these ciphertexts; nothing is kept.

    Raises:
        SumMovedError: the sum that the cohort had is no longer its sum.
        NightshiftError: its object is lost.
    """
    parameters, length = document.parameters, document.vector.length
    # No name here for the sum before: it is let go as soon as it is not needed.
    return deployment.compute.fold(parameters, length, _running_sum(deployment, cohort), ciphertexts)


def _running_sum(deployment: Deployment, cohort: Cohort) -> bytes | None:
    if cohort.running_sum_key is None:
        return None
    try:
        return deployment.objects.get(cohort.running_sum_key)
    except NotFoundError as error:
        with deployment.database.reading() as session:
            present = session.get_one(Cohort, cohort.cohort_id)
        if present.running_sum_key != cohort.running_sum_key:
            raise SumMovedError from None
        raise NightshiftError(
            f"the running sum of cohort {short(cohort.cohort_id)} is lost; end the cohort (coordinator round abort), "
            "and look what befell the object store"
        ) from error


def commit(
    deployment: Deployment, seen: Cohort, folded: Sequence[Folded], *, running_key: str, now_unix_s: int
) -> bool:
    """Mark contributions counted and move the running sum on, in one transaction.

    Args:
        deployment: whose cohort.
        seen: the cohort as it was when its sum was read.
        folded: what was added to that sum.
        running_key: of the durable new sum.
        now_unix_s: when.

    Returns:
        Whether the cohort is now full and frozen.

    Raises:
        StateConflictError: uploads of the cohort have ended; nothing was counted.
        SumMovedError: another process counted something; nothing was counted.
        UncountableError: some may not be counted any more; nothing was counted.
    """
    with deployment.database.transaction() as session:
        cohort = session.get_one(Cohort, seen.cohort_id)
        cohort.state = next_state(cohort.state, Event.COUNT)
        if cohort.running_sum_key != seen.running_sum_key:
            raise SumMovedError
        if why := _uncountable(session, cohort.cohort_id, folded):
            raise UncountableError(why)
        cohort.running_sum_key = running_key
        cohort.counted += len(folded)
        for each in folded:
            mine = session.get_one(Contribution, (cohort.cohort_id, each.device_id))
            mine.state = ContributionState.COUNTED
            mine.counted_unix_s = now_unix_s
            mine.sealed_key = each.sealed_key
            mine.ciphertext_tag = each.entry.ciphertext_tag
            mine.sealed_sha256 = b"".join(each.entry.sealed_sha256)
        parts = (
            UploadPart.cohort_id == cohort.cohort_id,
            UploadPart.device_id.in_([each.device_id for each in folded]),
        )
        session.execute(delete(UploadPart).where(*parts))
        session.flush()
        if cohort.counted >= cohort.n_max:
            freeze(session, deployment, cohort, now_unix_s)
            return True
    return False


def _uncountable(session: Session, cohort_id: bytes, folded: Sequence[Folded]) -> dict[bytes, NightshiftError]:
    """Whose contribution ended meanwhile, or who was revoked: a stream outlives the check at its start."""
    why: dict[bytes, NightshiftError] = {}
    for each in folded:
        row = session.get(Contribution, (cohort_id, each.device_id))
        if row is None or row.state is not ContributionState.RECEIVING:
            why[each.device_id] = StateConflictError(ENDED)
            continue
        try:
            require_enrolled(session, each.device_id)
        except RevokedError as error:
            why[each.device_id] = error
    return why
