"""Numbers with their nouns, and lists as sentences have them."""

from __future__ import annotations

import pytest

from nightshift.host.wording import enumerated, fact, number_of


@pytest.mark.parametrize(
    ("count", "noun", "several", "expected"),
    [
        (0, "problem", "", "0 problems"),
        (1, "problem", "", "1 problem"),
        (2, "problem", "", "2 problems"),
        (1, "entry", "entries", "1 entry"),
        (21, "entry", "entries", "21 entries"),
    ],
)
def test_a_number_with_its_noun(count: int, noun: str, several: str, expected: str) -> None:
    assert number_of(count, noun, several) == expected


def test_things_in_a_row() -> None:
    assert [enumerated("abc"[:length]) for length in (1, 2, 3)] == ["a", "a and b", "a, b and c"]


def test_facts_stand_below_one_another() -> None:
    lines = [fact("power", "mains"), fact("temperature", "50 °C"), fact("certificate", "until noon")]
    assert lines == ["power:        mains", "temperature:  50 °C", "certificate:  until noon"]
    assert len({line.index(text) for line, text in zip(lines, ("mains", "50", "until"), strict=True)}) == 1
