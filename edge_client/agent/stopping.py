"""SIGTERM during a pass: systemd stops the service, the machine shuts down.

While training runs the signal becomes a reason to stop, as a hot sensor is one:
the training process puts its state away within five seconds. At any other moment
the pass ends at once, as after Ctrl-C; every step of it can be repeated.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from edge_client.conditions.watch import Watch


@contextmanager
def stopping(watch: Watch) -> Iterator[None]:
    """Handle SIGTERM for the length of a block; only the main thread can.

    Args:
        watch: of the training that may run inside.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(_number: int, _frame: FrameType | None) -> None:
        if not watch.request("this pass was told to end (SIGTERM)"):
            raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
