"""Times as messages, tables and JSON show them."""

from __future__ import annotations

from datetime import UTC, datetime


def readable_time(unix_s: int) -> str:
    """`2026-03-01T02:15Z`; a time that no calendar shows stays a number, since the other side may have sent it."""
    try:
        return f"{datetime.fromtimestamp(unix_s, UTC):%Y-%m-%dT%H:%MZ}"
    except (ValueError, OverflowError, OSError):
        return f"Unix time {unix_s}"


def rfc3339(unix_s: int | None) -> str | None:
    """`2026-03-01T02:15:07Z`, as programs and people read it (RFC 3339); None stays None."""
    return None if unix_s is None else datetime.fromtimestamp(unix_s, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
