"""What glibc's malloc keeps of the memory that a service has freed.

Uploads pass through many threads in pieces of 256 KiB to a megabyte, and each of them is folded with arrays of
several. Left alone, malloc gives every thread a heap of its own, and raises the size from which blocks are mapped
apart, at first 128 KiB, to that of the largest block freed: what was freed stays in fragments. 24 uploads of 10 MB
took the service to 458 MB so; docs/benchmarks/coordinator.md has what they take with the settings below.

Connections are made of smaller blocks. Of what a thousand of them had taken, 83 MB, malloc gave nothing back when they
were closed, because something lives between any two of them; asked to, it gives back every whole page.
"""

from __future__ import annotations

import ctypes
import os
import platform
import threading
from collections.abc import Iterator
from contextlib import contextmanager

LARGE_BYTES = 128 << 10
"""Blocks from this size on are mapped apart, and given back when they are freed; malloc's own first choice."""
HEAPS = 2
GIVE_BACK_EVERY_S = 10.0

# From glibc's malloc.h.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8


def give_memory_back() -> bool:
    """Set malloc so, before threads begin; what the operator set in the environment (mallopt(3)) stays.

    Returns:
        False where malloc is not glibc's: nothing was changed.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    for variable, parameter, value in (
        ("MALLOC_ARENA_MAX", _M_ARENA_MAX, HEAPS),
        ("MALLOC_MMAP_THRESHOLD_", _M_MMAP_THRESHOLD, LARGE_BYTES),
        ("MALLOC_TRIM_THRESHOLD_", _M_TRIM_THRESHOLD, LARGE_BYTES),
    ):
        if variable not in os.environ:
            mallopt(parameter, value)
    return True


@contextmanager
def free_pages_given_back(every_s: float = GIVE_BACK_EVERY_S) -> Iterator[None]:
    """For the length of a block, give back every few seconds what lies free between blocks that are in use.

    Nothing happens where malloc is not glibc's.
    """
    if platform.libc_ver()[0] != "glibc":
        yield
        return
    malloc_trim, end = ctypes.CDLL(None).malloc_trim, threading.Event()

    def give_back() -> None:
        while not end.wait(every_s):
            malloc_trim(0)

    thread = threading.Thread(target=give_back, name="free-pages", daemon=True)
    thread.start()
    try:
        yield
    finally:
        end.set()
        thread.join()
