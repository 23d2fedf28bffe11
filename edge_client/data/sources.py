"""The four kinds of data file, read as examples; bad rows are counted, not fatal.

| format | a row is |
|---|---|
| `prompt` | a JSON object per line with the fields "prompt" and "completion" |
| `chat` | a JSON object per line with "messages": [{"role", "content"}, ...] |
| `text` | a block of lines; blank lines part them, long ones are cut |
| `csv` | a record under a header line; `Columns` says which columns to use |

`Columns` also renames the fields of `prompt` and `chat`.
"""

from __future__ import annotations

import csv
import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from enum import Enum
from itertools import islice
from pathlib import Path
from types import MappingProxyType
from typing import TypeGuard

from edge_client.data.errors import DataError
from edge_client.data.examples import ROLES, Conversation, Example, Message, Passage, question
from edge_client.data.files import MAX_LINE_BYTES, Skip, SkipReason, open_data, read_lines, resolve

MAX_PASSAGE_CHARACTERS = 2048
MAX_MESSAGES = 1024


class DataFormat(Enum):
    """How a data file is laid out."""

    CHAT = "chat"
    PROMPT = "prompt"
    TEXT = "text"
    CSV = "csv"


@dataclass(frozen=True, slots=True)
class Columns:
    """Names of the fields or columns that hold the text.

    For CSV either `prompt` and `completion`, or `text` alone.
    """

    prompt: str = "prompt"
    completion: str = "completion"
    messages: str = "messages"
    text: str | None = None


@dataclass(frozen=True, slots=True)
class DataSource:
    """A data file that the owner added: a reference, never a copy."""

    path: Path
    format: DataFormat
    columns: Columns = Columns()
    root: Path | None = None


@dataclass(frozen=True, slots=True)
class DataReport:
    """What a data file holds.

    Attributes:
        rows: usable rows.
        skipped: reason in plain words -> number of rows.
        size_bytes: size of the file.
    """

    rows: int
    skipped: Mapping[str, int]
    size_bytes: int


def scan(path: Path, data_format: DataFormat, columns: Columns | None = None) -> DataReport:
    """Counts usable and skipped rows, in bounded memory.

    Raises:
        DataError: the file cannot be used at all.
    """
    counts: Counter[str] = Counter()
    rows = 0
    for row in read_rows(DataSource(path, data_format, columns or Columns())):
        if isinstance(row, Skip):
            counts[row.reason.value] += 1
        else:
            rows += 1
    return DataReport(rows, MappingProxyType(dict(counts)), resolve(path).stat().st_size)


def read_examples(source: DataSource, *, limit: int = 100_000) -> list[Example]:
    """Reads at most `limit` usable rows.

    Raises:
        DataError: the file cannot be used at all.
    """
    usable = (row for row in read_rows(source) if not isinstance(row, Skip))
    return list(islice(usable, limit))


def read_rows(source: DataSource) -> Iterator[Example | Skip]:
    """Yields every row of a file as an example, or why it is skipped.

    Raises:
        DataError: the file cannot be used at all.
    """
    with closing(open_data(source.path, root=source.root)) as stream:
        lines = read_lines(stream)
        match source.format:
            case DataFormat.PROMPT:
                yield from _json_rows(lines, lambda row: _prompt_row(row, source.columns))
            case DataFormat.CHAT:
                yield from _json_rows(lines, lambda row: _chat_row(row, source.columns))
            case DataFormat.TEXT:
                yield from _passages(lines)
            case DataFormat.CSV:
                yield from _csv_rows(lines, source)


def _json_rows(
    lines: Iterator[str | Skip], convert: Callable[[Mapping[str, object]], Example | Skip]
) -> Iterator[Example | Skip]:
    for line in lines:
        if isinstance(line, Skip):
            yield line
        elif line.strip():
            try:
                row = json.loads(line)
            except (ValueError, RecursionError):
                yield Skip(SkipReason.NOT_JSON)
                continue
            yield convert(row) if isinstance(row, dict) else Skip(SkipReason.NOT_AN_OBJECT)


def _prompt_row(row: Mapping[str, object], columns: Columns) -> Example | Skip:
    if columns.prompt not in row or columns.completion not in row:
        return Skip(SkipReason.MISSING_FIELD)
    return _question(row[columns.prompt], row[columns.completion])


def _question(prompt: object, completion: object) -> Example | Skip:
    if not (_is_text(prompt) and _is_text(completion)):
        return Skip(SkipReason.NOT_TEXT)
    if not (prompt.strip() and completion.strip()):
        return Skip(SkipReason.EMPTY)
    return question(prompt, completion)


def _chat_row(row: Mapping[str, object], columns: Columns) -> Example | Skip:
    if columns.messages not in row:
        return Skip(SkipReason.MISSING_FIELD)
    turns = row[columns.messages]
    if not isinstance(turns, list) or not 1 <= len(turns) <= MAX_MESSAGES:
        return Skip(SkipReason.NOT_MESSAGES)
    messages: list[Message] = []
    for turn in turns:
        message = _message(turn)
        if isinstance(message, Skip):
            return message
        messages.append(message)
    if not any(message.role == "assistant" for message in messages):
        return Skip(SkipReason.NO_ANSWER)
    return Conversation(tuple(messages))


def _message(turn: object) -> Message | Skip:
    if not isinstance(turn, dict) or "role" not in turn or "content" not in turn:
        return Skip(SkipReason.NOT_MESSAGES)
    role, content = turn["role"], turn["content"]
    if role not in ROLES:
        return Skip(SkipReason.UNKNOWN_ROLE)
    if not _is_text(content):
        return Skip(SkipReason.NOT_TEXT)
    if role == "assistant" and not content.strip():
        return Skip(SkipReason.EMPTY)
    return Message(role, content)


def _is_text(value: object) -> TypeGuard[str]:
    """Text that can be encoded: JSON escapes may hold lone surrogates, which cannot."""
    if not isinstance(value, str):
        return False
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def _passages(lines: Iterator[str | Skip]) -> Iterator[Example | Skip]:
    block: list[str] = []
    size = 0
    for line in lines:
        if isinstance(line, Skip):
            yield line
            continue
        if not line.strip() or size + len(line) > MAX_PASSAGE_CHARACTERS:
            if block:
                yield Passage("\n".join(block))
            block, size = [], 0
        if line.strip():
            *full, rest = _pieces(line)
            yield from (Passage(piece) for piece in full)
            block.append(rest)
            size += len(rest) + 1
    if block:
        yield Passage("\n".join(block))


def _pieces(line: str) -> list[str]:
    """Cuts a long line at spaces where there are any."""
    pieces = []
    while len(line) > MAX_PASSAGE_CHARACTERS:
        cut = line.rfind(" ", 1, MAX_PASSAGE_CHARACTERS)
        cut = cut if cut > 0 else MAX_PASSAGE_CHARACTERS
        pieces.append(line[:cut])
        line = line[cut:].lstrip(" ")
    return [*pieces, line]


class _RecordTooLongError(Exception):
    """A CSV record (one whose quotes never close, for instance) outgrew its bound."""


class _BoundedLines:
    """Lines for `csv.reader`, counted per record so that no record grows without bound."""

    def __init__(self, lines: Iterator[str | Skip]) -> None:
        self._lines = lines
        self._size = 0
        self.skips: list[Skip] = []

    def __iter__(self) -> _BoundedLines:
        return self

    def __next__(self) -> str:
        for line in self._lines:
            if isinstance(line, Skip):
                self.skips.append(line)
                continue
            self._size += len(line) + 1
            if self._size > MAX_LINE_BYTES:
                raise _RecordTooLongError
            return line + "\n"
        raise StopIteration

    def start_record(self) -> None:
        self._size = 0
        self.skips.clear()


def _csv_rows(lines: Iterator[str | Skip], source: DataSource) -> Iterator[Example | Skip]:
    bounded = _BoundedLines(lines)
    reader = csv.reader(bounded, strict=True)
    try:
        header = next(reader, None)
    except (csv.Error, _RecordTooLongError) as error:
        raise DataError(f"{source.path}: the first line is not a CSV header") from error
    if header is None:
        raise DataError(f"{source.path}: empty; a CSV file starts with a header line")
    names = source.columns
    wanted = [names.text] if names.text is not None else [names.prompt, names.completion]
    absent = [name for name in wanted if name not in header]
    if absent:
        raise DataError(
            f"{source.path}: no column {absent[0]!r}; the header has {', '.join(header)[:200]}. Name the columns to use"
        )
    picks = [header.index(name) for name in wanted]
    while True:
        bounded.start_record()
        try:
            record = next(reader, None)
        except (csv.Error, _RecordTooLongError):
            yield from bounded.skips
            yield Skip(SkipReason.BAD_CSV)
            continue
        yield from bounded.skips
        if record is None:
            return
        if len(record) != len(header):
            if record:
                yield Skip(SkipReason.COLUMN_COUNT)
            continue
        fields = [record[pick] for pick in picks]
        if names.text is None:
            yield _question(*fields)
        elif fields[0].strip():
            yield Passage(fields[0])
        else:
            yield Skip(SkipReason.EMPTY)
