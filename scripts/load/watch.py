"""What a process of this machine and its children take, from the kernel: memory now and at most, processor time."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from types import TracebackType

import psutil

INTERVAL_S = 0.05


@dataclass(frozen=True, slots=True)
class Usage:
    """Of a process and its children.

    Attributes:
        rss_mb: resident now, MiB.
        cpu_s: used since it began.
    """

    rss_mb: float
    cpu_s: float


def usage(pid: int) -> Usage:
    """What a process and its children take now."""
    parent = psutil.Process(pid)
    rss_bytes, cpu_s = 0, 0.0
    for process in [parent, *parent.children(recursive=True)]:
        try:
            with process.oneshot():
                times = process.cpu_times()
                rss_bytes += process.memory_info().rss
                cpu_s += times.user + times.system
        except psutil.NoSuchProcess:  # it ended between being listed and being looked at
            continue
    return Usage(rss_bytes / 2**20, cpu_s)


class Watch:
    """Looks at a process and its children twenty times a second, for the length of a block.

    Attributes:
        peak_rss_mb: most resident memory seen, MiB; pages that processes share are counted for each.
        cpu_s: processor seconds used meanwhile.
    """

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._before = usage(pid)
        self.peak_rss_mb = self._before.rss_mb
        self.cpu_s = 0.0

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._end.set()
        self._thread.join()
        self._look()

    def _look(self) -> None:
        now = usage(self._pid)
        self.peak_rss_mb = max(self.peak_rss_mb, now.rss_mb)
        self.cpu_s = now.cpu_s - self._before.cpu_s

    def _run(self) -> None:
        while not self._end.wait(INTERVAL_S):
            self._look()
