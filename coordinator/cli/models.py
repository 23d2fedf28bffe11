"""`coordinator model`: packages that tasks build on."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from coordinator.cli.api import admin_api, pages
from coordinator.cli.command import data_directory, json_option, target
from coordinator.cli.tables import details, table
from nightshift.host.console import emit, note

if TYPE_CHECKING:
    from nightshift.packages.hub import HubReference


@click.group()
def model() -> None:
    """Model packages that tasks build on."""


@model.command("add", epilog="Example: coordinator model add stories260K-f32.gguf --alias stories260K")
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
    The package is made on this machine; with --credentials its files are then sent to the coordinator.
    """
    from coordinator.admin import learning_verbs as verbs
    from coordinator.admin.messages import to_record
    from coordinator.models.publishing import publish
    from nightshift.admin.v1 import admin_pb2 as pb
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
    with admin_api(context) as api, _workspace(context) as workspace:
        with bar("fetching the model", enabled=not as_json) as progress:
            manifest = publish(
                path if reference is None else reference,
                wishes,
                workspace=workspace,
                store=api.store_package,
                say=note,
                progress=progress,
            )
        request = pb.AddModelRequest(manifest=manifest, alias=alias or _plain_name(path, reference))
        result = to_record(api.call(verbs.add_model, request).model)
    emit(result, as_json=as_json, text=f"model {result['alias']}: package {result['package_id']}")


@model.command("list", epilog="Example: coordinator model list --json")
@json_option
@click.pass_context
def list_models(context: click.Context, as_json: bool) -> None:
    """Show all models."""
    from coordinator.admin import learning_verbs as verbs
    from nightshift.admin.v1 import admin_pb2 as pb

    with admin_api(context) as api:
        rows = pages(api, verbs.list_models, pb.ListModelsRequest(), "models")
    shown = [{**row, "package_id": row["package_id"][:16]} for row in rows]
    columns = ("alias", "package_id", "family", "quantisation", "uses", "licence", "size_bytes")
    emit(
        {"models": rows},
        as_json=as_json,
        text=table(shown, columns, empty="no models; add one: coordinator model add PATH"),
    )


@model.command("show", epilog="Example: coordinator model show stories260K")
@click.argument("name")
@json_option
@click.pass_context
def show_model(context: click.Context, name: str, as_json: bool) -> None:
    """Show one model, named by alias or package id."""
    from coordinator.admin import learning_verbs as verbs
    from coordinator.admin.messages import to_record
    from nightshift.admin.v1 import admin_pb2 as pb

    with admin_api(context) as api:
        result = to_record(api.call(verbs.get_model, pb.GetModelRequest(name=name)).model)
    emit(result, as_json=as_json, text=details(result))


@contextmanager
def _workspace(context: click.Context) -> Iterator[Path]:
    """Where a package is made: beside the objects that it becomes, or in a temporary directory."""
    if target(context).credentials is None:
        yield data_directory(context)
        return
    with tempfile.TemporaryDirectory(prefix="nightshift-") as directory:
        yield Path(directory)


def _plain_name(path: Path, reference: HubReference | None) -> str:
    """A file's name without its ending; a folder's or repository's as it is, for theirs may hold a version's dot."""
    if reference is not None:
        return reference.repository.partition("/")[2]
    return path.resolve().name if path.is_dir() else path.stem


GROUPS = (model,)
