"""The memory allocator that the training process starts with.

ONNX Runtime without its arena allocates and frees large blocks in every step.
glibc keeps much of what was freed; jemalloc with one arena and a short decay
gives it back and stays fast. Where jemalloc is not installed and memory is
short, glibc can be told to map large blocks separately: low peak, more time.
What each costs is in docs/benchmarks/training.md.
"""

from __future__ import annotations

import mmap
from collections.abc import Mapping, Sequence
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
        jemalloc: preload it where it is found (the device profile says so). Never with pages of more than
            4 KiB (Raspberry Pi 5): a jemalloc built for 4 KiB ends the process there.
        trim: without jemalloc, trade time for a lower peak (the device profile says so).
        directories: where to look for libjemalloc.so.2.
        page_size_bytes: of this kernel.
    """
    result = dict(environment)
    usable = jemalloc and page_size_bytes <= _JEMALLOC_PAGE_BYTES
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
