"""The steps of a cohort that are log entries: more time for uploads, freezing its set, ending it without a sum.

Each is called inside one transaction that the caller commits before anybody is told.
"""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import delete, or_, select, update
from sqlalchemy.orm import Session, defer

from coordinator.deployment import Deployment
from coordinator.rounds.states import FINAL, Event, next_state
from coordinator.storage.rows import Cohort, CohortState, Contribution, ContributionState, UploadPart
from nightshift.protocol.identity import DeviceId
from nightshift.protocol.secagg.contributors import Contributor, set_hash
from nightshift.v1 import log_pb2

_HASH_BYTES = 32


def freeze(session: Session, deployment: Deployment, cohort: Cohort, now_unix_s: int) -> None:
    """Fix the set U for good and log its hash.

    Raises:
        StateConflictError: the cohort is not open.
    """
    cohort.state = next_state(cohort.state, Event.FREEZE)
    contributors = [contributor(row) for row in counted(session, cohort)]
    cohort.set_hash = set_hash(cohort.plan_hash, contributors)
    cohort.set_position = deployment.log.append(
        session,
        log_pb2.LOG_ENTRY_KIND_SET,
        time_unix_s=now_unix_s,
        subject=cohort.cohort_id,
        digest=cohort.set_hash,
    )
    _discard_unfinished(session, cohort)


def extend(session: Session, deployment: Deployment, cohort: Cohort, now_unix_s: int) -> None:
    """Take uploads until the latest deadline that the plan allows, and log it.

    Raises:
        StateConflictError: the cohort is not open.
    """
    cohort.state = next_state(cohort.state, Event.EXTEND)
    cohort.upload_deadline_unix_s = cohort.latest_upload_deadline_unix_s
    deployment.log.append(
        session,
        log_pb2.LOG_ENTRY_KIND_EXTENSION,
        time_unix_s=now_unix_s,
        subject=cohort.cohort_id,
        digest=cohort.plan_hash,
        note=f"{cohort.counted} uploads are counted, n_min is {cohort.n_min}",
    )


def void(
    session: Session, deployment: Deployment, cohort: Cohort, event: Event, *, reason: str, now_unix_s: int
) -> None:
    """End a cohort without a sum and log why.

    Raises:
        StateConflictError: the event has no place in the cohort's state.
    """
    cohort.state = next_state(cohort.state, event)
    cohort.ended_unix_s = now_unix_s
    cohort.reason = reason
    cohort.ended_by = event.value
    cohort.void_position = deployment.log.append(
        session,
        log_pb2.LOG_ENTRY_KIND_VOID,
        time_unix_s=now_unix_s,
        subject=cohort.cohort_id,
        digest=cohort.plan_hash,
        note=reason,
    )
    _discard_unfinished(session, cohort)


def counted(session: Session, cohort: Cohort) -> Sequence[Contribution]:
    """The contributions in the running sum, in the order of device ids."""
    rows = select(Contribution).where(
        Contribution.cohort_id == cohort.cohort_id, Contribution.state == ContributionState.COUNTED
    )
    return session.scalars(rows.order_by(Contribution.device_id)).all()


def contributor(row: Contribution) -> Contributor:
    """A counted contribution as an entry of U."""
    assert row.ciphertext_tag is not None, "a counted contribution has its tag"
    assert row.sealed_sha256 is not None, "a counted contribution has its hashes"
    sealed = row.sealed_sha256
    hashes = (sealed[start : start + _HASH_BYTES] for start in range(0, len(sealed), _HASH_BYTES))
    return Contributor(DeviceId(row.device_id), row.ciphertext_tag, tuple(hashes))


def unfinished(session: Session) -> Sequence[Cohort]:
    """Cohorts that have not ended, those with the next deadline first; their plans, which are large, unread."""
    return session.scalars(_UNFINISHED).all()


GOES_ON = or_(*(Cohort.state == state for state in CohortState if state not in FINAL))
"""A condition on `Cohort`: it has not ended. The index on the states serves it, however many cohorts have."""

# Built once: at each check-in, making a statement took as long as running it.
_UNFINISHED = (
    select(Cohort).where(GOES_ON).options(defer(Cohort.plan)).order_by(Cohort.upload_deadline_unix_s, Cohort.cohort_id)
)


def _discard_unfinished(session: Session, cohort: Cohort) -> None:
    mine = Contribution.cohort_id == cohort.cohort_id
    session.execute(
        update(Contribution)
        .where(mine, Contribution.state == ContributionState.RECEIVING)
        .values(state=ContributionState.DISCARDED, durable_bytes=0)
    )
    session.execute(delete(UploadPart).where(UploadPart.cohort_id == cohort.cohort_id))
    session.flush()
