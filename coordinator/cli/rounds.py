"""`coordinator round`, `coordinator release` and `coordinator log`."""

from __future__ import annotations

from pathlib import Path

import click

from coordinator import audit
from coordinator.cli.command import coordinator, details, json_option, table
from nightshift.host.clock import now_unix_s
from nightshift.host.console import emit
from nightshift.protocol.errors import UsageError


@click.group("round")
def rounds() -> None:
    """Rounds: one night's learning of one task."""


@rounds.command("open")
@click.argument("task")
@json_option
@click.pass_context
def open_round(context: click.Context, task: str, as_json: bool) -> None:
    """Open the next round of a task with the devices that are in the pool."""
    from coordinator.cli.views import round_record
    from coordinator.rounds import plans
    from coordinator.rounds.tasks import find_task

    with coordinator(context) as deployment, deployment.database.transaction() as session:
        cohort = plans.open_round(session, deployment, find_task(session, task), now_unix_s())
        audit.record(session, "round open", cohort.cohort_id.hex(), task=task, round=cohort.round_number)
        result = round_record(session, cohort)
    emit(result, as_json=as_json, text=f"round {result['round']} of {task} is open until {result['uploads_until']}")


@rounds.command("list")
@click.option("--task", default="", help="Only of this task.")
@json_option
@click.pass_context
def list_rounds(context: click.Context, task: str, as_json: bool) -> None:
    """Show all rounds."""
    from coordinator.cli.views import round_record
    from coordinator.rounds.transitions import list_cohorts

    with coordinator(context) as deployment, deployment.database.reading() as session:
        rows = [round_record(session, row) for row in list_cohorts(session) if task in ("", row.task)]
    columns = ("task", "round", "state", "contributions", "answers", "threshold", "uploads_until", "reason")
    emit(
        {"rounds": rows},
        as_json=as_json,
        text=table(rows, columns, empty="no rounds; open one: coordinator round open TASK"),
    )


@rounds.command("show")
@click.argument("name")
@json_option
@click.pass_context
def show_round(context: click.Context, name: str, as_json: bool) -> None:
    """Show one round, named by TASK/NUMBER or by the first digits of its cohort id."""
    from coordinator.cli.views import round_record
    from coordinator.rounds.transitions import find_cohort

    with coordinator(context) as deployment, deployment.database.reading() as session:
        result = round_record(session, find_cohort(session, name))
    emit(result, as_json=as_json, text=details(result))


@rounds.command("abort")
@click.argument("name")
@click.option("--reason", default="ended by the operator", show_default=True, help="Logged for all devices to see.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@json_option
@click.pass_context
def abort_round(context: click.Context, name: str, reason: str, yes: bool, as_json: bool) -> None:
    """End a round without a sum; its uploads are erased."""
    from coordinator.aggregation.places import erase_ended
    from coordinator.cli.views import round_record
    from coordinator.rounds.states import Event
    from coordinator.rounds.transitions import find_cohort, void

    if not yes:
        click.confirm(f"end round {name} without a sum?", abort=True, err=True)
    with coordinator(context) as deployment:
        with deployment.database.transaction() as session:
            cohort = find_cohort(session, name)
            void(session, deployment, cohort, Event.ABORT, reason=reason, now_unix_s=now_unix_s())
            audit.record(session, "round abort", cohort.cohort_id.hex(), reason=reason)
            result = round_record(session, cohort)
        erase_ended(deployment)
    emit(result, as_json=as_json, text=f"round {result['round']} of {result['task']} is void")


@click.group()
def release() -> None:
    """Releases: published adapters."""


@release.command("list")
@click.option("--task", default="", help="Only of this task.")
@json_option
@click.pass_context
def list_releases(context: click.Context, task: str, as_json: bool) -> None:
    """Show all releases."""
    from coordinator.cli.views import release_record
    from coordinator.releases import publication

    with coordinator(context) as deployment, deployment.database.reading() as session:
        rows = [release_record(row) for row in publication.list_releases(session) if task in ("", row.task)]
    shown = [{**row, "release_id": row["release_id"][:16]} for row in rows]
    columns = ("task", "number", "release_id", "contributors", "published")
    emit(
        {"releases": rows},
        as_json=as_json,
        text=table(shown, columns, empty="no releases; see: coordinator task create"),
    )


@release.command("show")
@click.argument("name")
@json_option
@click.pass_context
def show_release(context: click.Context, name: str, as_json: bool) -> None:
    """Show one release, named by TASK/NUMBER or by the first digits of its id."""
    from coordinator.cli.views import release_record
    from coordinator.releases import publication

    with coordinator(context) as deployment, deployment.database.reading() as session:
        result = release_record(publication.find_release(session, name))
    emit(result, as_json=as_json, text=details(result))


@release.command("export")
@click.argument("name")
@click.option("--output", "-o", type=click.Path(path_type=Path, dir_okay=False), required=True, help="A new file.")
@json_option
@click.pass_context
def export_release(context: click.Context, name: str, output: Path, as_json: bool) -> None:
    """Write the adapter of a release, named by TASK/NUMBER, as safetensors."""
    from coordinator.cli.views import release_record
    from coordinator.releases import publication
    from coordinator.storage import artefacts
    from nightshift.host.files import write_atomic

    if output.exists():
        raise UsageError(f"{output} exists already; name a new file")
    with coordinator(context) as deployment, deployment.database.reading() as session:
        row = publication.find_release(session, name)
        data = deployment.objects.get(artefacts.artefact_key(row.adapter_sha256))
        result = {**release_record(row), "output": str(output), "size_bytes": len(data)}
    write_atomic(output, data, mode=0o644)
    emit(result, as_json=as_json, text=f"{output}: {len(data)} bytes, release {result['task']}/{result['number']}")


@click.group("log")
def log_group() -> None:
    """The transparency log."""


@log_group.command("verify")
@json_option
@click.pass_context
def verify_log(context: click.Context, as_json: bool) -> None:
    """Hash every entry again and print size and root."""
    from coordinator.log import verify_rows

    with coordinator(context) as deployment, deployment.database.reading() as session:
        size, root = verify_rows(session)
        result = {"origin": deployment.log.origin, "size": size, "root": root.hex()}
    emit(result, as_json=as_json, text=f"{size} entries, root {root.hex()}: every entry has its hash")


GROUPS = (rounds, release, log_group)
