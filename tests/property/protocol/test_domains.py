"""Framing is injective: two different lists of fields never give the same bytes."""

from __future__ import annotations

import struct

from hypothesis import given
from hypothesis import strategies as st

from nightshift.protocol.domains import Domain, digest, frame

fields = st.lists(st.binary(max_size=12), max_size=5)
domains = st.sampled_from(Domain)


def unframe(framed: bytes) -> list[bytes]:
    """Read a frame back with nothing but its own lengths."""
    parts = []
    while framed:
        (length,) = struct.unpack(">I", framed[:4])
        parts.append(framed[4 : 4 + length])
        framed = framed[4 + length :]
    return parts


@given(domains, fields)
def test_a_frame_can_be_read_back(domain: Domain, given_fields: list[bytes]) -> None:
    assert unframe(frame(domain, *given_fields)) == [domain.value.encode(), *given_fields]


@given(domains, fields, domains, fields)
def test_different_lists_give_different_frames(
    one: Domain, first: list[bytes], two: Domain, second: list[bytes]
) -> None:
    same = (one, first) == (two, second)
    assert (frame(one, *first) == frame(two, *second)) is same
    assert (digest(one, *first) == digest(two, *second)) is same


@given(domains, st.binary(max_size=24), st.integers(0, 24), st.integers(0, 24))
def test_moving_a_border_between_fields_changes_the_frame(domain: Domain, data: bytes, here: int, there: int) -> None:
    here, there = min(here, len(data)), min(there, len(data))
    one = frame(domain, data[:here], data[here:])
    assert (one == frame(domain, data[:there], data[there:])) is (here == there)
    assert one != frame(domain, data)
