"""Opening a user's data file and reading it line by line in bounded memory.

The owner names the file, but what is in it may come from anywhere: a chat
export with a 2 GB line, a database opened by mistake, a link that leads out of
the folder it was found in. Whatever the file holds, at most `MAX_LINE_BYTES`
plus one chunk are in memory.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import BinaryIO

from edge_client.data.errors import DataError

MAX_LINE_BYTES = 1 << 20
_CHUNK_BYTES = 1 << 16
_SNIFF_BYTES = 8192


class SkipReason(Enum):
    """Why a row is not used; the value is what people read."""

    LINE_TOO_LONG = "line longer than 1 MiB"
    NOT_UTF8 = "not UTF-8"
    BINARY = "binary content"
    NOT_JSON = "not JSON"
    NOT_AN_OBJECT = "not a JSON object"
    MISSING_FIELD = "a field is missing"
    NOT_TEXT = "a field is not text"
    EMPTY = "empty text"
    NOT_MESSAGES = "messages are not a list of role and content"
    UNKNOWN_ROLE = "unknown role"
    NO_ANSWER = "no assistant message"
    BAD_CSV = "malformed CSV record"
    COLUMN_COUNT = "wrong number of columns"


@dataclass(frozen=True, slots=True)
class Skip:
    """A row that is not used, and why."""

    reason: SkipReason


def resolve(path: Path, *, root: Path | None = None) -> Path:
    """Follows links to the regular file that a path means.

    Args:
        path: what the owner named.
        root: folder that the file must lie in after all links are followed.

    Raises:
        DataError: no such file, a loop of links, a folder, device or pipe, or
            a path that leads out of `root`.
    """
    try:
        target = path.resolve(strict=True)
        mode = target.stat().st_mode
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such file") from error
    except (OSError, RuntimeError, ValueError) as error:
        # Python 3.11 and 3.12 report a loop of links as RuntimeError, later ones as OSError.
        raise DataError(f"{path}: cannot be opened ({_cause(error)})") from error
    if root is not None and not target.is_relative_to(root.resolve()):
        raise DataError(f"{path}: leads to {target}, which is outside {root}; add that file by its own path")
    if not stat.S_ISREG(mode):
        raise DataError(f"{path}: not a regular file; name the file that holds the rows")
    return target


def open_data(path: Path, *, root: Path | None = None) -> BinaryIO:
    """Opens a data file for reading.

    Raises:
        DataError: as `resolve`; the file is not readable, or looks binary.
    """
    target = resolve(path, root=root)
    try:
        # Never blocks: the file could have been replaced by a pipe since `resolve`.
        descriptor = os.open(target, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError as error:
        raise DataError(f"{path}: cannot be opened ({_cause(error)})") from error
    stream = os.fdopen(descriptor, "rb")
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise DataError(f"{path}: not a regular file; name the file that holds the rows")
        if b"\0" in stream.read(_SNIFF_BYTES):
            raise DataError(f"{path}: looks binary (it has NUL bytes); export it as UTF-8 text first")
        stream.seek(0)
    except BaseException:
        stream.close()
        raise
    return stream


def read_lines(stream: BinaryIO) -> Iterator[str | Skip]:
    """Yields decoded lines without their line ends, or why one is skipped."""
    first = True
    for line in _raw_lines(stream):
        if isinstance(line, Skip):
            yield line
            continue
        content = line.removeprefix(b"\xef\xbb\xbf") if first else line
        first = False
        if b"\0" in content:
            yield Skip(SkipReason.BINARY)
            continue
        try:
            yield content.decode("utf-8").removesuffix("\r")
        except UnicodeDecodeError:
            yield Skip(SkipReason.NOT_UTF8)


def _raw_lines(stream: BinaryIO) -> Iterator[bytes | Skip]:
    pending = bytearray()
    overlong = False
    while chunk := stream.read(_CHUNK_BYTES):
        *complete, rest = chunk.split(b"\n")
        for part in complete:
            if overlong or len(pending) + len(part) > MAX_LINE_BYTES:
                yield Skip(SkipReason.LINE_TOO_LONG)
            else:
                yield bytes(pending) + part
            pending.clear()
            overlong = False
        overlong = overlong or len(pending) + len(rest) > MAX_LINE_BYTES
        if overlong:
            pending.clear()
        else:
            pending += rest
    if overlong:
        yield Skip(SkipReason.LINE_TOO_LONG)
    elif pending:
        yield bytes(pending)


def _cause(error: Exception) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or str(error)
