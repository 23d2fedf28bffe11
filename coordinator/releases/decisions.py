"""Decisions: which release of a task devices serve, and from which one the next round trains on.

Every change of either is a signed, numbered document in the log, with its reason; the newest one holds. All
functions work in the caller's transaction: what is decided, what is served (the release metadata) and, where
learning goes back, the release that it goes back to, are there together or not at all.

*Going back* does not mean the old release as a parent again: devices contribute to a release once. The old adapter is
published under a new number, as a release that says which one it restores (`publication.publish_again`).
docs/protocol.md argues why devices may contribute to it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import takewhile

from sqlalchemy import select
from sqlalchemy.orm import Session

from coordinator import audit
from coordinator.deployment import Deployment
from coordinator.log import LogSnapshot
from coordinator.releases.publication import newest_release, publish_again
from coordinator.releases.repository import serve_release
from coordinator.storage.rows import DecisionRow, ReleaseRow
from nightshift.protocol.decision import (
    MAX_REASON_CHARACTERS,
    DecisionDocument,
    DecisionKind,
    Measurement,
    decision_id,
    measurement_to_proto,
    sign_decision,
)
from nightshift.protocol.errors import StateConflictError, UsageError
from nightshift.protocol.log import task_subject
from nightshift.v1 import device_pb2, log_pb2, release_pb2

VERBS = {
    DecisionKind.UNGATED: "round publish",
    DecisionKind.PROMOTED: "gate promote",
    DecisionKind.DROPPED: "gate drop",
    DecisionKind.SET_ASIDE: "round set aside",
    DecisionKind.PROMOTED_BY_OPERATOR: "release promote",
    DecisionKind.ROLLED_BACK: "release rollback",
}
"""Under which verb each kind stands in the audit trail; the first one is a part of `task create`."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a decision comes to.

    Attributes:
        served: what devices serve from now on.
        next_parent: what the next round trains on from.
    """

    served: ReleaseRow
    next_parent: ReleaseRow


def decide(
    session: Session,
    deployment: Deployment,
    kind: DecisionKind,
    outcome: Outcome,
    *,
    judged: ReleaseRow,
    reason: str,
    now_unix_s: int,
    measurement: Measurement | None = None,
) -> DecisionRow:
    """Sign, log and keep a decision, and have devices serve what it says.

    Args:
        session: a transaction.
        deployment: whose log and keys.
        kind: what was decided.
        outcome: what is served and trained on from then on.
        judged: the release that it is about.
        reason: a few plain words; what does not print becomes a space, and the end of a long one is cut.
        now_unix_s: when.
        measurement: by what the gate judged.
    """
    served = outcome.served
    last = newest_decision(session, served.task)
    message = release_pb2.Decision(
        task=served.task,
        number=1 if last is None else last.number + 1,
        kind=kind.value,
        served=served.release_id,
        served_number=served.number,
        judged=judged.release_id,
        next_parent=outcome.next_parent.release_id,
        time_unix_s=now_unix_s,
        reason=_printable(reason),
        measurement=None if measurement is None else measurement_to_proto(measurement),
    )
    document = message.SerializeToString(deterministic=True)
    parsed = DecisionDocument.parse(document)  # what devices would refuse is never signed
    identifier = decision_id(document)
    position = deployment.log.append(
        session,
        log_pb2.LOG_ENTRY_KIND_DECISION,
        time_unix_s=now_unix_s,
        subject=task_subject(served.task),
        digest=identifier,
        note=f"{kind.words}: {parsed.reason}",
    )
    row = DecisionRow(
        task=served.task,
        number=parsed.number,
        decision_id=identifier,
        kind=kind.words,
        served=served.release_id,
        judged=judged.release_id,
        next_parent=outcome.next_parent.release_id,
        reason=parsed.reason,
        document=document,
        signature=sign_decision(document, deployment.authority.sign),
        log_position=position,
        time_unix_s=now_unix_s,
    )
    session.add(row)
    session.flush()
    serve_release(session, deployment, served, now_unix_s)
    if kind in VERBS:
        audit.record(
            session,
            VERBS[kind],
            f"{judged.task}/{judged.number}",
            served=served.number,
            next_parent=outcome.next_parent.number,
            decision=parsed.number,
            reason=parsed.reason,
        )
    return row


def newest_decision(session: Session, task: str) -> DecisionRow | None:
    """The decision that holds; None only while a task is being created."""
    rows = select(DecisionRow).where(DecisionRow.task == task)
    return session.scalar(rows.order_by(DecisionRow.number.desc()).limit(1))


def list_decisions(session: Session, task: str) -> Sequence[DecisionRow]:
    """All decisions of a task, oldest first."""
    return session.scalars(select(DecisionRow).where(DecisionRow.task == task).order_by(DecisionRow.number)).all()


def served_release(session: Session, task: str) -> ReleaseRow:
    """The release that devices serve now.

    Raises:
        StateConflictError: nothing was decided yet; a task without release 0.
    """
    row = newest_decision(session, task)
    if row is None:
        raise StateConflictError(f"nothing is served for task {task}; create it again under another name")
    return session.get_one(ReleaseRow, row.served)


def compared_with(session: Session, parent: ReleaseRow) -> ReleaseRow | None:
    """What a round that starts from a parent compares it with: the served release, if its adapter is another."""
    served = served_release(session, parent.task)
    return None if served.adapter_sha256 == parent.adapter_sha256 else served


def candidates_behind(session: Session, newest: ReleaseRow) -> int:
    """How many releases were learned one from the other since the adapter that devices serve, the newest included."""
    served = served_release(session, newest.task)
    return sum(1 for _ in takewhile(lambda each: each.adapter_sha256 != served.adapter_sha256, _line(session, newest)))


def go_back(
    session: Session,
    deployment: Deployment,
    kind: DecisionKind,
    *,
    served: ReleaseRow,
    to: ReleaseRow,
    judged: ReleaseRow,
    reason: str,
    now_unix_s: int,
    measurement: Measurement | None = None,
) -> DecisionRow:
    """Have learning start again from an earlier adapter, under a new number.

    Args:
        session: a transaction.
        deployment: whose log and keys.
        kind: what was decided.
        served: what devices serve from now on.
        to: the release whose adapter the next round trains on from.
        judged: the release that the decision is about.
        reason: a few plain words.
        now_unix_s: when.
        measurement: by what the gate judged.
    """
    again = publish_again(session, deployment, to, parent=newest_release(session, to.task), now_unix_s=now_unix_s)
    return decide(
        session,
        deployment,
        kind,
        Outcome(served, again),
        judged=judged,
        reason=reason,
        now_unix_s=now_unix_s,
        measurement=measurement,
    )


def start_again(
    session: Session, deployment: Deployment, parent: ReleaseRow, *, reason: str, now_unix_s: int
) -> DecisionRow:
    """Give the next round the parent's adapter under a new number, since devices have used it up; what is served stays.

    Args:
        session: a transaction.
        deployment: whose log and keys.
        parent: what the rounds whose sums cannot be used started from.
        reason: a few plain words.
        now_unix_s: when.
    """
    return go_back(
        session,
        deployment,
        DecisionKind.SET_ASIDE,
        served=served_release(session, parent.task),
        to=parent,
        judged=parent,
        reason=reason,
        now_unix_s=now_unix_s,
    )


def promote(
    session: Session, deployment: Deployment, release: ReleaseRow, *, reason: str, now_unix_s: int
) -> DecisionRow:
    """Have devices serve a release by the operator's word, whatever the gate said.

    If learning has left the release behind (it was dropped), the next round starts from it again.

    Raises:
        UsageError: no reason is given.
        StateConflictError: it is served already.
    """
    _require_reason(reason)
    if served_release(session, release.task).release_id == release.release_id:
        raise StateConflictError(f"release {release.task}/{release.number} is served already; nothing was changed")
    newest = newest_release(session, release.task)
    kind = DecisionKind.PROMOTED_BY_OPERATOR
    if any(each.adapter_sha256 == release.adapter_sha256 for each in _line(session, newest)):
        outcome = Outcome(release, newest)
        return decide(session, deployment, kind, outcome, judged=release, reason=reason, now_unix_s=now_unix_s)
    return go_back(
        session, deployment, kind, served=release, to=release, judged=release, reason=reason, now_unix_s=now_unix_s
    )


def roll_back(
    session: Session, deployment: Deployment, release: ReleaseRow, *, reason: str, now_unix_s: int
) -> DecisionRow:
    """Have devices serve an earlier release again, or the served one still, and learning start again from it.

    What a round that is under way learns from another release is set aside when it ends.

    Raises:
        UsageError: no reason is given, or the release is later than the one that is served.
        StateConflictError: it is served already, and it is what the next round trains on from.
    """
    _require_reason(reason)
    served, newest = served_release(session, release.task), newest_release(session, release.task)
    if release.number > served.number:
        raise UsageError(
            f"release {release.task}/{release.number} is later than {served.number}, which devices serve; "
            f"to have it served: coordinator release promote {release.task}/{release.number} --reason …"
        )
    trained_on = newest.adapter_sha256 == release.adapter_sha256
    if trained_on and served.release_id == release.release_id:
        raise StateConflictError(
            f"release {release.task}/{release.number} is served, and the next round trains on from it; nothing changed"
        )
    kind, judged = DecisionKind.ROLLED_BACK, newest if served.release_id == release.release_id else served
    if trained_on:
        outcome = Outcome(release, newest)
        return decide(session, deployment, kind, outcome, judged=judged, reason=reason, now_unix_s=now_unix_s)
    return go_back(
        session, deployment, kind, served=release, to=release, judged=judged, reason=reason, now_unix_s=now_unix_s
    )


def offer(session: Session, snapshot: LogSnapshot, row: DecisionRow) -> device_pb2.DecisionOffer:
    """A decision with what proves it."""
    return device_pb2.DecisionOffer(
        decision=row.document, signature=row.signature, proof=snapshot.proof(session, row.log_position)
    )


def _line(session: Session, newest: ReleaseRow) -> Iterator[ReleaseRow]:
    """A release and those that its adapter grew from, newest first; what was dropped on the way is not among them."""
    release: ReleaseRow | None = newest
    while release is not None:
        yield release
        before = release.restores or release.parent
        release = None if before is None else session.get_one(ReleaseRow, before)


def _require_reason(reason: str) -> None:
    if not _printable(reason).strip():
        raise UsageError("say why, in a few words: --reason TEXT; the reason is logged for all devices to see")


def _printable(text: str) -> str:
    return "".join(letter if letter.isprintable() else " " for letter in text)[:MAX_REASON_CHARACTERS]
