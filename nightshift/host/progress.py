"""A progress bar for people: on stderr when it is a terminal, nothing in a pipe, never backwards."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def bar(description: str, *, enabled: bool = True) -> Iterator[Callable[[int, int], None]]:
    """Give a function to be told (bytes so far, bytes in all) while the block runs.

    Args:
        description: beside the bar.
        enabled: the caller wants one; it also needs a terminal.
    """
    if not enabled or not sys.stderr.isatty():
        yield lambda _done, _total: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(description, total=None)

        def show(done_bytes: int, total_bytes: int) -> None:
            # A server may make a download begin again; the person has seen more already.
            before = progress.tasks[0].completed
            progress.update(task, completed=max(before, done_bytes), total=total_bytes)

        yield show
