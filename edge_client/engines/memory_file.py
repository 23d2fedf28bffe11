"""Bytes as a C `FILE *`, so that an adapter reaches llama.cpp without touching the disk."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager

from edge_client.engines.errors import EngineError


@contextmanager
def memory_file(data: bytes) -> Iterator[int]:
    """Yields the address of a FILE that reads `data` (POSIX fmemopen); closed afterwards.

    Raises:
        EngineError: the C library refuses.
    """
    library = ctypes.CDLL(None, use_errno=True)
    library.fmemopen.restype = ctypes.c_void_p
    library.fmemopen.argtypes = [ctypes.c_char_p, ctypes.c_size_t, ctypes.c_char_p]
    library.fclose.argtypes = [ctypes.c_void_p]
    file = library.fmemopen(data, len(data), b"rb")
    if not file:
        raise EngineError(f"fmemopen of {len(data)} bytes failed: {os.strerror(ctypes.get_errno())}")
    try:
        yield file
    finally:
        library.fclose(file)
