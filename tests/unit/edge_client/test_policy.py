"""The owner's limits: each refusal names the limit, the offer and the setting."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner
from pydantic import ValidationError

from edge_client.cli.main import cli
from edge_client.configuration import PolicySettings
from edge_client.policy import (
    WEEK_S,
    Situation,
    accepts_source,
    accepts_task,
    check_duty,
    check_plan,
    model_shortfalls,
)
from nightshift.protocol.errors import DeclinedError, ExitCode, IncompatibleError
from nightshift.protocol.identity import DeviceId
from nightshift.protocol.openness import NOTHING_STATED, Component, ComponentRecord, Openness, OpennessRecord
from nightshift.protocol.plan import PlanDocument
from nightshift.protocol.readable_ids import readable_id
from tests.support.plans import World

AS_OFFERED = PolicySettings(minimum_cohort=5)
NOW = 1_800_000_000
ALONE = Situation(DeviceId(b"d" * 32), (), (), NOW)
"""A device that gave nothing yet, has no text, and sits on no committee."""


@pytest.fixture(scope="module")
def plan() -> PlanDocument:
    """Ten members, at least five contributors, task "notes", no noise."""
    return World.make().open_cohort(n_min=5).document


def test_a_plan_within_the_limits_is_accepted(plan: PlanDocument) -> None:
    check_plan(AS_OFFERED, plan, ALONE)


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
        check_plan(limits, plan, ALONE)
    assert caught.value.exit_code is ExitCode.NOT_NOW


def test_a_small_committee_is_declined_with_the_reason() -> None:
    plan = World.make(devices=3).open_cohort(n_min=5).document
    assert len(plan.committee) == 3
    with pytest.raises(DeclinedError, match=r"has 3 members, the owner wants at least 4 \(policy.minimum_committee\)"):
        check_plan(PolicySettings(minimum_cohort=5, minimum_committee=4), plan, ALONE)
    check_plan(PolicySettings(minimum_cohort=5, minimum_committee=3), plan, ALONE)


@pytest.mark.parametrize("limit", [0, 2, 16])
def test_as_many_rank_slots_as_the_machine_trains_are_accepted(plan: PlanDocument, limit: int) -> None:
    assert plan.slots.rank == 2
    check_plan(AS_OFFERED, plan, replace(ALONE, rank_limit=limit))


def test_more_rank_slots_than_the_machine_trains_are_declined_with_the_reason(plan: PlanDocument) -> None:
    with pytest.raises(DeclinedError, match=r"2 rank slots, this machine trains at most 1 \(training.rank\)"):
        check_plan(AS_OFFERED, plan, replace(ALONE, rank_limit=1))


@pytest.mark.parametrize(("cohort", "committee"), [(3, 3), (5, 5), (10, 10), (200, 10)])
def test_an_owner_who_says_nothing_of_committees_wants_what_the_cohort_calls_for(cohort: int, committee: int) -> None:
    """A coordinator chooses C; the default must not let it choose three where ten are usual."""
    assert PolicySettings(minimum_cohort=cohort).smallest_committee == committee
    with pytest.raises(DeclinedError, match=rf"at least {committee} \(policy.minimum_committee\)"):
        check_duty(PolicySettings(minimum_cohort=cohort), contributors=cohort, committee=committee - 1)
    check_duty(PolicySettings(minimum_cohort=cohort), contributors=cohort, committee=committee)


def test_every_reason_is_given_at_once(plan: PlanDocument) -> None:
    with pytest.raises(DeclinedError, match=r"policy\.tasks.*policy\.minimum_cohort.*policy\.maximum_epsilon"):
        check_plan(PolicySettings(minimum_cohort=50, tasks=("mail",), maximum_epsilon=1), plan, ALONE)


def test_noise_that_this_build_cannot_add_is_no_plan_for_it(plan: PlanDocument) -> None:
    with pytest.raises(IncompatibleError, match="noise"):
        check_plan(AS_OFFERED, replace(plan, noise_multiplier=1.0), ALONE)


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


def peers_of(plan: PlanDocument, count: int) -> tuple[str, ...]:
    """So many members of its committee, as an owner writes them down."""
    return tuple(readable_id(member.prekey.device_id) for member in plan.committee[:count])


STRANGERS = tuple((bytes([number]) * 32).hex() for number in range(1, 8))


@pytest.mark.parametrize(("pins", "accepted"), [(0, False), (2, False), (3, True), (10, True)])
def test_pinned_peers_must_be_so_many_that_the_others_open_nothing(
    plan: PlanDocument, pins: int, accepted: bool
) -> None:
    """C = 10 opens with T = 8 answers: three pins leave seven others."""
    limits = PolicySettings(minimum_cohort=5, pinned_peers=(*STRANGERS, *peers_of(plan, pins)))
    if accepted:
        check_plan(limits, plan, ALONE)
        return
    reason = rf"{pins} of its 10 .* by name, 3 are needed .*\(policy.pinned_peers\)"
    with pytest.raises(DeclinedError, match=reason):
        check_plan(limits, plan, ALONE)


def test_more_pins_than_that_can_be_asked_for(plan: PlanDocument) -> None:
    """With C - f = 7 of 10 no second set can open, whatever the others do."""
    for pins in (6, 7):
        limits = PolicySettings(minimum_cohort=5, pinned_peers=(*STRANGERS, *peers_of(plan, pins)), minimum_pinned=7)
        if pins == 7:
            check_plan(limits, plan, ALONE)
        else:
            with pytest.raises(DeclinedError, match=r"6 of its 10 .* 7 are needed"):
                check_plan(limits, plan, ALONE)


def test_this_device_is_a_peer_that_its_owner_trusts(plan: PlanDocument) -> None:
    limits = PolicySettings(minimum_cohort=5, pinned_peers=peers_of(plan, 2))
    with pytest.raises(DeclinedError, match="2 of its 10"):
        check_plan(limits, plan, ALONE)
    check_plan(limits, plan, replace(ALONE, device_id=plan.committee[5].prekey.device_id))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"pinned_peers": ["friend"]}, "groups of 7"),
        ({"pinned_peers": ["g" * 64]}, "64 digits"),
        ({"pinned_peers": [STRANGERS[0]], "minimum_pinned": 2}, "no plan could satisfy it"),
        ({"sources": [{"tasks": ["*"], "paths": ["notes/*"]}]}, "not a whole path"),
        ({"sources": [{"tasks": [], "paths": ["/notes/*"]}]}, "at least 1 item"),
        ({"maximum_rounds_per_week": 0}, "greater than or equal to 1"),
    ],
)
def test_a_limit_that_cannot_be_meant_is_refused_when_the_file_is_read(fields: object, message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        PolicySettings.model_validate(fields)


def test_at_most_so_many_rounds_a_week(plan: PlanDocument) -> None:
    limits = PolicySettings(minimum_cohort=5, maximum_rounds_per_week=2)
    day = 86_400
    check_plan(limits, plan, replace(ALONE, contributed_unix_s=[NOW - day]))
    check_plan(limits, plan, replace(ALONE, contributed_unix_s=[NOW - WEEK_S, NOW - 8 * day, NOW - day]))
    # The earlier of the two leaves the seven days a day from now.
    with pytest.raises(DeclinedError, match=r"2 times .* at most 2 .* again from 2027-01-16T08:00Z"):
        check_plan(limits, plan, replace(ALONE, contributed_unix_s=[NOW - day, NOW - 6 * day]))


@pytest.mark.parametrize(
    ("task", "path", "accepted"),
    [
        ("notes", "/srv/me/notes/a.jsonl", True),
        ("notes", "/srv/me/notes/deep/a.jsonl", True),
        ("notes", "/srv/me/mail/a.jsonl", False),
        ("notes-2", "/srv/me/notes/a.jsonl", False),
        ("mail-home", "/srv/me/mail/a.jsonl", True),
        ("mail-home", "/srv/me/mail/a.csv", False),
    ],
)
def test_a_task_learns_from_what_the_rules_give_it(task: str, path: str, accepted: bool) -> None:
    rules = [
        {"tasks": ["notes"], "paths": ["/srv/me/notes/*"]},
        {"tasks": ["mail-*"], "paths": ["/srv/me/mail/*.jsonl"]},
    ]
    assert accepts_source(PolicySettings.model_validate({"sources": rules}), task, path) is accepted
    assert accepts_source(PolicySettings(), task, path)


def test_a_task_for_which_no_source_is_left_is_declined(plan: PlanDocument) -> None:
    limits = PolicySettings.model_validate(
        {"minimum_cohort": 5, "sources": [{"tasks": ["notes"], "paths": ["/srv/me/notes/*"]}]}
    )
    with pytest.raises(DeclinedError, match=r"none of the 1 data sources is for this task \(policy.sources\)"):
        check_plan(limits, plan, replace(ALONE, sources=["/srv/me/mail.jsonl"]))
    check_plan(limits, plan, replace(ALONE, sources=["/srv/me/mail.jsonl", "/srv/me/notes/a.jsonl"]))


def test_home_is_written_with_a_tilde(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/srv/me")
    limits = PolicySettings.model_validate({"sources": [{"tasks": ["*"], "paths": ["~/notes/*"]}]})
    assert accepts_source(limits, "notes", "/srv/me/notes/a.jsonl")


def test_openness_is_asked_for_only_where_the_owner_does() -> None:
    assert model_shortfalls(PolicySettings(), NOTHING_STATED, "") == []
    (reason,) = model_shortfalls(PolicySettings(minimum_openness="III"), NOTHING_STATED, "")
    assert "class III" in reason
    (reason,) = model_shortfalls(PolicySettings(minimum_licence="free"), NOTHING_STATED, "")
    assert "licence" in reason
    free = OpennessRecord({Component.WEIGHTS: ComponentRecord(Openness.OPEN, "MIT")})
    assert model_shortfalls(PolicySettings(minimum_licence="free"), free, "MIT") == []


@pytest.mark.parametrize(
    ("spdx", "accepted"), [("Apache-2.0", True), ("apache-2.0", True), ("CC-BY-4.0", True), ("GPL-3.0", False)]
)
def test_licences_are_named_or_patterns(spdx: str, accepted: bool) -> None:
    reasons = model_shortfalls(PolicySettings(licences=("Apache-2.0", "CC-BY-*")), NOTHING_STATED, spdx)
    assert (reasons == []) is accepted
    assert accepted or f"its licence is {spdx}" in reasons[0]


@pytest.mark.parametrize(
    ("limits", "expected"),
    [
        (
            "",
            [
                "contribute only to sums over at least 10 devices",
                "that only a committee of at least 10 can open",
                "for every task",
                "as often as there are rounds",
                "from every data source",
                "differential-privacy noise is not asked for",
                "any model",
                "weights under any terms",
                "under any licence",
            ],
        ),
        (
            'minimum_cohort = 4\ntasks = ["notes-*"]\nmaximum_rounds_per_week = 1\nmaximum_epsilon = 2.5\n'
            'minimum_openness = "II"\nminimum_licence = "free"\nlicences = ["MIT", "CC-BY-*"]\n'
            '[[policy.sources]]\ntasks = ["notes-*"]\npaths = ["/texts/*"]\n',
            [
                "contribute only to sums over at least 4 devices",
                "that only a committee of at least 4 can open",
                "for the tasks notes-*",
                "at most 1 time in seven days",
                "the tasks notes-* from /texts/* only",
                "with epsilon at most 2.5",
                "models of openness class II or better",
                "weights that are at least free",
                "under one of the licences MIT, CC-BY-*",
            ],
        ),
    ],
)
def test_the_limits_in_words(limits: str, expected: list[str], tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text(f"[policy]\n{limits}", "utf-8")
    shown = CliRunner().invoke(cli, ["--home", str(tmp_path), "policy", "show"])
    assert shown.exit_code == 0, shown.output
    assert shown.output.splitlines() == expected
