"""Sentences for people, of both programs: a number with its noun, things in a row, facts below one another."""

from __future__ import annotations

from collections.abc import Sequence


def number_of(count: int, noun: str, several: str = "") -> str:
    """`number_of(1, "device")` is "1 device", `number_of(3, "device")` "3 devices".

    Args:
        count: how many.
        noun: of one.
        several: of more than one, where it is not the noun with an s.
    """
    return f"{count} {noun if count == 1 else several or noun + 's'}"


def enumerated(things: Sequence[str]) -> str:
    """Things as a sentence names them: "a", "a and b", "a, b and c"."""
    *first, last = things
    return f"{', '.join(first)} and {last}" if first else last


def fact(name: str, text: str) -> str:
    """One line of a list of facts, below one another: "power:        mains, no battery"."""
    return f"{name + ':':<13} {text}"
