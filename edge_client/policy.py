"""The owner's limits. A plan may be stricter, never laxer.

Every refusal names the limit, what the plan offers, and the setting to change,
because an owner who cannot tell why nothing happens will switch the limits off.
"""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from edge_client.configuration import PolicySettings
from nightshift.protocol.errors import DeclinedError, IncompatibleError

if TYPE_CHECKING:
    from nightshift.protocol.openness import OpennessRecord
    from nightshift.protocol.plan import PlanDocument


def accepts_task(policy: PolicySettings, task: str) -> bool:
    """Whether the owner takes part in a task of this name."""
    return any(fnmatchcase(task, pattern) for pattern in policy.tasks)


def check_plan(policy: PolicySettings, plan: PlanDocument) -> None:
    """Check a verified plan against the owner's limits, as a contributor.

    Raises:
        DeclinedError: lists every limit that the plan does not meet.
        IncompatibleError: the plan asks for noise, which this build cannot add.
    """
    reasons = plan_shortfalls(policy, plan)
    if reasons:
        raise DeclinedError(
            f"declined the plan for task {plan.task!r}, round {plan.round_number}: " + "; ".join(reasons)
        )
    if plan.noise_multiplier > 0:
        raise IncompatibleError(
            f"the plan asks for differential-privacy noise ({plan.noise_multiplier:g}), which this build cannot add; "
            "upgrade edge-client"
        )


def plan_shortfalls(policy: PolicySettings, plan: PlanDocument) -> list[str]:
    """Each of the owner's limits that a plan does not meet, in words."""
    reasons = []
    if not accepts_task(policy, plan.task):
        reasons.append(f"the task is not among those chosen here ({', '.join(policy.tasks)}; policy.tasks)")
    if plan.n_min < policy.minimum_cohort:
        reasons.append(
            f"its sum may be opened over {plan.n_min} devices, the owner wants at least "
            f"{policy.minimum_cohort} (policy.minimum_cohort)"
        )
    if len(plan.committee) < policy.smallest_committee:
        reasons.append(
            f"its committee has {len(plan.committee)} members, the owner wants at least "
            f"{policy.smallest_committee} (policy.minimum_committee)"
        )
    if policy.maximum_epsilon is not None and plan.noise_multiplier == 0:
        reasons.append(
            f"it adds no differential-privacy noise, the owner wants epsilon at most "
            f"{policy.maximum_epsilon:g} (policy.maximum_epsilon)"
        )
    return reasons


def check_duty(policy: PolicySettings, *, contributors: int, committee: int) -> None:
    """Check a frozen set against the owner's limits, as a committee member.

    Raises:
        DeclinedError: too few contributors, or too small a committee.
    """
    if contributors < policy.minimum_cohort:
        raise DeclinedError(
            f"declined to help open a sum over {contributors} devices: the owner wants at least "
            f"{policy.minimum_cohort} (policy.minimum_cohort)"
        )
    if committee < policy.smallest_committee:
        raise DeclinedError(
            f"declined to help open a sum with a committee of {committee}: the owner wants at least "
            f"{policy.smallest_committee} (policy.minimum_committee)"
        )


def check_openness(policy: PolicySettings, openness: OpennessRecord) -> None:
    """Check a model's openness record.

    Raises:
        DeclinedError: the model is less open than the owner wants.
    """
    from nightshift.protocol.openness import MofClass, WeightsFreedom

    shortfall = openness.shortfall(
        minimum_class=MofClass(policy.minimum_openness) if policy.minimum_openness else MofClass.NONE,
        minimum_freedom=WeightsFreedom(policy.minimum_licence) if policy.minimum_licence else WeightsFreedom.CLOSED,
    )
    if shortfall is not None:
        raise DeclinedError(f"declined the model: {shortfall} (policy.minimum_openness, policy.minimum_licence)")
