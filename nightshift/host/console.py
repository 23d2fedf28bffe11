"""How commands speak: people on a terminal, `--json` for programs, exit codes for scripts."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from typing import Any

from nightshift.protocol.errors import ExitCode, NightshiftError


def emit(value: Any, *, as_json: bool, text: str) -> None:
    """Print one result on stdout: the value as one JSON object, or the text."""
    print(json.dumps(value, ensure_ascii=False, sort_keys=False) if as_json else text)  # noqa: T201 - the output


def printable(text: str) -> str:
    """The text with everything escaped that could steer a terminal or reorder a line.

    Names and messages come from the other side; escape sequences, carriage
    returns and bidirectional marks in them must not act here (Unicode TR 36).
    """
    return "".join(
        letter if letter.isprintable() or letter == "\n" else letter.encode("unicode_escape").decode("ascii")
        for letter in text
    )


def note(message: str) -> None:
    """Say something beside the result, on stderr."""
    print(printable(message), file=sys.stderr, flush=True)  # noqa: T201 - the output


def exit_with(command: Callable[[], Any]) -> int:
    """Run a command and turn what it raises into a sentence and an exit code; an exit code that it returns is kept.

    Set `NIGHTSHIFT_TRACEBACK=1` to see where an unexpected error came from.
    """
    try:
        code = command()
    except NightshiftError as error:
        note(f"error: {error}")
        return int(error.exit_code)
    except KeyboardInterrupt:
        note("stopped")
        return 130
    except Exception as error:
        if os.environ.get("NIGHTSHIFT_TRACEBACK"):
            raise
        note(f"error: unexpected {type(error).__name__}: {error}; set NIGHTSHIFT_TRACEBACK=1 to see where")
        return int(ExitCode.INTERNAL)
    return code if isinstance(code, int) else int(ExitCode.OK)
