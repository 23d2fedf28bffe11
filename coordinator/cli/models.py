"""`coordinator model`: packages that tasks build on."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from coordinator import audit
from coordinator.cli.command import coordinator, details, json_option, table
from nightshift.host.clock import now_unix_s
from nightshift.host.console import emit, note

if TYPE_CHECKING:
    from nightshift.packages.hub import HubReference


@click.group()
def model() -> None:
    """Model packages that tasks build on."""


@model.command("add")
@click.argument("source", metavar="PATH|HUB NAME")
@click.option(
    "--quantisation",
    type=click.Choice(["auto", "Q8_0", "Q4_0", "F16"]),
    default="auto",
    show_default=True,
    help="Of the package; auto keeps what the source has, and makes Q8_0 of a float one.",
)
@click.option("--alias", default="", help="A short name; by default that of the file or folder.")
@click.option("--licence", "spdx", default="", help="SPDX identifier, where the source itself states none.")
@click.option(
    "--openness",
    "terms",
    type=click.Path(path_type=Path),
    help="TOML file with the licence and the components of the Model Openness Framework (docs/packages.md).",
)
@json_option
@click.pass_context
def add_model(
    context: click.Context,
    *,
    source: str,
    quantisation: str,
    alias: str,
    spdx: str,
    terms: Path | None,
    as_json: bool,
) -> None:
    """Add a package's folder, or make a package of a GGUF file, a Hugging Face folder or a hub's model.

    A HUB NAME is organisation/name, with :FILE or :Q4_0 behind it to choose a file and @REVISION to choose a commit.
    """
    from coordinator.admin.records import model_record
    from coordinator.models import catalogue
    from coordinator.models.publishing import publish
    from nightshift.host.progress import bar
    from nightshift.packages.hub import parse_reference
    from nightshift.packages.importing import Wishes
    from nightshift.packages.terms import licence_named, read_terms

    licence, openness = read_terms(terms) if terms is not None else (None, None)
    if spdx:
        licence = licence_named(spdx)
    path = Path(source)
    reference = None if path.exists() else parse_reference(source)
    wishes = Wishes(quantisation, licence=licence, openness=openness)
    with coordinator(context) as deployment:
        with bar("fetching the model", enabled=not as_json) as progress:
            manifest = publish(
                deployment, path if reference is None else reference, wishes, say=note, progress=progress
            )
        name = alias or _plain_name(path, reference)
        with deployment.database.transaction() as session:
            row = catalogue.add_model(session, manifest, name, now_unix_s())
            audit.record(session, "model add", row.package_id.hex(), alias=row.alias)
            result = model_record(row)
    emit(result, as_json=as_json, text=f"model {result['alias']}: package {result['package_id']}")


@model.command("list")
@json_option
@click.pass_context
def list_models(context: click.Context, as_json: bool) -> None:
    """Show all models."""
    from coordinator.admin.records import model_record
    from coordinator.models import catalogue

    with coordinator(context) as deployment, deployment.database.reading() as session:
        rows = [model_record(row) for row in catalogue.list_models(session)]
    shown = [{**row, "package_id": row["package_id"][:16]} for row in rows]
    columns = ("alias", "package_id", "family", "quantisation", "uses", "licence", "size_bytes")
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
    from coordinator.admin.records import model_record
    from coordinator.models import catalogue

    with coordinator(context) as deployment, deployment.database.reading() as session:
        result = model_record(catalogue.find_model(session, name))
    emit(result, as_json=as_json, text=details(result))


def _plain_name(path: Path, reference: HubReference | None) -> str:
    """A file's name without its ending; a folder's or repository's as it is, for theirs may hold a version's dot."""
    if reference is not None:
        return reference.repository.partition("/")[2]
    return path.resolve().name if path.is_dir() else path.stem


GROUPS = (model,)
