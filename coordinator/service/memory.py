"""What glibc's malloc keeps of the memory that a service has freed.

Uploads pass through many threads in pieces of 256 KiB to a megabyte, and each of them is folded with arrays of
several. Left alone, malloc gives every thread a heap of its own, and raises the size from which blocks are mapped
apart, at first 128 KiB, to that of the largest block freed: what was freed stays in fragments. 24 uploads of 10 MB
took the service to 458 MB so; docs/benchmarks/coordinator.md has what they take with the settings below.
"""

from __future__ import annotations

import ctypes
import os
import platform

LARGE_BYTES = 128 << 10
"""Blocks from this size on are mapped apart, and given back when they are freed; malloc's own first choice."""
HEAPS = 2

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
