"""Showing an answer while it is written, and stopping it with ctrl-c."""

from __future__ import annotations

import contextlib
import signal
import sys
import threading
from collections.abc import Iterator
from types import FrameType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edge_client.engines.isolated import IsolatedEngine


@contextlib.contextmanager
def interruptible(engine: IsolatedEngine) -> Iterator[None]:
    """Within, ctrl-c stops the answer instead of the program."""

    def on_signal(_number: int, _frame: FrameType | None) -> None:
        # In a thread: the handler runs between two lines of this one, which may hold the engine's lock.
        threading.Thread(target=engine.interrupt, daemon=True).start()

    before = signal.signal(signal.SIGINT, on_signal)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def write(text: str) -> None:
    """Text of this program, at once."""
    sys.stdout.write(text)
    sys.stdout.flush()


def write_piece(piece: str) -> None:
    """Text of the model, at once; to a terminal without anything that could steer it."""
    write(_safe(piece) if sys.stdout.isatty() else piece)


def _safe(piece: str) -> str:
    from nightshift.host.console import printable

    return "\t".join(printable(part) for part in piece.split("\t"))
