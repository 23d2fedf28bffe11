"""Structured log lines on stderr: one event a line, never a secret.

What may appear: ids in hex, sizes, states, reasons. What may not: keys, token
secrets, vectors, anything a device uploaded. Values are rendered escaped, so
that text from the other side cannot forge a line.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import MutableMapping
from typing import Any

import structlog

from nightshift.host.console import printable

_JOURNAL = "JOURNAL_STREAM"  # device and inode of the journal's socket (systemd.exec, "Environment Variables")

log: structlog.stdlib.BoundLogger = structlog.get_logger("coordinator")


def configure(*, log_format: str = "text", level: str = "info") -> None:
    """Send events to stderr.

    Args:
        log_format: "text" is logfmt, "json" an object a line, "console" for eyes; "auto" takes the last on a
            terminal, JSON under systemd, and logfmt elsewhere.
        level: the lowest that is shown.
    """
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            _harmless,
            _renderer(log_format),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level.upper()]),
        # Looked up at each event: whoever redirects stderr later gets the events too.
        logger_factory=lambda *_: structlog.PrintLogger(sys.stderr),
    )


def _renderer(log_format: str) -> Any:
    if log_format == "auto":
        log_format = "console" if sys.stderr.isatty() else "json" if _goes_to_the_journal() else "text"
    if log_format == "json":
        return structlog.processors.JSONRenderer()
    if log_format == "console":
        return structlog.dev.ConsoleRenderer(colors="NO_COLOR" not in os.environ)
    return structlog.processors.LogfmtRenderer(key_order=["timestamp", "level", "event"])


def _goes_to_the_journal() -> bool:
    """Whether stderr is what systemd connected: a child with another stderr inherits the variable all the same."""
    try:
        seen = os.fstat(sys.stderr.fileno())
    except (OSError, ValueError):  # closed, or no file at all
        return False
    return os.environ.get(_JOURNAL) == f"{seen.st_dev}:{seen.st_ino}"


def _harmless(_logger: object, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    return {key: printable(value) if isinstance(value, str) else value for key, value in event.items()}


def short(identifier: bytes) -> str:
    """The first digits of an id, enough to find it with the commands."""
    return identifier.hex()[:16]
