"""`edge-client model pull` and `model import`: bringing a model to this device."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from edge_client.cli.options import Call, device_command

if TYPE_CHECKING:
    from collections.abc import Callable

    from edge_client.agent.check_in import CheckedIn
    from edge_client.agent.session import Session
    from edge_client.configuration import Configuration
    from nightshift.packages.hub import HubReference
    from nightshift.packages.importing import Wishes
    from nightshift.packages.package import ModelPackage
    from nightshift.protocol.manifest import Manifest

_QUANTISATIONS = click.Choice(["auto", "Q8_0", "Q4_0", "F16"])


@click.command(epilog="Example: edge-client model pull commands", short_help="Fetch a task's model, or a hub's.")
@click.argument("what", default="", metavar="[TASK|ID|HUB NAME]")
@device_command
def pull(call: Call, what: str) -> None:
    """Fetch the base model of a TASK, or the package with this 64-digit ID; goes on where it was interrupted.

    A name with a slash, organisation/name, is fetched from a model hub; see: edge-client model import --help
    """
    from nightshift.packages.hub import parse_reference

    reference = parse_reference(what)
    if reference is not None:
        _bring(call, reference, _wishes(call, "auto", ""))
        return
    _pull_from_coordinator(call, what)


@click.command(
    "import",
    epilog="Example: edge-client model import HuggingFaceTB/SmolLM2-135M-Instruct",
    short_help="From a file, a folder or a hub; no coordinator.",
)
@click.argument("source", metavar="PATH|HUB NAME")
@click.option(
    "--quantisation",
    type=_QUANTISATIONS,
    default="auto",
    show_default=True,
    help="Of the package; auto keeps what the file has, and takes inference.quantisation for a float one.",
)
@click.option("--licence", "spdx", default="", help="SPDX identifier of the weights, where the source states none.")
@device_command
def import_model(call: Call, *, source: str, quantisation: str, spdx: str) -> None:
    """Make a package of a GGUF file, a Hugging Face folder or a hub's model; needs no coordinator.

    PATH is a GGUF file, a folder with config.json and safetensors, or a package's folder. A HUB NAME is
    organisation/name, with :FILE or :Q4_0 behind it to choose a file and @REVISION to choose a commit. K-quants and
    unknown architectures become packages for inference through llama.cpp; training needs Q8_0 or Q4_0.
    """
    from nightshift.packages.hub import parse_reference

    wishes = _wishes(call, quantisation, spdx)
    path = Path(source)
    reference = None if path.exists() else parse_reference(source)
    _bring(call, path if reference is None else reference, wishes)


def _bring(call: Call, source: Path | HubReference, wishes: Wishes) -> None:
    from edge_client.cli.choosing import package_cache
    from edge_client.cli.progress import watching
    from edge_client.model_import import import_from_hub, import_from_path
    from nightshift.host.console import note

    accept = _owners_consent(call.configuration())
    cache = package_cache(call)
    if isinstance(source, Path):
        package = import_from_path(cache, source, wishes, accept=accept, say=note)
    else:
        with watching(enabled=not call.as_json) as watcher:
            package = import_from_hub(cache, source, wishes, accept=accept, say=note, progress=watcher.on_download)
    _report(call, package, "is here")


def _wishes(call: Call, quantisation: str, spdx: str) -> Wishes:
    from nightshift.packages.importing import Wishes
    from nightshift.packages.terms import licence_named
    from nightshift.protocol.manifest import Scheme

    preferred = Scheme(call.configuration().inference.quantisation.upper())
    return Wishes(quantisation, preferred, licence=licence_named(spdx) if spdx else None)


def _owners_consent(configuration: Configuration) -> Callable[[Manifest], None]:
    from edge_client import policy

    return lambda manifest: policy.check_model(configuration.policy, manifest)


def _pull_from_coordinator(call: Call, what: str) -> None:
    from edge_client.agent.check_in import peek
    from edge_client.agent.session_opening import open_session
    from edge_client.agent.updates import require_listed
    from edge_client.cli.progress import watching

    configuration = call.configuration()
    with open_session(call.home, configuration) as session, watching(enabled=not call.as_json) as watcher:
        checked = peek(session)
        package_id = _package_id(session, checked, what)
        require_listed(session, checked.response, package_id)
        package = session.packages.pull(
            session.connection,
            package_id,
            accept=_owners_consent(configuration),
            progress=watcher.on_download,
        )
    _report(call, package, "is here and every hash is right")


def _report(call: Call, package: ModelPackage, what: str) -> None:
    manifest, package_id = package.manifest, package.package_id.hex()
    value = {
        "id": package_id,
        "name": manifest.name,
        "uses": manifest.uses.value,
        "quantisation": manifest.quantisation.scheme.value,
        "directory": str(package.directory),
    }
    text = f"{manifest.name} {what}: {package_id}\n{manifest.quantisation.scheme}; {manifest.uses.sentence}"
    call.emit(value, text)


def _package_id(session: Session, checked: CheckedIn, what: str) -> bytes:
    from edge_client.agent.releases import verify_offers
    from nightshift.protocol.errors import NotFoundError, UsageError

    if len(what) == 64:
        try:
            return bytes.fromhex(what)
        except ValueError as error:
            raise UsageError(f"{what!r} is neither a task nor a package id of 64 hex digits") from error
    releases = verify_offers(session, checked.response, checked.view).values()
    found = {r.document.base_model for r in releases if what in ("", r.document.task)}
    if len(found) > 1:
        tasks = ", ".join(sorted({r.document.task for r in releases}))
        raise UsageError(f"several base models are offered; name a task: {tasks}")
    if not found:
        tasks = ", ".join(sorted({r.document.task for r in releases})) or "none"
        raise NotFoundError(f"the coordinator offers no task {what!r}; it offers: {tasks}")
    return found.pop()
