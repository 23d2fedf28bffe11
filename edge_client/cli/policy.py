"""`edge-client policy`: the owner's limits."""

from __future__ import annotations

import click

from edge_client.cli.options import Call, device_command


@click.group(short_help="The owner's limits.")
def policy() -> None:
    """The owner's limits; the coordinator can only be stricter. They are set in config.toml, [policy]."""


@policy.command(epilog="Example: edge-client policy show")
@device_command
def show(call: Call) -> None:
    """Show the limits, in words."""
    settings = call.configuration().policy
    lines = [
        f"contribute only to sums over at least {settings.minimum_cohort} devices",
        f"that only a committee of at least {settings.smallest_committee} can open",
        f"for the tasks {', '.join(settings.tasks)}",
        "differential-privacy noise is not asked for"
        if settings.maximum_epsilon is None
        else f"with epsilon at most {settings.maximum_epsilon:g}",
        "any model"
        if settings.minimum_openness is None
        else f"models of openness class {settings.minimum_openness} or better",
        "any licence of the weights"
        if settings.minimum_licence is None
        else f"weights whose licence is at least {settings.minimum_licence}",
    ]
    call.emit(settings.model_dump(mode="json"), "\n".join(lines))


@policy.command(epilog="Example: edge-client policy check")
@device_command
def check(call: Call) -> None:
    """Ask for the plan that is offered now, and say whether these limits accept it (exit status 4: no)."""
    from edge_client.agent.check_in import peek
    from edge_client.agent.session_opening import open_session
    from edge_client.policy import check_plan
    from nightshift.protocol.plan_checks import verify_offer

    configuration = call.configuration()
    with open_session(call.home, configuration) as session:
        checked = peek(session)
        if not checked.response.HasField("plan"):
            call.emit({"plan": None}, "no plan is offered now")
            return
        plan = verify_offer(
            checked.response.plan,
            view=checked.view,
            trust=session.trust,
            revoked=checked.revoked,
            now_unix_s=session.now_unix_s,
        )
    document = plan.document
    check_plan(configuration.policy, document)
    what = f"the plan for task {document.task!r}, round {document.round_number}"
    call.emit({"plan": plan.plan_hash.hex(), "accepted": True}, f"{what} is within the limits")
