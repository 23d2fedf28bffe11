"""Structured log lines on stderr: one event a line, never a secret.

What may appear: ids in hex, sizes, states, reasons. What may not: keys, token
secrets, vectors, anything a device uploaded. Values are rendered escaped, so
that text from the other side cannot forge a line.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import MutableMapping
from typing import Any

import structlog

from nightshift.host.console import printable

log: structlog.stdlib.BoundLogger = structlog.get_logger("coordinator")


def configure(*, as_json: bool, level: str = "info") -> None:
    """Send events to stderr, as logfmt for people and journald or as JSON for programs."""
    text = structlog.processors.LogfmtRenderer(key_order=["timestamp", "level", "event"])
    renderer = structlog.processors.JSONRenderer() if as_json else text
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            _harmless,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level.upper()]),
        # Looked up at each event: whoever redirects stderr later gets the events too.
        logger_factory=lambda *_: structlog.PrintLogger(sys.stderr),
    )


def _harmless(_logger: object, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    return {key: printable(value) if isinstance(value, str) else value for key, value in event.items()}


def short(identifier: bytes) -> str:
    """The first digits of an id, enough to find it with the commands."""
    return identifier.hex()[:16]
