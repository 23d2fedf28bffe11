"""What glibc's malloc keeps of the memory that a service has freed.

Uploads pass through many threads in pieces of a megabyte, and each of them is folded with arrays of several.
Left alone, malloc gives every thread a heap of its own, and raises the size from which blocks are mapped
apart after the first large one was freed: what was freed stays in fragments. 24 uploads of 10 MB took the service
to 458 MB so, and to 232 MB with the settings below, at the same rate (docs/benchmarks/coordinator.md).
"""

from __future__ import annotations

import ctypes
import os
import platform

LARGE_BYTES = 1 << 20
"""Blocks from this size on are mapped apart, and given back when they are freed."""
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
