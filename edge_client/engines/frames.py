"""Frames between the agent and an engine process: length, kind, payload.

    u32 length of the payload | u8 kind | payload          (little-endian)

The agent knows before every read how large an honest answer can be and refuses
a longer one before it allocates: a native library that has gone wrong may
write anything. Token lists travel as int32, results as the arrays' own bytes.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Sequence
from enum import IntEnum

import numpy as np

from edge_client.engines.errors import EngineError

HEADER = struct.Struct("<IB")
_COUNT = struct.Struct("<I")
SMALL_BYTES = 64 << 10
MAX_REQUEST_BYTES = 1 << 30  # an adapter of rank 64 on every matrix of a model of 7 billion parameters is 640 MB


class Kind(IntEnum):
    """What a frame says; the first group goes to the engine process, the second comes from it."""

    OPEN = 1  # JSON: engine, package, threads, context
    ADAPTER = 2  # safetensors bytes; empty restores the base
    GENERATE = 3  # u32 number of the generation, JSON sampling, tokens
    CANCEL = 4  # u32 number of the generation
    LOSSES = 5  # token lists, then one byte per token: answer or not
    SCORE = 6  # token lists: prompts, then candidates

    READY = 16  # JSON: context
    TOKEN = 17  # u32
    DONE = 18  # empty
    ARRAY = 19  # the bytes of one array, whose shape the asker knows
    FAILED = 20  # JSON: kind, message


class ChannelClosedError(Exception):
    """The other side is gone; internal to this pair of modules."""


class Channel:
    """One side of a connected stream socket."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection

    def send(self, kind: Kind, *parts: bytes) -> None:
        """Sends one frame.

        Raises:
            ChannelClosedError: the other side is gone.
        """
        size = sum(len(part) for part in parts)
        if size > MAX_REQUEST_BYTES:
            raise EngineError(f"a {kind.name} message of {size} bytes is over the limit of {MAX_REQUEST_BYTES}")
        try:
            # A token's frame in one system call: the other side is woken once, while this one computes.
            head = HEADER.pack(size, kind)
            self._connection.sendall(b"".join((head, *parts)) if size <= SMALL_BYTES else head)
            for part in parts if size > SMALL_BYTES else ():
                self._connection.sendall(part)
        except OSError as error:
            raise ChannelClosedError from error

    def receive(self, limit_bytes: int) -> tuple[Kind, bytes]:
        """Receives one frame whose payload has at most `limit_bytes`.

        Raises:
            ChannelClosedError: the other side is gone, also in the middle of a frame.
            EngineError: the frame is longer, or of no known kind.
            TimeoutError: the socket has a time limit and it passed.
        """
        size, number = HEADER.unpack(self._exactly(HEADER.size))
        if number not in Kind.__members__.values():
            raise EngineError(f"the engine process sent a message of unknown kind {number}")
        if size > limit_bytes:
            raise EngineError(
                f"a {Kind(number).name} message of {size} bytes came, at most {limit_bytes} were expected"
            )
        return Kind(number), self._exactly(size)

    def close(self) -> None:
        """Closes the socket; the other side reads the end of the stream."""
        self._connection.close()

    def _exactly(self, size: int) -> bytes:
        data = bytearray(size)
        view = memoryview(data)
        got = 0
        while got < size:
            try:
                read = self._connection.recv_into(view[got:])
            except TimeoutError:
                raise
            except OSError as error:
                raise ChannelClosedError from error
            if read == 0:
                raise ChannelClosedError
            got += read
        return bytes(data)


def pack_lists(lists: Sequence[Sequence[int]]) -> bytes:
    """Token lists as bytes: u32 count, u32 lengths, int32 tokens."""
    lengths = np.array([len(tokens) for tokens in lists], dtype="<u4")
    tokens = np.array([token for tokens in lists for token in tokens], dtype="<i4")
    return _COUNT.pack(len(lists)) + lengths.tobytes() + tokens.tobytes()


def unpack_lists(data: bytes) -> tuple[list[list[int]], bytes]:
    """Returns token lists and the bytes after them.

    Raises:
        EngineError: the bytes end before the lists do.
    """
    try:
        (count,) = _COUNT.unpack_from(data)
        lengths = np.frombuffer(data, dtype="<u4", count=count, offset=_COUNT.size)
        total = int(lengths.sum(dtype=np.uint64))
        start = _COUNT.size + 4 * count
        tokens = np.frombuffer(data, dtype="<i4", count=total, offset=start)
    except (struct.error, ValueError) as error:
        raise EngineError("a message with token lists is cut short") from error
    ends = np.cumsum(lengths, dtype=np.int64)
    return [part.tolist() for part in np.split(tokens, ends[:-1])][:count], data[start + 4 * total :]
