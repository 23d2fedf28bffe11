"""What a check-in tells one device beyond the offer of a plan: what is asked of it, and what became of what it gave."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import bindparam, select
from sqlalchemy.orm import Session

from coordinator.log import LogSnapshot
from coordinator.rounds import erasures
from coordinator.rounds.prekeys import UNSPENT
from coordinator.rounds.seats import ASKED, NOTHING, Asked, asked_of
from coordinator.storage.plain import plain_rows
from coordinator.storage.rows import Cohort, CohortState, Contribution, Device
from nightshift.v1 import device_pb2

VOIDS_KEPT_S = 30 * 86_400

# Built once: at each check-in, making a statement took as long as running it.
_VOIDS = (
    select(Cohort.cohort_id, Cohort.void_position)
    .join(Contribution, Contribution.cohort_id == Cohort.cohort_id)
    .where(
        Contribution.device_id == bindparam("device_id"),
        Cohort.state == CohortState.VOID,
        Cohort.void_position.is_not(None),
        Cohort.ended_unix_s >= bindparam("since_unix_s"),
    )
    .order_by(Cohort.void_position)
)
# Most devices are asked nothing and have given nothing in vain: one statement finds that out.
_GLANCE = select(UNSPENT.scalar_subquery(), ASKED.exists(), _VOIDS.exists())


@dataclass(frozen=True, slots=True)
class Personal:
    """What concerns one device alone.

    Attributes:
        prekeys_held: how many of its prekeys may still be bound to a plan.
        asked: what its seats on committees ask of it.
        voids: proof that cohorts to which it gave something ended without a sum, and who can no longer open them.
    """

    prekeys_held: int
    asked: Asked
    voids: Sequence[device_pb2.VoidCohort]


def personal(session: Session, snapshot: LogSnapshot, device: Device, now_unix_s: int) -> Personal:
    """Read what concerns a device.

    Args:
        session: reads.
        snapshot: of the log, for the proofs.
        device: whose.
        now_unix_s: when.
    """
    which = {
        "device_id": device.device_id,
        "epoch": device.prekey_epoch,
        "now_unix_s": now_unix_s,
        "since_unix_s": now_unix_s - VOIDS_KEPT_S,
    }
    ((held, asked, in_vain),) = plain_rows(session, _GLANCE, which)
    return Personal(
        prekeys_held=held,
        asked=asked_of(session, device.device_id, now_unix_s) if asked else NOTHING,
        voids=_voids(session, snapshot, which) if in_vain else (),
    )


def _voids(session: Session, snapshot: LogSnapshot, which: dict[str, object]) -> list[device_pb2.VoidCohort]:
    return [
        device_pb2.VoidCohort(proof=snapshot.proof(session, position), erasures=erasures.statements(session, cohort_id))
        for cohort_id, position in plain_rows(session, _VOIDS, which)
        if position is not None
    ]
