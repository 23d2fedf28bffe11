"""`edge-client adapter`: which adapter answers, and taking one along."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edge_client.cli.options import Call, device_command

if TYPE_CHECKING:
    from edge_client.adapters_in_use import LoadedAdapter
    from edge_client.store.served import Comparison


@click.group(short_help="Adapters: list, use, roll back, follow, export.")
def adapter() -> None:
    """Adapters that were released, or trained here for this device alone."""


@adapter.command("list", epilog="Example: edge-client adapter list")
@device_command
def list_adapters(call: Call) -> None:
    """List the adapters on this device; * marks those in use.

    A release is served when its coordinator decided so. This device may still use another adapter: the one that its
    owner chose (pinned), or the one that is better on its own text (kept back).
    """
    from edge_client.ledger import readable_time
    from edge_client.store import open_store

    with open_store(call.home) as store:
        adapters = store.adapters.all()
        in_use = {task: store.adapters.in_use(task) for task in store.adapters.tasks()}
        served = {decision.served_release for decision in map(store.served.decision, in_use) if decision is not None}
        compared = {a.name: store.served.comparison(a.release_id) for a in adapters if a.release_id is not None}
    current = {pair.current: pair for pair in in_use.values() if pair is not None}
    value = [
        {
            "name": a.name,
            "task": a.task,
            "sha256": a.sha256.hex(),
            "base_model": a.base_model.hex(),
            "released": a.release_id is not None,
            "served": a.release_id in served,
            "in_use": a.name in current,
            "pinned": a.name in current and current[a.name].pinned,
            "comparison": _comparison(compared.get(a.name)),
            "adopted_at": readable_time(a.adopted_at_unix_s),
        }
        for a in adapters
    ]
    lines = [f"{'*' if v['in_use'] else ' '} {v['name']}  {v['adopted_at']}{_remarks(v)}" for v in value]
    call.emit(value, "\n".join(lines) or "no adapters yet; a release comes with: edge-client run")


@adapter.command(epilog="Example: edge-client adapter use commands/2")
@click.argument("name", required=False)
@click.option("--base", "base_task", metavar="TASK", help="Use the bare base model for TASK.")
@device_command
def use(call: Call, name: str | None, base_task: str | None) -> None:
    """Put the adapter NAME in use for its task, and keep it, whatever release comes.

    To go back to what the coordinator has served: edge-client adapter follow TASK.
    """
    from edge_client.adapters_in_use import choose, find_adapter, load_adapter
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
        choose(store, task, name)
    call.emit(
        {"task": task, "current": name, "pinned": True},
        f"task {task}: {name or 'the bare base model'} is in use, and stays",
    )


@adapter.command(epilog="Example: edge-client adapter rollback commands")
@click.argument("task")
@device_command
def rollback(call: Call, task: str) -> None:
    """Put the adapter that TASK had before back in use, and keep it, whatever release comes."""
    from edge_client.adapters_in_use import roll_back
    from edge_client.store import open_store

    with open_store(call.home) as store:
        previous = roll_back(store, task)
    name = None if previous is None else previous.name
    call.emit(
        {"task": task, "current": name, "pinned": True},
        f"task {task}: back to {name or 'the bare base model'}, which stays; to end that: "
        f"edge-client adapter follow {task}",
    )


@adapter.command(epilog="Example: edge-client adapter follow commands")
@click.argument("task")
@device_command
def follow(call: Call, task: str) -> None:
    """Let TASK follow its coordinator again, after `use` or `rollback`; takes effect at the next pass."""
    from edge_client.adapters_in_use import let_follow
    from edge_client.store import open_store

    with open_store(call.home) as store:
        let_follow(store, task)
        in_use = store.adapters.in_use(task)
    current = None if in_use is None else in_use.current
    call.emit(
        {"task": task, "current": current, "pinned": False},
        f"task {task}: {current or 'the bare base model'} until the next pass, then what the coordinator has served",
    )


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


def _comparison(found: Comparison | None) -> dict[str, object] | None:
    """What this device's own hold-out said of a release."""
    if found is None or found.loss is None:
        return None
    return {
        "against": found.against,
        "loss": found.loss,
        "loss_against": found.loss_against,
        "kept_back": found.kept_back,
    }


def _remarks(shown: dict[str, Any]) -> str:
    remarks = [word for word in ("served", "pinned") if shown[word]]
    comparison = shown["comparison"]
    if comparison is not None:
        verdict = "kept back, " if comparison["kept_back"] else ""
        remarks.append(
            f"{verdict}loss {comparison['loss']:.3f} here, {comparison['against']} {comparison['loss_against']:.3f}"
        )
    return f"  ({'; '.join(remarks)})" if remarks else ""
