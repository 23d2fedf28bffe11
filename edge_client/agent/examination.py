"""Whether to take part in a plan: what is proved, what the owner allows, what was given before.

The order is the design's: the coordinator's proofs first, then this device's own
memory (one plan a cohort, one cohort a prekey), then the owner's policy, then the
guard against contributing twice to one parent. Nothing is fetched before that.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from edge_client import policy
from edge_client.agent.session import Session
from edge_client.ledger import readable_time
from edge_client.store.contributions import State
from nightshift.protocol.errors import DeclinedError, EquivocationError, VerificationError

if TYPE_CHECKING:
    from edge_client.agent.check_in import CheckedIn
    from nightshift.protocol.plan_checks import VerifiedPlan
    from nightshift.protocol.release import VerifiedRelease


@dataclass(frozen=True, slots=True)
class Assignment:
    """A plan that this device may carry out, and the release to start from.

    Attributes:
        plan: verified and allowed by the owner.
        parent: the release to start from.
        served: the release to compare the parent with; None if the plan compares nothing.
    """

    plan: VerifiedPlan
    parent: VerifiedRelease
    served: VerifiedRelease | None = None


def examine(session: Session, checked: CheckedIn, releases: Mapping[bytes, VerifiedRelease]) -> Assignment | None:
    """Judge the plan of a check-in.

    Returns:
        What to do, or None if this device has contributed to this very cohort already.

    Raises:
        VerificationError: the plan is not what a plan must be.
        EquivocationError: a second plan for a cohort, a prekey or a parent.
        DeclinedError: the owner's policy says no, or a contribution to this parent is still out.
        StateConflictError: the plan's uploads have ended.
    """
    from nightshift.protocol.plan_checks import verify_offer

    plan = verify_offer(
        checked.response.plan,
        view=checked.view,
        trust=session.trust,
        revoked=checked.revoked,
        now_unix_s=session.now_unix_s,
    )
    session.store.answers.see_cohort(plan.document.cohort_id, plan.plan_hash, session.now_unix_s)
    for member in plan.document.committee:
        if member.prekey.device_id == session.identity.device_id:
            session.store.prekeys.bind(
                member.prekey.public, plan.plan_hash, until_unix_s=plan.document.answer_deadline_unix_s
            )
    policy.check_plan(session.configuration.policy, plan.document, situation(session, plan.document.cohort_id))
    parent = _parent(plan, releases)
    served = _served(plan, releases)
    if parent.document.restores is not None:
        _note_restored(session, checked, parent)
    if _contributed(session, plan, parent):
        return None
    _require_memory(session, parent)
    return Assignment(plan, parent, served)


def situation(session: Session, cohort_id: bytes) -> policy.Situation:
    """What the owner's limits are judged against; a contribution to this very cohort does not count against it."""
    now = session.now_unix_s
    recent = session.store.contributions.since(now - policy.WEEK_S)
    return policy.Situation(
        device_id=session.identity.device_id,
        contributed_unix_s=[each.created_at_unix_s for each in recent if each.cohort_id != cohort_id],
        sources=[source.path for source in session.store.records.sources()],
        now_unix_s=now,
        rank_limit=session.configuration.training.rank,
    )


def _parent(plan: VerifiedPlan, releases: Mapping[bytes, VerifiedRelease]) -> VerifiedRelease:
    """The plan's parent among the verified releases, with nothing in contradiction to the plan."""
    from nightshift.protocol.plan_checks import verify_parent

    parent = releases.get(plan.document.parent_release)
    if parent is None:
        raise VerificationError(
            f"the plan starts from release {plan.document.parent_release.hex()[:16]}, "
            "which the coordinator did not show; refusing"
        )
    verify_parent(plan, parent)
    return parent


def _served(plan: VerifiedPlan, releases: Mapping[bytes, VerifiedRelease]) -> VerifiedRelease | None:
    """The release that the plan has compared with its parent."""
    from nightshift.protocol.plan_checks import verify_served

    wanted = plan.document.served_release
    if wanted is None:
        return None
    served = releases.get(wanted)
    if served is None:
        raise VerificationError(
            f"the plan compares its parent with release {wanted.hex()[:16]}, which the coordinator did not show; "
            "refusing"
        )
    verify_served(plan, served)
    return served


def _note_restored(session: Session, checked: CheckedIn, parent: VerifiedRelease) -> None:
    """Say why learning starts again from an earlier adapter, by the logged decision."""
    from edge_client.agent.decisions import require_reason, verify_decisions

    reason = require_reason(verify_decisions(session, checked.response, checked.view), parent)
    session.notes.append(f"task {parent.document.task!r} starts again from an earlier adapter ({reason})")


def _contributed(session: Session, plan: VerifiedPlan, parent: VerifiedRelease) -> bool:
    """Whether this very plan was carried out; refuses if the parent was used under another.

    The same adapter under another name is the same parent, unless a decision of this task restored it
    (docs/protocol.md, "Starting again").
    """
    earlier = session.store.contributions.of_parent(
        plan.document.task, parent.release_id, parent.document.adapter_sha256
    )
    if parent.document.restores is not None:
        earlier = [
            each for each in earlier if each.task != plan.document.task or each.parent_release == parent.release_id
        ]
    if any(contribution.plan_hash == plan.plan_hash for contribution in earlier):
        return True
    for contribution in earlier:
        if contribution.frees_parent(session.now_unix_s):
            continue
        until = readable_time(contribution.latest_prekey_expiry_unix_s)
        if contribution.state is State.VOID:
            raise DeclinedError(
                f"the cohort of round {contribution.round} of task {contribution.task!r} ended without a sum; this "
                "device contributes to the same parent again only when nobody can open it any more: when "
                f"{contribution.erasures_required} committee members have stated that they erased their keys, or after "
                f"{until}"
            )
        if contribution.state is State.LATE:
            raise DeclinedError(
                f"a contribution of round {contribution.round} of task {contribution.task!r} left this device but was "
                "not taken; to be safe it counts as given, and this device waits for the next release"
            )
        raise EquivocationError(
            f"a second plan for the parent of round {contribution.round} of task {contribution.task!r}, to which this "
            "device has contributed: two sums could be subtracted; refusing"
        )
    return False


def _require_memory(session: Session, parent: VerifiedRelease) -> None:
    """After a lost store, take no parent to which this device may have contributed before."""
    lost_at = session.store.database.lost_at_unix_s
    if lost_at is not None and parent.document.time_unix_s <= lost_at:
        raise DeclinedError(
            f"this device's store was lost and rebuilt at {readable_time(lost_at)}; it may have contributed to release "
            f"{parent.document.number} of task {parent.document.task!r} before, and waits for the next one"
        )
