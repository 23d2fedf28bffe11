"""`coordinator model` and `coordinator task`."""

from __future__ import annotations

import tempfile
from pathlib import Path

import click

from coordinator import audit
from coordinator.cli.command import coordinator, details, json_option, table
from nightshift.host.clock import now_unix_s
from nightshift.host.console import emit, note
from nightshift.protocol.errors import UsageError


@click.group()
def model() -> None:
    """Model packages that tasks build on."""


@model.command("add")
@click.argument("path", type=click.Path(path_type=Path))
@click.option("--quantisation", type=click.Choice(["Q8_0", "Q4_0", "F16"]), default="Q8_0", show_default=True)
@click.option("--alias", default="", help="A short name; by default that of the file or folder.")
@click.option("--licence", "spdx", default="", help="SPDX identifier, where the file itself states none.")
@json_option
@click.pass_context
def add_model(context: click.Context, *, path: Path, quantisation: str, alias: str, spdx: str, as_json: bool) -> None:
    """Add a package folder, or make a package of a GGUF file."""
    from coordinator.cli.views import model_record
    from coordinator.models import catalogue
    from nightshift.protocol.manifest import Licence

    if not path.exists():
        raise UsageError(f"{path} does not exist")
    with coordinator(context) as deployment:
        if (path / "manifest.json").is_file():
            manifest = catalogue.store_package(deployment.objects, path)
        else:
            from nightshift.packages.build import build_package

            with tempfile.TemporaryDirectory(dir=deployment.home.directory, prefix="package-") as folder:
                package = Path(folder) / "package"
                licence = Licence(spdx) if spdx else None
                build_package(path, package, quantisation=quantisation, licence=licence, progress=note)
                manifest = catalogue.store_package(deployment.objects, package)
        with deployment.database.transaction() as session:
            row = catalogue.add_model(session, manifest, alias or path.stem, now_unix_s())
            audit.record(session, "model add", row.package_id.hex(), alias=row.alias)
            result = model_record(row)
    emit(result, as_json=as_json, text=f"model {result['alias']}: package {result['package_id']}")


@model.command("list")
@json_option
@click.pass_context
def list_models(context: click.Context, as_json: bool) -> None:
    """Show all models."""
    from coordinator.cli.views import model_record
    from coordinator.models import catalogue

    with coordinator(context) as deployment, deployment.database.reading() as session:
        rows = [model_record(row) for row in catalogue.list_models(session)]
    shown = [{**row, "package_id": row["package_id"][:16]} for row in rows]
    columns = ("alias", "package_id", "family", "quantisation", "licence", "size_bytes")
    emit(
        {"models": rows},
        as_json=as_json,
        text=table(shown, columns, empty="no models; add one: coordinator model add PATH"),
    )


@model.command("show")
@click.argument("name")
@json_option
@click.pass_context
def show_model(context: click.Context, name: str, as_json: bool) -> None:
    """Show one model, named by alias or package id."""
    from coordinator.cli.views import model_record
    from coordinator.models import catalogue

    with coordinator(context) as deployment, deployment.database.reading() as session:
        result = model_record(catalogue.find_model(session, name))
    emit(result, as_json=as_json, text=details(result))


@click.group()
def task() -> None:
    """Tasks: what is learned, and how."""


@task.command("create")
@click.option("-f", "--file", "path", type=click.Path(path_type=Path), required=True, help="task.toml")
@json_option
@click.pass_context
def create_task(context: click.Context, path: Path, as_json: bool) -> None:
    """Create a task and publish its release 0, the untrained adapter."""
    from coordinator.cli.views import task_record
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
    from coordinator.cli.views import task_record
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
    from coordinator.cli.views import task_record
    from coordinator.rounds import tasks

    with coordinator(context) as deployment, deployment.database.transaction() as session:
        row = tasks.set_paused(session, name, paused=not resume)
        audit.record(session, "task pause", row.name, paused=not resume)
        result = task_record(session, row)
    emit(result, as_json=as_json, text=f"task {name} is {result['state']}")


GROUPS = (model, task)
