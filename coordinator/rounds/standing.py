"""How devices stand: the ended cohorts read as `suspects` wants them, and what follows for the next round.

Suspicion is not stored. It follows from the rows of cohorts, answers and refusals, every time anew; stored are only
a quarantine, which must hold at each check-in, and the moment at which an operator cleared a device.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from sqlalchemy import select
from sqlalchemy.orm import Session, load_only

from coordinator import audit
from coordinator.diagnostics import log, short
from coordinator.rounds.states import Event
from coordinator.rounds.suspects import Ending, Group, Outcome, Suspicion, review
from coordinator.storage.rows import (
    AnswerRow,
    Cohort,
    CohortState,
    CommitteeSeat,
    Contribution,
    ContributionState,
    Device,
    RefusalRow,
)
from nightshift.protocol.identity import DeviceId
from nightshift.protocol.secagg.parameters import corrupt_members

REMEMBERED_S = 90 * 86_400
_JUDGED = (
    Cohort.task,
    Cohort.round_number,
    Cohort.state,
    Cohort.ended_unix_s,
    Cohort.ended_by,
    Cohort.answers_tried,
    Cohort.threshold,
)


@dataclass(frozen=True, slots=True)
class Record:
    """What is said of one device, for people.

    Attributes:
        verdict: clear, suspect, alone under suspicion, quarantined.
        with_: how many others are suspected together with it.
        named_by: members that could not use its share, since it was last cleared by the operator.
        refused: devices whose shares it, as a member, could not use though the sum opened.
        doubtful: it is kept out of pools for that.
    """

    verdict: str
    with_: int
    named_by: int
    refused: int
    doubtful: bool


def suspicion(session: Session, now_unix_s: int) -> Suspicion:
    """What the rounds of the last 90 days say."""
    return review(_rounds(session, now_unix_s))


def judge(session: Session, now_unix_s: int) -> Suspicion:
    """The same, and quarantine whom it convicts; in the session's transaction."""
    found = suspicion(session, now_unix_s)
    for identity in sorted(found.quarantined):
        device = session.get_one(Device, identity)
        if device.quarantined_unix_s is None:
            device.quarantined_unix_s = now_unix_s
            audit.record(session, "device quarantine", device.device_id.hex(), by="rounds")
            log.warning("device quarantined", device=short(device.device_id))
    return found


def clear(device: Device, now_unix_s: int) -> None:
    """Forget what a device is suspected of, by the operator's word."""
    device.quarantined_unix_s = None
    device.cleared_unix_s = now_unix_s


def record_of(session: Session, found: Suspicion, device: Device) -> Record:
    """How one device stands."""
    identity = DeviceId(device.device_id)
    group = min((group for group in found.groups if identity in group), key=len, default=None)
    if device.quarantined_unix_s is not None:
        verdict = "quarantined"
    elif group is None:
        verdict = "clear"
    else:
        verdict = "suspect" if len(group) > 1 else "suspect, alone"
    named_by = session.execute(
        select(CommitteeSeat.device_id)
        .distinct()
        .join(
            RefusalRow,
            (RefusalRow.cohort_id == CommitteeSeat.cohort_id) & (RefusalRow.member_index == CommitteeSeat.member_index),
        )
        .join(Cohort, Cohort.cohort_id == RefusalRow.cohort_id)
        .where(RefusalRow.contributor == identity, Cohort.created_unix_s > (device.cleared_unix_s or 0))
    ).all()
    return Record(
        verdict=verdict,
        with_=len(group) - 1 if group else 0,
        named_by=len(named_by),
        refused=len(found.unconfirmed.get(identity, ())),
        doubtful=identity in found.doubtful,
    )


def _rounds(session: Session, now_unix_s: int) -> Iterable[Sequence[Outcome]]:
    """The frozen cohorts of each ended round, oldest round first; none if nothing ever went wrong."""
    remembered = select(Cohort).where(
        Cohort.state.in_((CohortState.OPENED, CohortState.VOID)),
        Cohort.set_hash.is_not(None),
        Cohort.ended_unix_s >= now_unix_s - REMEMBERED_S,
    )
    went_wrong = (Cohort.state == CohortState.VOID) | Cohort.cohort_id.in_(select(RefusalRow.cohort_id))
    if session.scalar(remembered.where(went_wrong).limit(1)) is None:
        return ()
    # Of the history of 90 days only what is judged: plans, certificates and signatures weigh a thousand times more.
    judged = remembered.options(load_only(*_JUDGED, raiseload=True))
    cohorts = session.scalars(judged.order_by(Cohort.ended_unix_s, Cohort.cohort_id)).all()
    cleared = _cleared(session)
    rounds: dict[tuple[str, int], list[Outcome]] = defaultdict(list)
    for cohort in cohorts:
        rounds[cohort.task, cohort.round_number].append(_outcome(session, cohort, cleared))
    return rounds.values()


def _cleared(session: Session) -> dict[bytes, int]:
    rows = session.execute(select(Device.device_id, Device.cleared_unix_s).where(Device.cleared_unix_s.is_not(None)))
    return {device: moment for device, moment in rows if moment is not None}


def _outcome(session: Session, cohort: Cohort, cleared: dict[bytes, int]) -> Outcome:
    """One cohort, without the devices that the operator has cleared since.

    A sum that was absent with such a device in it accuses nobody any more: else clearing one would blame the others.
    """
    since = cohort.ended_unix_s or 0
    forgiven = {device for device, moment in cleared.items() if moment >= since}
    sat = select(CommitteeSeat.member_index, CommitteeSeat.device_id).where(CommitteeSeat.cohort_id == cohort.cohort_id)
    seats = {index: DeviceId(device) for index, device in session.execute(sat)}
    answered = session.scalars(select(AnswerRow.member_index).where(AnswerRow.cohort_id == cohort.cohort_id)).all()
    refusals: dict[DeviceId, Group] = defaultdict(frozenset)
    named = select(RefusalRow.member_index, RefusalRow.contributor).where(RefusalRow.cohort_id == cohort.cohort_id)
    for index, contributor in session.execute(named):
        if contributor not in forgiven and seats[index] not in forgiven:
            refusals[seats[index]] |= {DeviceId(contributor)}
    uploaded = select(Contribution.device_id).where(
        Contribution.cohort_id == cohort.cohort_id, Contribution.state == ContributionState.COUNTED
    )
    contributors = frozenset(DeviceId(device) for device in session.scalars(uploaded))
    ending = _ending(cohort, answers=len(answered), refusals=bool(refusals))
    if ending in (Ending.ABSENT, Ending.OUT_OF_RANGE) and contributors & forgiven:
        ending = Ending.OTHER
    return Outcome(
        ending=ending,
        contributors=contributors - forgiven,
        answered=frozenset(seats[index] for index in answered),
        refusals=dict(refusals),
        corrupt=corrupt_members(len(seats)),
    )


def _ending(cohort: Cohort, *, answers: int, refusals: bool) -> Ending:
    if cohort.state is CohortState.OPENED:
        return Ending.OPENED
    if cohort.ended_by == Event.REFUSE.value:
        return Ending.OUT_OF_RANGE
    if cohort.answers_tried >= cohort.threshold and answers >= cohort.threshold:
        return Ending.ABSENT
    return Ending.REFUSED if refusals and cohort.ended_by != Event.ABORT.value else Ending.OTHER
