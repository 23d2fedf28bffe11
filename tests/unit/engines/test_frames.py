"""Frames between the agent and an engine process, also from a process that has gone wrong."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_client.engines.errors import EngineError
from edge_client.engines.frames import Channel, ChannelClosedError, Kind, pack_lists, unpack_lists

TOKENS = st.lists(st.integers(0, 2**31 - 1), max_size=8)


@pytest.fixture
def pair() -> Iterator[tuple[Channel, socket.socket]]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.settimeout(5)
        yield Channel(ours), theirs


@given(st.lists(TOKENS, max_size=6), st.binary(max_size=5))
def test_lists_come_back(lists: list[list[int]], rest: bytes) -> None:
    assert unpack_lists(pack_lists(lists) + rest) == (lists, rest)


@given(st.lists(TOKENS, min_size=1, max_size=4), st.data())
def test_lists_that_are_cut_short_are_refused(lists: list[list[int]], data: st.DataObject) -> None:
    whole = pack_lists(lists)
    with pytest.raises(EngineError, match="cut short"):
        unpack_lists(whole[: data.draw(st.integers(0, len(whole) - 1))])


def test_a_frame_in_many_small_pieces(pair: tuple[Channel, socket.socket]) -> None:
    channel, other = pair
    for byte in struct.pack("<IB", 3, Kind.ARRAY) + b"abc":
        other.send(bytes([byte]))
    assert channel.receive(3) == (Kind.ARRAY, b"abc")


def test_a_frame_over_the_limit_is_refused_before_it_is_read(pair: tuple[Channel, socket.socket]) -> None:
    channel, other = pair
    other.send(struct.pack("<IB", 2**32 - 1, Kind.ARRAY))
    with pytest.raises(EngineError, match="at most 100"):
        channel.receive(100)


def test_an_unknown_kind_is_refused(pair: tuple[Channel, socket.socket]) -> None:
    channel, other = pair
    other.send(struct.pack("<IB", 0, 99))
    with pytest.raises(EngineError, match="unknown kind 99"):
        channel.receive(100)


@pytest.mark.parametrize("sent", [b"", b"\x03\x00", struct.pack("<IB", 3, Kind.ARRAY) + b"ab"])
def test_an_end_in_the_middle_is_an_end(pair: tuple[Channel, socket.socket], sent: bytes) -> None:
    channel, other = pair
    other.sendall(sent)
    other.close()
    with pytest.raises(ChannelClosedError):
        channel.receive(100)


def test_sending_to_nobody(pair: tuple[Channel, socket.socket]) -> None:
    channel, other = pair
    other.close()
    with pytest.raises(ChannelClosedError):
        channel.send(Kind.CANCEL, b"1234")
