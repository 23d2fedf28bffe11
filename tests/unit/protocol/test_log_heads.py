"""Heads that people compare: read aloud, typed, sent; equal or a fork, and nothing in between."""

from __future__ import annotations

import base64
import hashlib
import re

import pytest

from nightshift.protocol.errors import LogInconsistentError, MalformedError, SignatureInvalidError, UsageError
from nightshift.protocol.log import LogHead, checkpoint_body, checkpoint_note
from nightshift.protocol.log_heads import read_head, require_same, short_head
from tests.support.plans import ORIGIN, World


@pytest.fixture(scope="module")
def world() -> World:
    return World.make(devices=5)


def test_the_short_form_is_what_it_is_said_to_be(world: World) -> None:
    shown = short_head(world.head, ORIGIN)
    size, *groups = shown.split("-")
    assert size == "5"
    assert [len(group) for group in groups] == [7] * 5
    # Framed by hand: the length of the domain string, the string, the length of the text, the text.
    domain, body = b"nightshift/v1/log-head", checkpoint_body(ORIGIN, 5, world.tree.root())
    framed = len(domain).to_bytes(4, "big") + domain + len(body).to_bytes(4, "big") + body
    letters = base64.b32encode(hashlib.sha256(framed).digest()).decode()
    assert "".join(group[:-1] for group in groups) == letters[:30]


def test_both_forms_are_equal_to_what_this_device_saw(world: World) -> None:
    note = checkpoint_note(world.checkpoint(), world.trust).decode()
    for text in (short_head(world.head, ORIGIN), f"  {short_head(world.head, ORIGIN).lower()}\n", note):
        other = read_head(text, world.trust)
        assert other.size == 5
        assert other.signed is (text == note)
        require_same(other, world.head, ORIGIN)


@pytest.mark.parametrize("what", ["root", "size", "origin"])
def test_another_history_is_a_fork(world: World, what: str) -> None:
    head, origin = world.head, ORIGIN
    if what == "root":
        head = LogHead(head.size, bytes(32))
    elif what == "size":
        head = LogHead(head.size + 1, head.root)
    else:
        origin = "another/log"
    other = read_head(short_head(head, origin), world.trust)
    with pytest.raises(LogInconsistentError, match="the log forked") as caught:
        require_same(other, world.head, ORIGIN)
    assert caught.value.exit_code == 14


def test_every_single_wrong_letter_is_noticed_as_mistyped(world: World) -> None:
    shown = short_head(world.head, ORIGIN)
    for place, letter in enumerate(shown):
        if letter in "-5" and place < 2:
            continue
        if letter == "-":
            continue
        wrong = shown[:place] + ("A" if letter != "A" else "B") + shown[place + 1 :]
        with pytest.raises(UsageError, match=f"group {(place - 2) // 8 + 1} of its letters"):
            read_head(wrong, world.trust)


@pytest.mark.parametrize("text", ["", "5", "5-", "-ABCDEFG", "five-" + "A" * 35, "5-" + "A" * 34, "٥-" + "A" * 35])
def test_what_is_no_head_is_refused(world: World, text: str) -> None:
    with pytest.raises(UsageError, match="five groups of seven letters"):
        read_head(text, world.trust)


def test_a_note_of_another_coordinator_is_refused(world: World) -> None:
    other = World.make(devices=5)
    with pytest.raises(SignatureInvalidError, match="carries no signature by"):
        read_head(checkpoint_note(other.checkpoint(), other.trust).decode(), world.trust)


def test_a_note_that_was_altered_is_refused(world: World) -> None:
    note = checkpoint_note(world.checkpoint(), world.trust).decode()
    with pytest.raises(SignatureInvalidError, match="not of this text"):
        read_head(re.sub(r"\n5\n", "\n6\n", note), world.trust)
    with pytest.raises(MalformedError, match="no empty line"):
        read_head("two\nlines", world.trust)
