"""`coordinator round`, `coordinator release` and `coordinator log`."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import click

from coordinator import audit
from coordinator.cli.command import coordinator, details, json_option, table
from nightshift.host.clock import now_unix_s
from nightshift.host.console import emit
from nightshift.protocol.errors import UsageError
from nightshift.protocol.times import rfc3339


@click.group("round")
def rounds() -> None:
    """Rounds: one night's learning of one task."""


@rounds.command("open")
@click.argument("task")
@json_option
@click.pass_context
def open_round(context: click.Context, task: str, as_json: bool) -> None:
    """Open the next round of a task with the devices that are in the pool."""
    from coordinator.admin.records import round_record
    from coordinator.rounds import plans
    from coordinator.rounds.tasks import find_task

    with coordinator(context) as deployment, deployment.database.transaction() as session:
        opened = plans.open_round(session, deployment, find_task(session, task), now_unix_s())
        result = round_record(session, opened)
        cohorts = [cohort["cohort_id"] for cohort in result["cohorts"]]
        audit.record(session, "round open", f"{task}/{opened.number}", cohorts=cohorts)
    until = result["cohorts"][0]["uploads_until"]
    several = f", in {len(cohorts)} cohorts" if len(cohorts) > 1 else ""
    emit(result, as_json=as_json, text=f"round {result['round']} of {task} is open until {until}{several}")


@rounds.command("list")
@click.option("--task", default="", help="Only of this task.")
@json_option
@click.pass_context
def list_rounds(context: click.Context, task: str, as_json: bool) -> None:
    """Show all rounds."""
    from coordinator.admin.records import round_record
    from coordinator.cli.round_views import round_row
    from coordinator.rounds.rounds import list_rounds as all_rounds

    with coordinator(context) as deployment, deployment.database.reading() as session:
        rows = [round_record(session, row) for row in all_rounds(session) if task in ("", row.task)]
    columns = ("task", "round", "state", "cohorts", "contributions", "opened", "ended", "reason")
    emit(
        {"rounds": rows},
        as_json=as_json,
        text=table([round_row(row) for row in rows], columns, empty="no rounds; open one: coordinator round open TASK"),
    )


@rounds.command("show")
@click.argument("name")
@json_option
@click.pass_context
def show_round(context: click.Context, name: str, as_json: bool) -> None:
    """Show a round, named TASK/ROUND, or one cohort of it, TASK/ROUND/COHORT or the first digits of its id."""
    from coordinator.admin.records import round_record
    from coordinator.cli.round_views import round_text
    from coordinator.rounds.rounds import find

    with coordinator(context) as deployment, deployment.database.reading() as session:
        result = round_record(session, *find(session, name))
    emit(result, as_json=as_json, text=round_text(result))


@rounds.command("watch")
@click.argument("name")
@click.option("--every", "every_s", type=click.FloatRange(0.1, 3600), default=2.0, show_default=True, help="Seconds.")
@json_option
@click.pass_context
def watch_round(context: click.Context, name: str, every_s: float, as_json: bool) -> None:
    """Follow a round until it has ended: a line, or with --json an object, whenever something has changed."""
    from coordinator.admin.records import round_record
    from coordinator.cli.round_views import progress_text
    from coordinator.rounds.rounds import find

    shown = ""
    with coordinator(context) as deployment:
        while True:
            with deployment.database.reading() as session:
                result = round_record(session, *find(session, name))
            text = progress_text(result)
            if text != shown:
                emit(result, as_json=as_json, text=f"{rfc3339(now_unix_s())}  {text}")
                sys.stdout.flush()
                shown = text
            if result["ended"] is not None:
                return
            time.sleep(every_s)


@rounds.command("abort")
@click.argument("name")
@click.option("--reason", default="ended by the operator", show_default=True, help="Logged for all devices to see.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@json_option
@click.pass_context
def abort_round(context: click.Context, name: str, reason: str, yes: bool, as_json: bool) -> None:
    """End a round, or one cohort of it, without a sum; its uploads are erased. Cohorts that are opened stay opened."""
    from coordinator.admin.records import round_record
    from coordinator.aggregation.places import erase_ended
    from coordinator.rounds.advance import abort, conclude_rounds
    from coordinator.rounds.rounds import find

    if not yes:
        click.confirm(f"end {name} without a sum?", abort=True, err=True)
    with coordinator(context) as deployment:
        with deployment.database.transaction() as session:
            found, cohorts = find(session, name)
            abort(session, deployment, cohorts, reason)
            audit.record(session, "round abort", name, reason=reason)
        conclude_rounds(deployment, now_unix_s())
        erase_ended(deployment)
        with deployment.database.reading() as session:
            result = round_record(session, *find(session, f"{found.task}/{found.number}"))
    emit(
        result,
        as_json=as_json,
        text=f"{name} is ended; round {result['round']} of {result['task']} is {result['state']}",
    )


@click.group()
def release() -> None:
    """Releases: published adapters."""


@release.command("list")
@click.option("--task", default="", help="Only of this task.")
@json_option
@click.pass_context
def list_releases(context: click.Context, task: str, as_json: bool) -> None:
    """Show all releases."""
    from coordinator.admin.records import release_record
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
    from coordinator.admin.records import release_record
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
    from coordinator.admin.records import release_record
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
