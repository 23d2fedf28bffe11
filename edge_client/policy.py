"""The owner's limits. A plan may be stricter, never laxer.

Every refusal names the limit, what the plan offers, and the setting to change,
because an owner who cannot tell why nothing happens will switch the limits off.

What a plan says is judged against the limits and against what only this device
knows (`Situation`): who it is, what it gave lately, which text it has. Models are
judged apart, once their manifest is here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from edge_client.configuration import PolicySettings
from nightshift.protocol.errors import DeclinedError, IncompatibleError
from nightshift.protocol.times import readable_time

if TYPE_CHECKING:
    from nightshift.protocol.identity import DeviceId
    from nightshift.protocol.manifest import Manifest
    from nightshift.protocol.openness import OpennessRecord
    from nightshift.protocol.plan import PlanDocument

WEEK_S = 7 * 86_400


@dataclass(frozen=True, slots=True)
class Situation:
    """What a device knows of itself when it judges a plan.

    Attributes:
        device_id: its own; it counts as a peer that it trusts where it sits in the committee itself.
        contributed_unix_s: when it encrypted its contributions to other cohorts; older ones than a week do not matter.
        sources: absolute paths of the text that its owner added.
        now_unix_s: its clock.
        rank_limit: most rank slots that it trains; 0 for any number.
    """

    device_id: DeviceId
    contributed_unix_s: Sequence[int]
    sources: Sequence[str]
    now_unix_s: int
    rank_limit: int = 0


def accepts_task(policy: PolicySettings, task: str) -> bool:
    """Whether the owner takes part in a task of this name."""
    return any(fnmatchcase(task, pattern) for pattern in policy.tasks)


def accepts_source(policy: PolicySettings, task: str, path: str) -> bool:
    """Whether a task may learn from the file of this absolute path; without rules every task may use all of them."""
    if not policy.sources:
        return True
    return any(
        fnmatchcase(path, allowed)
        for rule in policy.sources
        if any(fnmatchcase(task, pattern) for pattern in rule.tasks)
        for allowed in rule.paths
    )


def check_plan(policy: PolicySettings, plan: PlanDocument, situation: Situation) -> None:
    """Check a verified plan against the owner's limits, as a contributor.

    Raises:
        DeclinedError: lists every limit that the plan does not meet.
        IncompatibleError: the plan asks for noise, which this build cannot add.
    """
    reasons = plan_shortfalls(policy, plan, situation)
    if reasons:
        raise DeclinedError(
            f"declined the plan for task {plan.task!r}, round {plan.round_number}: " + "; ".join(reasons)
        )
    if plan.noise_multiplier > 0:
        raise IncompatibleError(
            f"the plan asks for differential-privacy noise ({plan.noise_multiplier:g}), which this build cannot add; "
            "upgrade edge-client"
        )


def plan_shortfalls(policy: PolicySettings, plan: PlanDocument, situation: Situation) -> list[str]:
    """Each of the owner's limits that a plan does not meet, in words."""
    reasons = task_shortfalls(policy, plan.task, situation)
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
    reasons += _missing_peers(policy, plan, situation.device_id)
    if 0 < situation.rank_limit < plan.slots.rank:
        reasons.append(
            f"it trains {plan.slots.rank} rank slots, this machine trains at most {situation.rank_limit} "
            "(training.rank); the next round offers it fewer if the task has cohorts for them"
        )
    if policy.maximum_epsilon is not None and plan.noise_multiplier == 0:
        reasons.append(
            f"it adds no differential-privacy noise, the owner wants epsilon at most "
            f"{policy.maximum_epsilon:g} (policy.maximum_epsilon)"
        )
    return reasons


def task_shortfalls(policy: PolicySettings, task: str, situation: Situation) -> list[str]:
    """Why the owner would have no part in any plan of a task just now, in words; none if it may have one."""
    reasons = []
    if not accepts_task(policy, task):
        reasons.append(f"the task is not among those chosen here ({', '.join(policy.tasks)}; policy.tasks)")
    if situation.sources and not any(accepts_source(policy, task, path) for path in situation.sources):
        reasons.append(f"none of the {len(situation.sources)} data sources is for this task (policy.sources)")
    most = policy.maximum_rounds_per_week
    recent = sorted(moment for moment in situation.contributed_unix_s if moment > situation.now_unix_s - WEEK_S)
    if most is not None and len(recent) >= most:
        # The one whose leaving the window makes room again.
        free_unix_s = recent[len(recent) - most] + WEEK_S
        reasons.append(
            f"this device contributed {len(recent)} times in the last seven days, the owner wants at most {most} "
            f"(policy.maximum_rounds_per_week); again from {readable_time(free_unix_s)}"
        )
    return reasons


def _missing_peers(policy: PolicySettings, plan: PlanDocument, device_id: DeviceId) -> list[str]:
    """Whether enough of the devices that the owner trusts by name sit in the committee.

    With C - T + 1 honest ones among C, the others are T - 1 and open nothing, whoever they are. This device is
    honest to itself, so it counts where it sits.
    """
    if not policy.pinned_peers:
        return []
    from nightshift.protocol.secagg.committee import check_peers

    try:
        check_peers(
            plan.parameters,
            [member.prekey.device_id for member in plan.committee],
            policy.pinned | {device_id},
            wanted=policy.minimum_pinned or 0,
        )
    except DeclinedError as error:
        return [f"{error} (policy.pinned_peers)"]
    return []


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


def check_model(policy: PolicySettings, manifest: Manifest) -> None:
    """Check what a model package says of its openness and licence.

    Raises:
        DeclinedError: lists every limit that the model does not meet.
    """
    reasons = model_shortfalls(policy, manifest.openness, manifest.licence.spdx)
    if reasons:
        raise DeclinedError("declined the model: " + "; ".join(reasons))


def model_shortfalls(policy: PolicySettings, openness: OpennessRecord, spdx: str) -> list[str]:
    """Each of the owner's limits that a model does not meet, in words.

    Args:
        policy: the limits.
        openness: what the package says is open.
        spdx: the licence of the package, as its publisher states it.
    """
    from nightshift.protocol.openness import MofClass, WeightsFreedom

    reasons = []
    shortfall = openness.shortfall(
        minimum_class=MofClass(policy.minimum_openness) if policy.minimum_openness else MofClass.NONE,
        minimum_freedom=WeightsFreedom(policy.minimum_licence) if policy.minimum_licence else WeightsFreedom.CLOSED,
    )
    if shortfall is not None:
        reasons.append(f"{shortfall} (policy.minimum_openness, policy.minimum_licence)")
    # SPDX identifiers are matched without regard to case (SPDX 2.3, annex D.2).
    if policy.licences and not any(fnmatchcase(spdx.lower(), pattern.lower()) for pattern in policy.licences):
        reasons.append(
            f"its licence is {spdx or 'not stated'}, the owner wants one of {', '.join(policy.licences)} "
            "(policy.licences)"
        )
    return reasons
