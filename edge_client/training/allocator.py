"""The memory allocator that the training process starts with.

ONNX Runtime without its arena allocates and frees large blocks in every step.
glibc keeps much of what was freed; jemalloc with one arena and a short decay
gives it back and stays fast. Where jemalloc is not installed and memory is
short, glibc can be told to map large blocks separately: low peak, more time.
What each costs is in docs/benchmarks/training.md.
"""

from __future__ import annotations

import mmap
import os
import sys
from collections.abc import Mapping, Sequence
from enum import StrEnum
from pathlib import Path

JEMALLOC_DIRECTORIES = (
    Path("/usr/lib/x86_64-linux-gnu"),
    Path("/usr/lib/aarch64-linux-gnu"),
    Path("/usr/lib64"),
    Path("/usr/lib"),
    Path("/usr/local/lib"),
)
# Freed pages stay for a second, about a step, since fetching them from the kernel again took a sixth of the time;
# blocks of 8 MiB and more are no exception (oversize_threshold), and huge pages where the kernel has them.
_JEMALLOC_OPTIONS = "dirty_decay_ms:1000,muzzy_decay_ms:0,narenas:1,oversize_threshold:0,thp:always"
_JEMALLOC_PAGE_BYTES = 4096
_GLIBC_THRESHOLD_BYTES = "65536"

_MAPPED_FILES = Path("/proc/self/maps")


class Allocator(StrEnum):
    """What a process allocates with."""

    JEMALLOC = "jemalloc"
    MALLOC = "malloc"
    TRIMMED_MALLOC = "malloc that gives large blocks back at once"


def allocator_in_use(mapped_files: Path = _MAPPED_FILES, environment: Mapping[str, str] = os.environ) -> Allocator:
    """Tells what this very process runs on: a library that was asked for may still have failed to load.

    Args:
        mapped_files: the kernel's list of what is mapped (proc(5)); where there is none, jemalloc is not looked for.
        environment: of this process as it was started.
    """
    try:
        if b"/libjemalloc.so" in mapped_files.read_bytes():
            return Allocator.JEMALLOC
    except OSError:
        pass
    return Allocator.TRIMMED_MALLOC if "MALLOC_TRIM_THRESHOLD_" in environment else Allocator.MALLOC


def jemalloc_can_run(page_size_bytes: int = mmap.PAGESIZE, platform: str = sys.platform) -> bool:
    """Whether this system could preload it: a jemalloc built for pages of 4 KiB ends a process that has larger ones."""
    return platform.startswith("linux") and page_size_bytes <= _JEMALLOC_PAGE_BYTES


def allocator_environment(
    environment: Mapping[str, str],
    *,
    jemalloc: bool,
    trim: bool,
    directories: Sequence[Path] = JEMALLOC_DIRECTORIES,
    page_size_bytes: int = mmap.PAGESIZE,
) -> dict[str, str]:
    """Returns a copy of an environment that makes a new process use the best allocator found.

    Args:
        environment: what to start from.
        jemalloc: preload it where it is found and can run (the device profile says so).
        trim: without jemalloc, trade time for a lower peak (the device profile says so).
        directories: where to look for libjemalloc.so.2.
        page_size_bytes: of this kernel.
    """
    result = dict(environment)
    usable = jemalloc and jemalloc_can_run(page_size_bytes)
    for directory in directories if usable else ():
        library = directory / "libjemalloc.so.2"
        if library.is_file():
            preloaded = result.get("LD_PRELOAD")
            result["LD_PRELOAD"] = f"{library}:{preloaded}" if preloaded else str(library)
            result.setdefault("MALLOC_CONF", _JEMALLOC_OPTIONS)
            return result
    if trim:
        result["MALLOC_MMAP_THRESHOLD_"] = _GLIBC_THRESHOLD_BYTES
        result["MALLOC_TRIM_THRESHOLD_"] = _GLIBC_THRESHOLD_BYTES
    return result
