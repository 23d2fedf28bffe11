"""Tables and records for people, as wide as the terminal is.

In a pipe every row is one line with every column, however long: `grep` and `awk` count on it. On a terminal a table
that is too wide first loses the columns in which nothing stands; then its last column, which holds the free text, is
wrapped; and where even that does not fit, each row becomes a record of its own, as psql does it when told "expanded
auto".
"""

from __future__ import annotations

import shutil
import sys
import textwrap
from collections.abc import Sequence
from typing import Any

from nightshift.host.console import printable

_GAP = "  "
_EMPTY = "-"
LEAST_WRAPPED = 24
"""Columns of text that a wrapped last column needs to be worth reading."""


def table(rows: Sequence[dict[str, Any]], columns: Sequence[str], *, empty: str) -> str:
    """Rows as aligned text; `empty` where there are none."""
    if not rows:
        return empty
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
    return _fitted(rows, columns, width)


def details(record: dict[str, Any]) -> str:
    """One record as `key: value` lines."""
    return "\n".join(f"{_heading(key)}: {_cell(value)}" for key, value in record.items())


def _fitted(rows: Sequence[dict[str, Any]], columns: Sequence[str], width: int | None) -> str:
    """The table in so many columns of text; None for as many as it takes."""
    lines = _cells(rows, columns)
    if width is None or _width(lines) <= width:
        return _aligned(lines)
    said = [column for column in columns if any(_cell(row[column]) != _EMPTY for row in rows)]
    lines = _cells(rows, said)
    if _width(lines) <= width:
        return _aligned(lines)
    left = width - _width([line[:-1] for line in lines]) - len(_GAP)
    if left >= LEAST_WRAPPED:
        return _aligned(_wrapped(lines, left))
    return "\n\n".join(details({column: row[column] for column in said}) for row in rows)


def _cells(rows: Sequence[dict[str, Any]], columns: Sequence[str]) -> list[list[str]]:
    return [[_heading(column) for column in columns], *([_cell(row[column]) for column in columns] for row in rows)]


def _widths(lines: Sequence[Sequence[str]]) -> list[int]:
    return [max(map(len, column)) for column in zip(*lines, strict=True)]


def _width(lines: Sequence[Sequence[str]]) -> int:
    widths = _widths(lines)
    return sum(widths) + len(_GAP) * (len(widths) - 1)


def _aligned(lines: Sequence[Sequence[str]]) -> str:
    widths = _widths(lines)
    return "\n".join(
        _GAP.join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines
    )


def _wrapped(lines: Sequence[Sequence[str]], width: int) -> list[list[str]]:
    """The last column in so many columns of text; what does not fit goes on below, with nothing beside it."""
    made = []
    for *others, last in lines:
        first, *more = textwrap.wrap(last, width) or [""]
        made.append([*others, first])
        made += [[*("" for _ in others), part] for part in more]
    return made


def _heading(key: str) -> str:
    return key.replace("_", " ")


def _cell(value: Any) -> str:
    if value is None or value == "":
        return _EMPTY
    if isinstance(value, bool):
        return "yes" if value else "no"
    return printable(str(value)).replace("\n", " ")
