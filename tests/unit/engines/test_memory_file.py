from __future__ import annotations

import ctypes

import pytest

from edge_client.engines.errors import EngineError
from edge_client.engines.memory_file import memory_file


def test_the_c_library_reads_the_bytes_including_zeros() -> None:
    data = bytes(range(256)) * 40
    library = ctypes.CDLL(None)
    library.fread.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_size_t, ctypes.c_void_p]
    library.fread.restype = ctypes.c_size_t
    buffer = ctypes.create_string_buffer(len(data) + 10)
    with memory_file(data) as file:
        assert library.fread(buffer, 1, len(buffer), file) == len(data)
    assert buffer.raw[: len(data)] == data


def test_nothing_to_read_is_no_file() -> None:
    try:
        with memory_file(b"") as file:
            assert file  # some C libraries allow an empty file
    except EngineError as error:
        pytest.skip(f"this C library refuses an empty file, as POSIX allows: {error}")
