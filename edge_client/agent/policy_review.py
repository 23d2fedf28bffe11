"""What the owner's limits say of everything that the coordinator offers now: each task, and each plan that waits.

Nothing is trained, sent or bound: plans are asked for one after another and judged, models by their manifests.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from edge_client import policy
from edge_client.agent.check_in import CheckedIn, peek
from edge_client.agent.examination import situation
from edge_client.agent.next_task import MOST_TASKS, next_offer, offered_task, order_of_tasks
from edge_client.agent.releases import verify_offers
from edge_client.agent.session import Session

if TYPE_CHECKING:
    from nightshift.protocol.plan import PlanDocument


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the limits say of one task.

    Attributes:
        task: its name.
        served_unix_s: when the coordinator served it last; None if it never did.
        round_number: of the plan that waits for this device; None if none does.
        plan_hash: H of that plan, 32 bytes.
        reasons: each limit that stands against it, in words; none if this device would take part.
    """

    task: str
    served_unix_s: int | None
    round_number: int | None
    plan_hash: bytes | None
    reasons: tuple[str, ...]


def review(session: Session) -> list[Verdict]:
    """Judge everything on offer, in the order in which the coordinator serves it.

    Raises:
        VerificationError: a plan or release is not what it must be.
        NightshiftError: as a check-in.
    """
    checked = peek(session)
    order = order_of_tasks(checked)
    base_models = {
        release.document.task: release.document.base_model
        for release in verify_offers(session, checked.response, checked.view).values()
    }
    plans = _plans(session, checked)
    verdicts = []
    for turn in order:
        plan, plan_hash = plans.get(turn.task, (None, None))
        known = situation(session, plan.cohort_id if plan else b"")
        limits = session.configuration.policy
        reasons = (
            policy.plan_shortfalls(limits, plan, known) if plan else policy.task_shortfalls(limits, turn.task, known)
        )
        base_model = plan.base_model if plan else base_models.get(turn.task)
        if base_model is not None:
            manifest = session.packages.manifest(session.connection, base_model)
            reasons += policy.model_shortfalls(limits, manifest.openness, manifest.licence.spdx)
        verdicts.append(
            Verdict(
                turn.task, turn.served_unix_s or None, plan.round_number if plan else None, plan_hash, tuple(reasons)
            )
        )
    return verdicts


def _plans(session: Session, checked: CheckedIn) -> dict[str, tuple[PlanDocument, bytes]]:
    """Every plan that waits for this device, verified: task -> plan and H."""
    from nightshift.protocol.plan_checks import verify_offer

    plans: dict[str, tuple[PlanDocument, bytes]] = {}
    following: CheckedIn | None = checked if checked.response.HasField("plan") else None
    while following is not None and len(plans) < MOST_TASKS:
        plan = verify_offer(
            following.response.plan,
            view=following.view,
            trust=session.trust,
            revoked=following.revoked,
            now_unix_s=session.now_unix_s,
        )
        plans[offered_task(following)] = (plan.document, plan.plan_hash)
        following = next_offer(session, following, list(plans))
    return plans
