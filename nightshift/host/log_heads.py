"""Log heads from the command line of either program: a file's content where there is such a file, else the text."""

from __future__ import annotations

from pathlib import Path

from nightshift.protocol.errors import UsageError

MOST_FILE_BYTES = 65_536


def file_or_text(text: str) -> str:
    """What `nightshift.protocol.log_heads.read_head` reads.

    Raises:
        UsageError: a file that cannot be read, or is too large to be a head.
    """
    path = Path(text)
    try:
        if "\n" in text or not path.is_file():
            return text
        if path.stat().st_size > MOST_FILE_BYTES:
            raise UsageError(f"{path} is larger than any log head")
        return _note_in(path.read_text("utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} could not be read as a log head: {error}") from error


def _note_in(content: str) -> str:
    """The note of a file; `edge-client log head` puts the short form and an empty line before it."""
    first, gap, rest = content.lstrip("\n").partition("\n\n")
    return rest if gap and "\n" not in first and rest.strip() else content
