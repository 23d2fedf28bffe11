"""Progress for people: bars on stderr when it is a terminal, nothing in a pipe."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from edge_client.agent.steps import Watcher


@contextmanager
def watching(*, enabled: bool) -> Iterator[Watcher]:
    """Show downloads and training steps while the block runs.

    Args:
        enabled: the caller wants them; they also need a terminal on stderr.
    """
    if not enabled or not sys.stderr.isatty():
        yield Watcher()
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.fields[detail]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        tasks: dict[str, TaskID] = {}

        def show(name: str, done: float, total: float, detail: str) -> None:
            if name not in tasks:
                tasks[name] = progress.add_task(name, total=total, detail=detail)
            # Never backwards: a training run that starts again after a memory shortage keeps its bar.
            before = progress.tasks[tasks[name]].completed
            progress.update(tasks[name], completed=max(before, done), total=total, detail=detail)

        yield Watcher(
            on_step=lambda step, steps, loss: show("training", step, steps, f"step {step}/{steps}, loss {loss:.3f}"),
            on_download=lambda done, total: show("fetching the model", done, total, f"{done // 10**6} MB"),
        )
