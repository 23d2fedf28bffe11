"""`edge-client train --local`."""

from __future__ import annotations

import click

from edge_client.cli.options import Call, device_command


@click.command(
    epilog="Example: edge-client train --local --steps 120", short_help="A personal adapter; nothing leaves."
)
@click.option("--local", is_flag=True, help="Required: training for others happens in `run`.")
@click.option("--steps", type=click.IntRange(1, 1_000_000), help="Optimiser steps [training.personal_steps].")
@click.option(
    "--rate", type=click.FloatRange(0, 1, min_open=True), default=5e-3, show_default=True, help="Learning rate."
)
@click.option("--adapter", "name", help="Start from this adapter instead of the one in use.")
@click.option("--fresh", is_flag=True, help="Start from the bare base model.")
@click.option("--model", help="Base model, by the first digits of its id.")
@device_command
def train(
    call: Call,
    *,
    local: bool,
    steps: int | None,
    rate: float,
    name: str | None,
    fresh: bool,
    model: str | None,
) -> None:
    """Train an adapter on this device's text, for this device alone. Nothing is sent."""
    from edge_client.agent.personal import train_personal
    from edge_client.cli.choosing import choose_adapter, choose_package
    from edge_client.cli.loss_curve import sparkline, thinned
    from edge_client.cli.progress import watching
    from edge_client.store import open_store
    from nightshift.host.console import note
    from nightshift.host.files import exclusive_lock
    from nightshift.protocol.errors import UsageError

    if not local:
        raise UsageError("training for others happens in `edge-client run`; for this device alone: train --local")
    limits = call.configuration().training
    call.home.prepare()
    notes: list[str] = []
    with (
        exclusive_lock(call.home.lock_file),
        open_store(call.home) as store,
        watching(enabled=not call.as_json) as watcher,
    ):
        start = None if fresh else choose_adapter(call, store, name=name, task=None)
        package = choose_package(call, start, model)
        run = train_personal(
            call.home,
            store,
            package,
            limits,
            start=start,
            steps=steps or limits.personal_steps,
            learning_rate=rate,
            on_step=watcher.on_step,
            notes=notes,
        )
    for line in notes:
        note(f"note: {line}")
    curve = thinned(run.losses)
    value = {
        "adapter": run.adapter.name,
        "steps": len(run.losses),
        "examples": run.examples,
        "held_out": run.held_out,
        "skipped": dict(run.skipped),
        "loss_before": run.loss_before,
        "loss_after": run.loss_after,
        "losses": list(run.losses),
        "allocator": run.allocator,
    }
    call.emit(
        value,
        f"{run.adapter.name}: {len(run.losses)} steps over {run.examples} examples\n"
        f"  while training      {curve[0]:.3f} {sparkline(curve)} {curve[-1]:.3f}\n"
        f"  {f'on {run.held_out} held out':20}{run.loss_before:.3f} -> {run.loss_after:.3f}\n"
        f'use it: edge-client generate --adapter {run.adapter.name} "…"',
    )
