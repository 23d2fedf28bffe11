"""Tables: whole lines in a pipe, and on a terminal no line that is wider than it."""

from __future__ import annotations

import sys

import pytest

from coordinator.cli.tables import details, table

COLUMNS = ("name", "state", "last_seen", "reason")
ROWS = [
    {"name": "kitchen-pi", "state": "enrolled", "last_seen": "2026-11-23T09:07:23Z", "reason": None},
    {"name": "attic", "state": "held", "last_seen": None, "reason": "this device's key is in use twice, it seems"},
]


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Standard output is a terminal; its width is in COLUMNS."""
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    return monkeypatch


def shown(terminal: pytest.MonkeyPatch, width: int, rows: list[dict[str, str | None]] = ROWS) -> list[str]:
    terminal.setenv("COLUMNS", str(width))
    lines = table(rows, COLUMNS, empty="none").splitlines()
    assert max(map(len, lines)) <= width
    return lines


def test_in_a_pipe_each_row_is_a_line_whatever_the_width(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "20")
    assert table(ROWS, COLUMNS, empty="none").splitlines() == [
        "name        state     last seen             reason",
        "kitchen-pi  enrolled  2026-11-23T09:07:23Z  -",
        "attic       held      -                     this device's key is in use twice, it seems",
    ]
    assert table([], COLUMNS, empty="none") == "none"


def test_what_fits_is_the_same_on_a_terminal(terminal: pytest.MonkeyPatch) -> None:
    assert (
        shown(terminal, 87)[2]
        == "attic       held      -                     this device's key is in use twice, it seems"
    )


def test_the_last_column_is_wrapped(terminal: pytest.MonkeyPatch) -> None:
    assert shown(terminal, 70) == [
        "name        state     last seen             reason",
        "kitchen-pi  enrolled  2026-11-23T09:07:23Z  -",
        "attic       held      -                     this device's key is in",
        "                                            use twice, it seems",
    ]


def test_columns_in_which_nothing_stands_go_first(terminal: pytest.MonkeyPatch) -> None:
    assert shown(terminal, 45, ROWS[:1]) == [
        "name        state     last seen",
        "kitchen-pi  enrolled  2026-11-23T09:07:23Z",
    ]


def test_what_does_not_fit_at_all_is_records(terminal: pytest.MonkeyPatch) -> None:
    assert shown(terminal, 60) == [
        "name: kitchen-pi",
        "state: enrolled",
        "last seen: 2026-11-23T09:07:23Z",
        "reason: -",
        "",
        "name: attic",
        "state: held",
        "last seen: -",
        "reason: this device's key is in use twice, it seems",
    ]


def test_nothing_that_came_from_a_device_steers_the_terminal() -> None:
    assert details({"name": "a\x1b[2Jb\nc", "held": True}) == "name: a\\x1b[2Jb c\nheld: yes"
