"""`coordinator task`."""

from __future__ import annotations

from pathlib import Path

import click

from coordinator import audit
from coordinator.cli.command import coordinator, json_option, table
from nightshift.host.clock import now_unix_s
from nightshift.host.console import emit


@click.group()
def task() -> None:
    """Tasks: what is learned, and how."""


@task.command("create")
@click.option("-f", "--file", "path", type=click.Path(path_type=Path), required=True, help="task.toml")
@json_option
@click.pass_context
def create_task(context: click.Context, path: Path, as_json: bool) -> None:
    """Create a task and publish its release 0, the untrained adapter."""
    from coordinator.admin.records import task_record
    from coordinator.rounds import tasks
    from coordinator.rounds.task_settings import read_task_file

    settings = read_task_file(path)
    with coordinator(context) as deployment, deployment.database.transaction() as session:
        row = tasks.create_task(session, deployment, settings, now_unix_s())
        audit.record(session, "task create", row.name, settings=settings.model_dump(mode="json"))
        result = task_record(session, row)
    emit(result, as_json=as_json, text=f"task {result['name']} is created, with release 0")


@task.command("list")
@json_option
@click.pass_context
def list_tasks(context: click.Context, as_json: bool) -> None:
    """Show all tasks."""
    from coordinator.admin.records import task_record
    from coordinator.rounds import tasks

    with coordinator(context) as deployment, deployment.database.reading() as session:
        rows = [task_record(session, row) for row in tasks.list_tasks(session)]
    columns = ("name", "state", "model", "method", "rank", "rounds_held", "releases")
    emit(
        {"tasks": rows}, as_json=as_json, text=table(rows, columns, empty="no tasks; make one: coordinator task create")
    )


@task.command("pause")
@click.argument("name")
@click.option("--resume", is_flag=True, help="Let it go on.")
@json_option
@click.pass_context
def pause_task(context: click.Context, name: str, resume: bool, as_json: bool) -> None:
    """Open no new rounds of a task; one that is under way ends as planned."""
    from coordinator.admin.records import task_record
    from coordinator.rounds import tasks

    with coordinator(context) as deployment, deployment.database.transaction() as session:
        row = tasks.set_paused(session, name, paused=not resume)
        audit.record(session, "task pause", row.name, paused=not resume)
        result = task_record(session, row)
    emit(result, as_json=as_json, text=f"task {name} is {result['state']}")


GROUPS = (task,)
