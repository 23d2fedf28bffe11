"""`edge-client policy`: the owner's limits."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from edge_client.cli.options import Call, device_command

if TYPE_CHECKING:
    from edge_client.agent.policy_review import Verdict
    from edge_client.configuration import PolicySettings


@click.group(short_help="The owner's limits.")
def policy() -> None:
    """The owner's limits; the coordinator can only be stricter. They are set in config.toml, [policy]."""


@policy.command(epilog="Example: edge-client policy show")
@device_command
def show(call: Call) -> None:
    """Show the limits, in words."""
    settings = call.configuration().policy
    call.emit(settings.model_dump(mode="json"), "\n".join(_sentences(settings)))


def _sentences(settings: PolicySettings) -> list[str]:
    lines = [
        f"contribute only to sums over at least {settings.minimum_cohort} devices",
        f"that only a committee of at least {settings.smallest_committee} can open",
    ]
    if settings.pinned_peers:
        more = f", at least {settings.minimum_pinned}" if settings.minimum_pinned else ""
        lines.append(f"with enough of these peers on it that nothing opens without one of them{more}:")
        lines += [f"  {peer}" for peer in settings.pinned_peers]
    return [*lines, *_what_and_how_often(settings), *_of_the_model(settings)]


def _what_and_how_often(settings: PolicySettings) -> list[str]:
    from nightshift.host.wording import number_of

    tasks = ", ".join(settings.tasks) or "(none)"
    most = settings.maximum_rounds_per_week
    rules = [
        f"the tasks {', '.join(rule.tasks)} from {', '.join(rule.paths) or '(nothing)'} only"
        for rule in settings.sources
    ]
    return [
        "for every task" if "*" in settings.tasks else f"for the tasks {tasks}",
        "as often as there are rounds" if most is None else f"at most {number_of(most, 'time')} in seven days",
        *(rules or ["from every data source"]),
        "differential-privacy noise is not asked for"
        if settings.maximum_epsilon is None
        else f"with epsilon at most {settings.maximum_epsilon:g}",
    ]


def _of_the_model(settings: PolicySettings) -> list[str]:
    return [
        "any model"
        if settings.minimum_openness is None
        else f"models of openness class {settings.minimum_openness} or better",
        "weights under any terms"
        if settings.minimum_licence is None
        else f"weights that are at least {settings.minimum_licence}",
        f"under one of the licences {', '.join(settings.licences)}" if settings.licences else "under any licence",
    ]


@policy.command(epilog="Example: edge-client policy check")
@device_command
def check(call: Call) -> int:
    """Ask for everything on offer now, and say what these limits decline, and why (exit status 4: something).

    Tasks come in the order in which the coordinator serves them: the one that was served least
    recently is first. Nothing is trained, and nothing but the questions is sent.
    """
    from edge_client.agent.policy_review import review
    from edge_client.agent.session_opening import open_session
    from nightshift.protocol.errors import ExitCode, VerificationError
    from nightshift.protocol.times import rfc3339

    with open_session(call.home, call.configuration()) as session:
        try:
            verdicts = review(session)
        except VerificationError as error:
            session.report(error)
            raise
    value = [
        {
            "task": verdict.task,
            "served": rfc3339(verdict.served_unix_s),
            "round": verdict.round_number,
            "plan": verdict.plan_hash.hex() if verdict.plan_hash else None,
            "accepted": not verdict.reasons,
            "reasons": list(verdict.reasons),
        }
        for verdict in verdicts
    ]
    declined = any(verdict.reasons for verdict in verdicts)
    lines = [line for place, verdict in enumerate(verdicts, start=1) for line in _lines(place, verdict)]
    call.emit({"tasks": value, "declined": declined}, "\n".join(lines) or "the coordinator has no task")
    return int(ExitCode.NOT_NOW if declined else ExitCode.OK)


def _lines(place: int, verdict: Verdict) -> list[str]:
    waits = "no plan waits" if verdict.round_number is None else f"the plan of round {verdict.round_number} waits"
    judged = "would be declined:" if verdict.reasons else "within the limits"
    return [f"{place}. {verdict.task}: {waits}; {judged}", *(f"   - {reason}" for reason in verdict.reasons)]
