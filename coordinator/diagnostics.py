"""Structured log lines on stderr: one event a line, never a secret.

What may appear: ids in hex, sizes, states, reasons. What may not: keys, token
secrets, vectors, anything a device uploaded. Values are rendered escaped, so
that text from the other side cannot forge a line.
"""

from __future__ import annotations

import logging
import sys

import structlog

log: structlog.stdlib.BoundLogger = structlog.get_logger("coordinator")


def configure(*, as_json: bool, level: str = "info") -> None:
    """Send events to stderr, as logfmt for people and journald or as JSON for programs."""
    renderer = structlog.processors.JSONRenderer() if as_json else structlog.processors.LogfmtRenderer()
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level.upper()]),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )


def short(identifier: bytes) -> str:
    """The first digits of an id, enough to find it with the commands."""
    return identifier.hex()[:16]
