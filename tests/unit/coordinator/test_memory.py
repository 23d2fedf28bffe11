from __future__ import annotations

import os
import platform
import subprocess
import sys

import pytest

SCRIPT = """
import ctypes, sys
from coordinator.service.memory import give_memory_back
if sys.argv[1] == "set":
    assert give_memory_back()

class Mallinfo2(ctypes.Structure):
    _fields_ = [(name, ctypes.c_size_t) for name in (
        "arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks", "fordblks", "keepcost")]

mallinfo2 = ctypes.CDLL(None).mallinfo2
mallinfo2.restype = Mallinfo2
block = bytes(8 << 20)
del block  # malloc's own threshold is above eight MiB from here on
before = mallinfo2().hblkhd
block = bytes(8 << 20)
print(mallinfo2().hblkhd - before)
"""
needs_glibc = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the settings are those of glibc's malloc")


def mapped_apart_bytes(how: str, **environment: str) -> int:
    """How much of a block of 8 MiB, the second one, a process maps apart."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "LD_PRELOAD"))}
    command = [sys.executable, "-c", SCRIPT, how]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=inherited | environment)
    return int(done.stdout)


@needs_glibc
def test_large_blocks_are_mapped_apart_even_after_one_was_freed() -> None:
    assert mapped_apart_bytes("set") >= 8 << 20
    assert mapped_apart_bytes("leave") < 1 << 20, "malloc does so by itself: there is nothing to set any more"


@needs_glibc
def test_what_the_operator_set_stays() -> None:
    assert mapped_apart_bytes("set", MALLOC_MMAP_THRESHOLD_=str(16 << 20)) < 1 << 20


HOLES = """
import sys, time
import psutil
from contextlib import nullcontext
from coordinator.service.memory import free_pages_given_back

blocks = [bytes(40_000) for _ in range(2000)]
some_stay = blocks[::50]
full = psutil.Process().memory_info().rss
del blocks
with free_pages_given_back(0.05) if sys.argv[1] == "give" else nullcontext():
    time.sleep(0.5)
print(full - psutil.Process().memory_info().rss)
"""


@needs_glibc
def test_what_is_free_between_blocks_in_use_is_given_back() -> None:
    given, kept = (
        int(subprocess.run([sys.executable, "-c", HOLES, how], capture_output=True, text=True, check=True).stdout)
        for how in ("give", "leave")
    )
    assert given > 60e6
    assert kept < 20e6, "malloc does so by itself: there is no need to ask"
