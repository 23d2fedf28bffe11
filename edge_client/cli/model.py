"""`edge-client model`: the base models on this device."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from edge_client.cli.model_fetch import import_model, pull
from edge_client.cli.options import Call, device_command

if TYPE_CHECKING:
    from edge_client.model_packages import PackageCache


@click.group(short_help="The base models on this device.")
def model() -> None:
    """Base models: pulled from the coordinator or imported, checked hash by hash, kept in the cache."""


model.add_command(pull)
model.add_command(import_model)


@model.command("list", epilog="Example: edge-client model list --json", short_help="What is here, and unfinished.")
@device_command
def list_models(call: Call) -> None:
    """List the models that are here, complete, and what interrupted downloads left."""
    from edge_client.cli.choosing import package_cache
    from edge_client.cli.model_card import used
    from edge_client.ledger import readable_size

    cache = package_cache(call)
    value: list[dict[str, Any]] = []
    for package_id in cache.ids():
        manifest = cache.read(package_id).manifest
        value.append(
            {
                "id": package_id.hex(),
                "name": manifest.name,
                "path": str(cache.folder(package_id)),
                "family": manifest.dimensions.family,
                "quantisation": manifest.quantisation.scheme.value,
                "uses": manifest.uses.value,
                "size_bytes": sum(file.size_bytes for file in manifest.files),
                "last_used_unix_s": int(cache.use.last_used_unix_s(package_id)),
                "in_use": cache.use.is_held(package_id),
                "needed": package_id in cache.needed,
            }
        )
    lines = [
        f"{v['id'][:16]}  {v['name'][:24]:24}  {v['quantisation']:6}  {readable_size(v['size_bytes']):>7}  "
        + ("in use" if v["in_use"] else f"used {used(v['last_used_unix_s'])}")
        + (", needed" if v["needed"] else "")
        for v in value
    ]
    left_bytes = sum(path.stat().st_size for path in cache.unfinished())
    if left_bytes:
        again = "pull or import again to go on, or: edge-client model rm --unfinished"
        lines.append(f"unfinished: {readable_size(left_bytes)}; {again}")
    call.emit(value, "\n".join(lines) or "no models here; edge-client model pull, or: edge-client model import PATH")


@model.command(epilog="Example: edge-client model show 3f2a", short_help="Licence, openness, shape, files.")
@click.argument("package", metavar="ID|NAME")
@device_command
def show(call: Call, package: str) -> None:
    """Show what the model with this ID (or its first digits) or NAME says of itself: terms, openness, shape."""
    from edge_client.cli.choosing import package_cache
    from edge_client.cli.model_card import card, fields

    cache = package_cache(call)
    opened = cache.read(cache.resolve(package))
    call.emit(fields(opened), card(opened))


@model.command(epilog="Example: edge-client model verify", short_help="Hash every file again.")
@click.argument("package", default="", metavar="[ID|NAME]")
@device_command
def verify(call: Call, package: str) -> None:
    """Hash every file of the model with this ID, or of all models, again."""
    from edge_client.cli.choosing import package_cache

    cache = package_cache(call)
    ids = [cache.resolve(package)] if package else cache.ids()
    for package_id in ids:
        cache.read(package_id, verify=True)
    call.emit(
        [i.hex() for i in ids], "\n".join(f"{i.hex()[:16]}: every file is right" for i in ids) or "no models here"
    )


@model.command("rm", epilog="Example: edge-client model rm 3f2a --yes", short_help="Remove one, or what is unfinished.")
@click.argument("package", default="", metavar="[ID|NAME]")
@click.option("--unfinished", is_flag=True, help="What interrupted downloads and imports left, instead of a model.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@device_command
def remove(call: Call, *, package: str, unfinished: bool, yes: bool) -> None:
    """Remove a model from this device; adapters stay. A model that a command is using is left alone."""
    from edge_client.cli.choosing import package_cache
    from edge_client.ledger import readable_size
    from nightshift.protocol.errors import UsageError

    if bool(package) == unfinished:
        raise UsageError("name a model, or say --unfinished; edge-client model list shows both")
    cache = package_cache(call)
    if unfinished:
        freed = _remove_unfinished(cache)
        call.emit({"freed_bytes": freed}, f"removed what was unfinished: {readable_size(freed)}")
        return
    package_id = cache.resolve(package)
    if not yes:
        warning = " Adapters in use build on it; the next run fetches it again." if package_id in cache.needed else ""
        click.confirm(f"Remove {_name(cache, package_id)} ({package_id.hex()[:16]})?{warning}", abort=True, err=True)
    freed = cache.remove(package_id)
    call.emit(
        {"removed": package_id.hex(), "freed_bytes": freed}, f"removed {package_id.hex()[:16]}: {readable_size(freed)}"
    )


def _remove_unfinished(cache: PackageCache) -> int:
    """Not while a download or import runs: its files are unfinished too."""
    from nightshift.host.files import exclusive_lock

    left = cache.unfinished()
    freed = sum(path.stat().st_size for path in left)
    if left:
        with exclusive_lock(cache.directory / "import.lock"):
            for path in left:
                path.unlink(missing_ok=True)
    return freed


def _name(cache: PackageCache, package_id: bytes) -> str:
    """Its name, as far as its manifest can still be read."""
    from nightshift.protocol.errors import NightshiftError

    try:
        return cache.read(package_id).manifest.name
    except NightshiftError:
        return "the damaged model"
