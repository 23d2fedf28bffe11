"""`coordinator task`."""

from __future__ import annotations

from pathlib import Path

import click

from coordinator.cli.api import admin_api, pages
from coordinator.cli.command import json_option
from coordinator.cli.tables import table
from nightshift.host.console import emit


@click.group()
def task() -> None:
    """Tasks: what is learned, and how."""


@task.command("create", epilog="Example: coordinator task create -f task.toml")
@click.option("-f", "--file", "path", type=click.Path(path_type=Path), required=True, help="task.toml")
@json_option
@click.pass_context
def create_task(context: click.Context, path: Path, as_json: bool) -> None:
    """Create a task and publish its release 0, the untrained adapter."""
    from coordinator.admin import learning_verbs as verbs
    from coordinator.admin.messages import to_record
    from coordinator.rounds.task_settings import read_task_file
    from nightshift.admin.v1 import admin_pb2 as pb

    request = pb.CreateTaskRequest(settings=read_task_file(path).model_dump_json())
    with admin_api(context) as api:
        result = to_record(api.call(verbs.create_task, request).task)
    emit(result, as_json=as_json, text=f"task {result['name']} is created, with release 0")


@task.command("list", epilog="Example: coordinator task list")
@json_option
@click.pass_context
def list_tasks(context: click.Context, as_json: bool) -> None:
    """Show all tasks, and in which order they are served: the least recently served first."""
    from coordinator.admin import learning_verbs as verbs
    from nightshift.admin.v1 import admin_pb2 as pb

    with admin_api(context) as api:
        rows = pages(api, verbs.list_tasks, pb.ListTasksRequest(), "tasks")
    columns = ("name", "state", "turn", "served", "model", "method", "rank", "rounds_held", "releases")
    emit(
        {"tasks": rows}, as_json=as_json, text=table(rows, columns, empty="no tasks; make one: coordinator task create")
    )


@task.command("pause", epilog="Example: coordinator task pause commands")
@click.argument("name")
@json_option
@click.pass_context
def pause_task(context: click.Context, name: str, as_json: bool) -> None:
    """Open no new rounds of a task; one that is under way ends as planned."""
    _set_paused(context, name, paused=True, as_json=as_json)


@task.command("resume", epilog="Example: coordinator task resume commands")
@click.argument("name")
@json_option
@click.pass_context
def resume_task(context: click.Context, name: str, as_json: bool) -> None:
    """Let a paused task open rounds again."""
    _set_paused(context, name, paused=False, as_json=as_json)


def _set_paused(context: click.Context, name: str, *, paused: bool, as_json: bool) -> None:
    from coordinator.admin import learning_verbs as verbs
    from coordinator.admin.messages import to_record
    from nightshift.admin.v1 import admin_pb2 as pb

    with admin_api(context) as api:
        result = to_record(api.call(verbs.pause_task, pb.PauseTaskRequest(name=name, paused=paused)).task)
    emit(result, as_json=as_json, text=f"task {name} is {result['state']}")


GROUPS = (task,)
