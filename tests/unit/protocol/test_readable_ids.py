"""Ids that people compare: nothing is lost, and a slip of the pen is noticed."""

from __future__ import annotations

import os

import pytest

from nightshift.protocol.errors import UsageError
from nightshift.protocol.readable_ids import parse_readable_id, readable_id

# The example of Syncthing's documentation (docs.syncthing.net/dev/device-ids).
DOCUMENTED = "MFZWI3D-BONSGYC-YLTMRWG-C43ENR5-QXGZDMM-FZWI3DP-BONSGYY-LTMRWAD"


def test_the_documented_example_is_read_and_written() -> None:
    assert readable_id(parse_readable_id(DOCUMENTED)) == DOCUMENTED


def test_every_id_comes_back() -> None:
    for identifier in (bytes(32), b"\xff" * 32, *(os.urandom(32) for _ in range(50))):
        shown = readable_id(identifier)
        assert [len(group) for group in shown.split("-")] == [7] * 8
        assert parse_readable_id(shown) == identifier
        assert parse_readable_id(shown.lower().replace("-", " ")) == identifier


def test_what_looks_alike_is_the_same() -> None:
    identifier = next(each for each in iter(lambda: os.urandom(32), b"") if {"O", "I", "B"} <= set(readable_id(each)))
    spelt = readable_id(identifier).replace("O", "0").replace("I", "1").replace("B", "8")
    assert parse_readable_id(spelt) == identifier


@pytest.mark.parametrize("place", range(56))
def test_every_wrong_letter_is_noticed(place: int) -> None:
    letters = readable_id(os.urandom(32)).replace("-", "")
    for wrong in "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567":
        if wrong != letters[place]:
            with pytest.raises(UsageError, match="mistyped"):
                parse_readable_id(letters[:place] + wrong + letters[place + 1 :])


@pytest.mark.parametrize(
    "text", ["", DOCUMENTED[:-1], DOCUMENTED + "A", "9" * 56, "é" * 56, DOCUMENTED.replace("-", "_")]
)
def test_what_is_no_id(text: str) -> None:
    with pytest.raises(UsageError, match="letters and digits"):
        parse_readable_id(text)
