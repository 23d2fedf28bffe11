"""Decisions about what is served: verified, never older than one seen, and the reason for a restored parent."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edge_client import policy
from edge_client.agent.session import Session
from edge_client.store.served import SeenDecision
from nightshift.protocol.errors import DeclinedError, EquivocationError, MalformedError, VerificationError

if TYPE_CHECKING:
    from nightshift.protocol.decision import VerifiedDecision
    from nightshift.protocol.log import LogView
    from nightshift.protocol.release import VerifiedRelease
    from nightshift.v1 import device_pb2

MOST_DECISIONS = 64


def verify_decisions(session: Session, response: device_pb2.CheckInResponse, view: LogView) -> list[VerifiedDecision]:
    """Verify every decision of a check-in.

    Raises:
        SignatureInvalidError, MalformedError, LogInconsistentError: one of them is not what it must be.
    """
    from nightshift.protocol.decision import verify_decision

    if len(response.decisions) > MOST_DECISIONS:
        raise MalformedError(
            f"the check-in lists {len(response.decisions)} decisions, at most {MOST_DECISIONS} are read"
        )
    return [verify_decision(offer, view=view, trust=session.trust) for offer in response.decisions]


def newest_by_task(decisions: list[VerifiedDecision]) -> dict[str, VerifiedDecision]:
    """The newest of each task among the decisions that were shown."""
    return {each.document.task: each for each in sorted(decisions, key=lambda each: each.document.number)}


def remember_newest(session: Session, decisions: list[VerifiedDecision]) -> None:
    """Keep the newest decision of each task; those of tasks that the owner does not take part in need no more.

    Raises:
        EquivocationError, VerificationError: as `remember`.
    """
    for task, decision in newest_by_task(decisions).items():
        remember(session, decision)
        if not policy.accepts_task(session.configuration.policy, task):
            session.store.served.follow(task)


def require_decision(decisions: list[VerifiedDecision], served: VerifiedRelease) -> VerifiedDecision:
    """The newest decision about a task, which has a release served.

    Raises:
        VerificationError: no decision about the task was shown.
        DeclinedError: the release metadata name another release than the decision.
    """
    document = served.document
    decision = newest_by_task(decisions).get(document.task)
    if decision is None:
        raise VerificationError(
            f"release {document.number} of task {document.task!r} is said to be served, and no logged decision says "
            "so; the adapter in use stays"
        )
    if decision.document.served != served.release_id:
        # Metadata are fetched after the check-in: most likely another decision fell in between.
        raise DeclinedError(
            f"the newest decision has release {decision.document.served_number} of task {document.task!r} served, the "
            f"release metadata {document.number}; the adapter in use stays, the next pass looks again"
        )
    return decision


def remember(session: Session, decision: VerifiedDecision) -> SeenDecision:
    """Keep a task's newest decision, and say whether it was followed already.

    Raises:
        EquivocationError: another decision under a number that was seen.
        VerificationError: it is older than one seen before.
    """
    document = decision.document
    seen = session.store.served.decision(document.task)
    if seen is not None and document.number < seen.number:
        raise VerificationError(
            f"the newest decision about the releases of task {document.task!r} is said to be {document.number}, but "
            f"{seen.number} was seen before; the adapter in use stays"
        )
    if seen is not None and document.number == seen.number:
        if seen.decision_id != decision.decision_id:
            raise EquivocationError(
                f"decision {document.number} about the releases of task {document.task!r} was shown in two versions"
            )
        return seen
    made = SeenDecision(document.number, decision.decision_id, document.served, followed=False)
    session.store.served.see_decision(document.task, made)
    return made


def require_reason(decisions: list[VerifiedDecision], parent: VerifiedRelease) -> str:
    """The logged reason why a parent restores an earlier release, in the decision's words.

    Raises:
        VerificationError: no decision made it the parent; then its adapter is merely an old one under a new number.
    """
    for decision in decisions:
        if decision.document.next_parent == parent.release_id:
            return f"{decision.document.kind.words}: {decision.document.reason}"
    raise VerificationError(
        f"release {parent.document.number} of task {parent.document.task!r} has the adapter of an earlier one, and no "
        "logged decision says why; refusing to contribute to the same parent under another name"
    )
