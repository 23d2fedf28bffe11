"""The owner's limits: each refusal names the limit, the offer and the setting."""

from __future__ import annotations

from dataclasses import replace

import pytest

from edge_client.configuration import PolicySettings
from edge_client.policy import accepts_task, check_duty, check_openness, check_plan
from nightshift.protocol.errors import DeclinedError, ExitCode, IncompatibleError
from nightshift.protocol.openness import NOTHING_STATED, Component, ComponentRecord, Openness, OpennessRecord
from nightshift.protocol.plan import PlanDocument
from tests.support.plans import World

AS_OFFERED = PolicySettings(minimum_cohort=5)


@pytest.fixture(scope="module")
def plan() -> PlanDocument:
    """Ten members, at least five contributors, task "notes", no noise."""
    return World.make().open_cohort(n_min=5).document


def test_a_plan_within_the_limits_is_accepted(plan: PlanDocument) -> None:
    check_plan(AS_OFFERED, plan)


@pytest.mark.parametrize(
    ("limits", "reason"),
    [
        (PolicySettings(minimum_cohort=6), r"over 5 devices, the owner wants at least 6 \(policy.minimum_cohort\)"),
        (PolicySettings(minimum_cohort=5, tasks=("mail-*",)), r"not among those chosen here \(mail-\*; policy.tasks\)"),
        (PolicySettings(minimum_cohort=5, maximum_epsilon=8), r"epsilon at most 8 \(policy.maximum_epsilon\)"),
    ],
)
def test_a_plan_below_a_limit_is_declined_with_the_reason(
    plan: PlanDocument, limits: PolicySettings, reason: str
) -> None:
    with pytest.raises(DeclinedError, match=reason) as caught:
        check_plan(limits, plan)
    assert caught.value.exit_code is ExitCode.NOT_NOW


def test_a_small_committee_is_declined_with_the_reason() -> None:
    plan = World.make(devices=3).open_cohort(n_min=5).document
    assert len(plan.committee) == 3
    with pytest.raises(DeclinedError, match=r"has 3 members, the owner wants at least 4 \(policy.minimum_committee\)"):
        check_plan(PolicySettings(minimum_cohort=5, minimum_committee=4), plan)
    check_plan(PolicySettings(minimum_cohort=5, minimum_committee=3), plan)


@pytest.mark.parametrize(("cohort", "committee"), [(3, 3), (5, 5), (10, 10), (200, 10)])
def test_an_owner_who_says_nothing_of_committees_wants_what_the_cohort_calls_for(cohort: int, committee: int) -> None:
    """A coordinator chooses C; the default must not let it choose three where ten are usual."""
    assert PolicySettings(minimum_cohort=cohort).smallest_committee == committee
    with pytest.raises(DeclinedError, match=rf"at least {committee} \(policy.minimum_committee\)"):
        check_duty(PolicySettings(minimum_cohort=cohort), contributors=cohort, committee=committee - 1)
    check_duty(PolicySettings(minimum_cohort=cohort), contributors=cohort, committee=committee)


def test_every_reason_is_given_at_once(plan: PlanDocument) -> None:
    with pytest.raises(DeclinedError, match=r"policy\.tasks.*policy\.minimum_cohort.*policy\.maximum_epsilon"):
        check_plan(PolicySettings(minimum_cohort=50, tasks=("mail",), maximum_epsilon=1), plan)


def test_noise_that_this_build_cannot_add_is_no_plan_for_it(plan: PlanDocument) -> None:
    with pytest.raises(IncompatibleError, match="noise"):
        check_plan(AS_OFFERED, replace(plan, noise_multiplier=1.0))


@pytest.mark.parametrize(
    ("patterns", "task", "accepted"),
    [
        (("*",), "anything", True),
        (("notes",), "notes", True),
        (("notes",), "notes-2", False),
        (("notes", "mail-*"), "mail-home", True),
        (("mail-*",), "MAIL-home", False),
        ((), "notes", False),
    ],
)
def test_tasks_are_names_or_patterns(patterns: tuple[str, ...], task: str, accepted: bool) -> None:
    assert accepts_task(PolicySettings(tasks=patterns), task) is accepted


def test_a_member_declines_a_set_below_its_own_minimum() -> None:
    check_duty(PolicySettings(minimum_cohort=10), contributors=10, committee=10)
    with pytest.raises(DeclinedError, match="over 9 devices"):
        check_duty(PolicySettings(minimum_cohort=10), contributors=9, committee=10)
    with pytest.raises(DeclinedError, match="committee of 3"):
        check_duty(PolicySettings(minimum_cohort=10, minimum_committee=4), contributors=10, committee=3)


def test_openness_is_asked_for_only_where_the_owner_does() -> None:
    check_openness(PolicySettings(), NOTHING_STATED)
    with pytest.raises(DeclinedError, match="class III"):
        check_openness(PolicySettings(minimum_openness="III"), NOTHING_STATED)
    with pytest.raises(DeclinedError, match="licence"):
        check_openness(PolicySettings(minimum_licence="free"), NOTHING_STATED)
    free = OpennessRecord({Component.WEIGHTS: ComponentRecord(Openness.OPEN, "MIT")})
    check_openness(PolicySettings(minimum_licence="free"), free)
