"""`edge-client adapter`: which adapter answers, and taking one along."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from edge_client.cli.options import Call, device_command

if TYPE_CHECKING:
    from edge_client.adapters_in_use import LoadedAdapter


@click.group(short_help="Adapters: list, use, roll back, export.")
def adapter() -> None:
    """Adapters that were released, or trained here for this device alone."""


@adapter.command("list", epilog="Example: edge-client adapter list")
@device_command
def list_adapters(call: Call) -> None:
    """List the adapters on this device; * marks those in use."""
    from edge_client.ledger import readable_time
    from edge_client.store import open_store

    with open_store(call.home) as store:
        adapters = store.adapters.all()
        in_use = {task: store.adapters.in_use(task) for task in store.adapters.tasks()}
    current = {pair.current for pair in in_use.values() if pair is not None}
    value = [
        {
            "name": a.name,
            "task": a.task,
            "sha256": a.sha256.hex(),
            "base_model": a.base_model.hex(),
            "released": a.release_id is not None,
            "in_use": a.name in current,
            "adopted_at": readable_time(a.adopted_at_unix_s),
        }
        for a in adapters
    ]
    lines = [f"{'*' if v['in_use'] else ' '} {v['name']}  {v['adopted_at']}" for v in value]
    call.emit(value, "\n".join(lines) or "no adapters yet; a release comes with: edge-client run")


@adapter.command(epilog="Example: edge-client adapter use commands/2")
@click.argument("name", required=False)
@click.option("--base", "base_task", metavar="TASK", help="Use the bare base model for TASK.")
@device_command
def use(call: Call, name: str | None, base_task: str | None) -> None:
    """Put the adapter NAME in use for its task, until a newer release comes."""
    from edge_client.adapters_in_use import find_adapter, load_adapter
    from edge_client.store import open_store
    from nightshift.protocol.errors import UsageError

    if (name is None) == (base_task is None):
        raise UsageError("name one adapter, or --base TASK; see: edge-client adapter list")
    with open_store(call.home) as store:
        task = base_task or ""
        if name is not None:
            stored = find_adapter(store, name)
            load_adapter(call.home, stored)  # refuse a damaged file before it is put in use
            task = stored.task
        store.adapters.use(task, name)
    call.emit({"task": task, "current": name}, f"task {task}: {name or 'the bare base model'} is in use")


@adapter.command(epilog="Example: edge-client adapter rollback commands")
@click.argument("task")
@device_command
def rollback(call: Call, task: str) -> None:
    """Put the adapter that TASK had before back in use."""
    from edge_client.adapters_in_use import roll_back
    from edge_client.store import open_store

    with open_store(call.home) as store:
        previous = roll_back(store, task)
    name = None if previous is None else previous.name
    call.emit({"task": task, "current": name}, f"task {task}: back to {name or 'the bare base model'}")


@adapter.command(epilog="Example: edge-client adapter export commands/3 ./mine --format peft")
@click.argument("name")
@click.argument("destination", type=click.Path(path_type=Path))
@click.option("--format", "format_", type=click.Choice(["safetensors", "peft", "gguf", "onnx"]), default="safetensors")
@device_command
def export(call: Call, name: str, destination: Path, format_: str) -> None:
    """Write the adapter NAME to DESTINATION: a file, or for peft a folder."""
    from edge_client.adapters_in_use import find_adapter, load_adapter
    from edge_client.store import open_store
    from nightshift.host.files import write_atomic
    from nightshift.protocol.errors import UsageError

    with open_store(call.home) as store:
        loaded = load_adapter(call.home, find_adapter(store, name))
    if destination.exists():
        raise UsageError(f"{destination} exists already; choose another place")
    files = _files(call, loaded, format_)
    if len(files) > 1:
        destination.mkdir(parents=True)
    for file_name, content in files.items():
        write_atomic(destination / file_name if len(files) > 1 else destination, content, mode=0o644)
    call.emit({"name": name, "format": format_, "path": str(destination)}, f"wrote {destination}")


def _files(call: Call, loaded: LoadedAdapter, format_: str) -> dict[str, bytes]:
    """File name -> content."""
    from nightshift.protocol.adapters.formats import to_peft, to_safetensors

    if format_ == "safetensors":
        return {"adapter.safetensors": to_safetensors(loaded.tensors, loaded.layout)}
    from edge_client.cli.choosing import choose_package

    manifest = choose_package(call, loaded, None).manifest
    if format_ == "peft":
        return to_peft(loaded.tensors, loaded.layout, base_model=manifest.name)
    if format_ == "onnx":
        from edge_client.engines.onnx_adapter import to_onnx_adapter

        return {"adapter.onnx_adapter": to_onnx_adapter(loaded.tensors, loaded.layout, manifest)}
    from nightshift.protocol.adapters.gguf_adapter import to_gguf

    size = manifest.dimensions
    data = to_gguf(loaded.tensors, loaded.layout, architecture=size.family, heads=size.heads, kv_heads=size.kv_heads)
    return {"adapter.gguf": data}
