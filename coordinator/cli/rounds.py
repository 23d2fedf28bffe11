"""`coordinator round`."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Any

import click

from coordinator.cli.api import admin_api, pages
from coordinator.cli.command import json_option
from coordinator.cli.tables import table
from nightshift.host.clock import now_unix_s
from nightshift.host.console import emit
from nightshift.protocol.times import rfc3339

_COLUMNS = ("task", "round", "state", "cohorts", "contributions", "opened", "ended", "reason")


@click.group("round")
def rounds() -> None:
    """Rounds: one night's learning of one task."""


@rounds.command("open", epilog="Example: coordinator round open commands")
@click.argument("task")
@json_option
@click.pass_context
def open_round(context: click.Context, task: str, as_json: bool) -> None:
    """Open the next round of a task with the devices that are in the pool."""
    from coordinator.admin import round_verbs as verbs
    from coordinator.admin.messages import to_record
    from nightshift.admin.v1 import admin_pb2 as pb

    with admin_api(context) as api:
        result = to_record(api.call(verbs.open_round, pb.OpenRoundRequest(task=task)).round)
    cohorts = result["cohorts"]
    several = f", in {len(cohorts)} cohorts" if len(cohorts) > 1 else ""
    emit(
        result,
        as_json=as_json,
        text=f"round {result['round']} of {task} is open until {cohorts[0]['uploads_until']}{several}",
    )


@rounds.command("list", epilog="Example: coordinator round list --task commands")
@click.option("--task", default="", help="Only of this task.")
@json_option
@click.pass_context
def list_rounds(context: click.Context, task: str, as_json: bool) -> None:
    """Show all rounds."""
    from coordinator.admin import round_verbs as verbs
    from coordinator.cli.round_views import round_row
    from nightshift.admin.v1 import admin_pb2 as pb

    with admin_api(context) as api:
        rows = pages(api, verbs.list_rounds, pb.ListRoundsRequest(task=task), "rounds")
    emit(
        {"rounds": rows},
        as_json=as_json,
        text=table(
            [round_row(row) for row in rows], _COLUMNS, empty="no rounds; open one: coordinator round open TASK"
        ),
    )


@rounds.command("show", epilog="Example: coordinator round show commands/3")
@click.argument("name")
@json_option
@click.pass_context
def show_round(context: click.Context, name: str, as_json: bool) -> None:
    """Show a round, named TASK/ROUND, or one cohort of it, TASK/ROUND/COHORT or the first digits of its id."""
    from coordinator.admin import round_verbs as verbs
    from coordinator.admin.messages import to_record
    from coordinator.cli.round_views import round_text
    from nightshift.admin.v1 import admin_pb2 as pb

    with admin_api(context) as api:
        result = to_record(api.call(verbs.get_round, pb.GetRoundRequest(name=name)).round)
    emit(result, as_json=as_json, text=round_text(result))


@rounds.command("watch", epilog="Example: coordinator round watch commands/3 --json | jq .state")
@click.argument("name")
@click.option("--every", "every_s", type=click.FloatRange(0.1, 3600), default=2.0, show_default=True, help="Seconds.")
@json_option
@click.pass_context
def watch_round(context: click.Context, name: str, every_s: float, as_json: bool) -> None:
    """Follow a round until it has ended.

    On a terminal the table changes in place; in a pipe it is a line, and with
    --json an object, whenever something has changed.
    """
    from coordinator.admin import round_verbs as verbs
    from coordinator.admin.messages import to_record
    from nightshift.admin.v1 import admin_pb2 as pb

    with admin_api(context) as api:
        ended = False
        while not ended:
            # A stream ends after an hour, or when the service does; whoever watches goes on.
            replies = api.call(verbs.watch_round, pb.WatchRoundRequest(name=name, every_s=every_s))
            ended = _follow((to_record(reply.round) for reply in replies), as_json=as_json)


def _follow(records: Iterable[dict[str, Any]], *, as_json: bool) -> bool:
    """Show each as it comes; returns whether the last one has ended."""
    from coordinator.cli.round_views import progress_text, round_table

    if sys.stdout.isatty() and not as_json:
        from rich.live import Live

        record = None
        with Live(auto_refresh=False) as live:
            for record in records:
                live.update(round_table(record), refresh=True)
        return record is not None and record["ended"] is not None
    record = None
    for record in records:
        emit(record, as_json=as_json, text=f"{rfc3339(now_unix_s())}  {progress_text(record)}")
        sys.stdout.flush()
    return record is not None and record["ended"] is not None


@rounds.command("abort", epilog='Example: coordinator round abort commands/3 --reason "wrong learning rate"')
@click.argument("name")
@click.option("--reason", default="ended by the operator", show_default=True, help="Logged for all devices to see.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@json_option
@click.pass_context
def abort_round(context: click.Context, name: str, reason: str, yes: bool, as_json: bool) -> None:
    """End a round, or one cohort of it, without a sum; its uploads are erased. Cohorts that are opened stay opened."""
    from coordinator.admin import round_verbs as verbs
    from coordinator.admin.messages import to_record
    from nightshift.admin.v1 import admin_pb2 as pb

    if not yes:
        click.confirm(f"end {name} without a sum?", abort=True, err=True)
    with admin_api(context) as api:
        result = to_record(api.call(verbs.abort_round, pb.AbortRoundRequest(name=name, reason=reason)).round)
    emit(
        result,
        as_json=as_json,
        text=f"{name} is ended; round {result['round']} of {result['task']} is {result['state']}",
    )


GROUPS = (rounds,)
