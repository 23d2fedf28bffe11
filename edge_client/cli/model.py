"""`edge-client model`: the base models on this device."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from edge_client.cli.options import Call, device_command

if TYPE_CHECKING:
    from edge_client.agent.session import Session
    from nightshift.protocol.manifest import Manifest


@click.group(short_help="The base models on this device.")
def model() -> None:
    """Base models: pulled from the coordinator, checked hash by hash, kept in the cache."""


@model.command("list", epilog="Example: edge-client model list --json")
@device_command
def list_models(call: Call) -> None:
    """List the models that are here, complete."""
    from edge_client.cli.choosing import package_cache

    cache = package_cache(call)
    value: list[dict[str, Any]] = []
    for package_id in cache.ids():
        manifest = cache.open(package_id, verify=False).manifest
        value.append(
            {
                "id": package_id.hex(),
                "name": manifest.name,
                "path": str(cache.folder(package_id)),
                "family": manifest.dimensions.family,
                "quantisation": manifest.quantisation.scheme.value,
                "size_bytes": sum(file.size_bytes for file in manifest.files),
            }
        )
    lines = [f"{v['id'][:16]}  {v['name']}  {v['quantisation']}  {v['size_bytes'] / 1e6:.1f} MB" for v in value]
    call.emit(value, "\n".join(lines) or "no models here; one comes with the first plan, or: edge-client model pull")


@model.command(epilog="Example: edge-client model pull commands")
@click.argument("what", default="", metavar="[TASK|ID]")
@device_command
def pull(call: Call, what: str) -> None:
    """Fetch the base model of a TASK, or the package with this 64-digit ID; goes on where it was interrupted."""
    from edge_client import policy
    from edge_client.agent.session_opening import open_session
    from edge_client.cli.progress import watching
    from edge_client.model_packages import PackageCache

    configuration = call.configuration()
    with open_session(call.home, configuration) as session, watching(enabled=not call.as_json) as watcher:
        package_id = _package_id(session, what)
        cache = PackageCache.of(session.cache, configuration.cache)

        def accept(manifest: Manifest) -> None:
            policy.check_openness(configuration.policy, manifest.openness)

        package = cache.pull(session.connection, package_id, accept=accept, progress=watcher.on_download)
    call.emit(
        {"id": package_id.hex(), "name": package.manifest.name, "directory": str(package.directory)},
        f"{package.manifest.name} is here and every hash is right: {package_id.hex()}",
    )


def _package_id(session: Session, what: str) -> bytes:
    from edge_client.agent.check_in import peek
    from edge_client.agent.releases import verify_offers
    from nightshift.protocol.errors import NotFoundError, UsageError

    if len(what) == 64:
        try:
            return bytes.fromhex(what)
        except ValueError as error:
            raise UsageError(f"{what!r} is neither a task nor a package id of 64 hex digits") from error
    checked = peek(session)
    releases = verify_offers(session, checked.response, checked.view).values()
    found = {r.document.base_model for r in releases if what in ("", r.document.task)}
    if len(found) > 1:
        tasks = ", ".join(sorted({r.document.task for r in releases}))
        raise UsageError(f"several base models are offered; name a task: {tasks}")
    if not found:
        tasks = ", ".join(sorted({r.document.task for r in releases})) or "none"
        raise NotFoundError(f"the coordinator offers no task {what!r}; it offers: {tasks}")
    return found.pop()


@model.command(epilog="Example: edge-client model show 3f2a")
@click.argument("package", metavar="ID")
@device_command
def show(call: Call, package: str) -> None:
    """Show what the model with this ID (or its first digits) says of itself."""
    from edge_client.cli.choosing import package_cache

    cache = package_cache(call)
    opened = cache.open(cache.resolve(package), verify=False)
    manifest = opened.manifest
    size = manifest.dimensions
    value: dict[str, Any] = {
        "id": opened.package_id.hex(),
        "name": manifest.name,
        "family": size.family,
        "layers": size.layers,
        "hidden": size.hidden,
        "vocabulary": size.vocabulary,
        "context_tokens": size.context,
        "quantisation": manifest.quantisation.scheme.value,
        "licence": manifest.licence.spdx,
        "obligations": list(manifest.licence.obligations),
        "openness_class": manifest.openness.mof_class.value,
        "weights_licence": manifest.openness.weights_freedom.value,
        "chat_template": manifest.chat_template is not None,
        "lora_targets": list(manifest.lora_targets),
        "files": {file.name: file.size_bytes for file in manifest.files},
        "directory": str(opened.directory),
    }
    call.emit(value, "\n".join(f"{name}: {_text(item)}" for name, item in value.items()))


def _text(item: object) -> str:
    if isinstance(item, dict):
        return ", ".join(f"{name} ({size} B)" for name, size in item.items())
    return ", ".join(map(str, item)) if isinstance(item, list) else str(item)


@model.command(epilog="Example: edge-client model verify")
@click.argument("package", default="", metavar="[ID]")
@device_command
def verify(call: Call, package: str) -> None:
    """Hash every file of the model with this ID, or of all models, again."""
    from edge_client.cli.choosing import package_cache

    cache = package_cache(call)
    ids = [cache.resolve(package)] if package else cache.ids()
    for package_id in ids:
        cache.open(package_id, verify=True)
    call.emit(
        [i.hex() for i in ids], "\n".join(f"{i.hex()[:16]}: every file is right" for i in ids) or "no models here"
    )
