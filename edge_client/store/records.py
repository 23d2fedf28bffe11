"""What the owner can read: ledger, security events, data sources, passes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

from edge_client.store.database import Database

LEFT = "left_unix_s"
"""When this device left a coordinator last: what that one did before is no fault of the next."""


@dataclass(frozen=True, slots=True)
class LedgerEntry:
    """One thing that left this device.

    Attributes:
        time_unix_s: when.
        kind: "join", "renewal", "check-in", "contribution", "answer" or "erasure".
        size_bytes: how much.
        recipient: host:port.
        sentence: what it was, in plain words.
        details: for programs.
    """

    time_unix_s: int
    kind: str
    size_bytes: int
    recipient: str
    sentence: str
    details: Mapping[str, object]


@dataclass(frozen=True, slots=True)
class SecurityEvent:
    """Something the coordinator did that it may not do."""

    time_unix_s: int
    kind: str
    sentence: str


@dataclass(frozen=True, slots=True)
class Source:
    """Where private text lies.

    Attributes:
        number: for `data remove`.
        path: absolute; never copied.
        format: chat, prompt, text or csv.
        columns: role -> column name, for csv.
        added_at_unix_s: when.
    """

    number: int
    path: str
    format: str
    columns: Mapping[str, str]
    added_at_unix_s: int


@dataclass(frozen=True, slots=True)
class Pass:
    """One nightly pass; without an end it was cut off."""

    started_at_unix_s: int
    ended_at_unix_s: int | None
    exit_code: int | None
    summary: str | None


class Records:
    """The tables that people read."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def add_ledger(self, entry: LedgerEntry) -> None:
        """Append to the ledger; nothing ever changes or removes a line."""
        with self._database.transaction() as connection:
            connection.execute(
                "INSERT INTO ledger (time, kind, size_bytes, recipient, sentence, details) VALUES (?, ?, ?, ?, ?, ?)",
                (
                    entry.time_unix_s,
                    entry.kind,
                    entry.size_bytes,
                    entry.recipient,
                    entry.sentence,
                    json.dumps(dict(entry.details), sort_keys=True),
                ),
            )

    def ledger(self, since_unix_s: int = 0) -> list[LedgerEntry]:
        """Lines from a time on, oldest first."""
        rows = self._database.rows("SELECT * FROM ledger WHERE time >= ? ORDER BY id", (since_unix_s,))
        return [
            LedgerEntry(r["time"], r["kind"], r["size_bytes"], r["recipient"], r["sentence"], json.loads(r["details"]))
            for r in rows
        ]

    def add_security_event(self, event: SecurityEvent) -> None:
        """Keep evidence of a lie, for `status`."""
        with self._database.transaction() as connection:
            connection.execute(
                "INSERT INTO security_events (time, kind, sentence) VALUES (?, ?, ?)",
                (event.time_unix_s, event.kind, event.sentence),
            )

    def security_events(self) -> list[SecurityEvent]:
        """All of them, oldest first."""
        rows = self._database.rows("SELECT * FROM security_events ORDER BY id")
        return [SecurityEvent(r["time"], r["kind"], r["sentence"]) for r in rows]

    def add_source(self, path: str, format_: str, columns: Mapping[str, str], now_unix_s: int) -> Source:
        """Register a file of private text; the same path again replaces its settings."""
        with self._database.transaction() as connection:
            connection.execute(
                "INSERT INTO sources (path, format, columns, added_at) VALUES (?, ?, ?, ?) ON CONFLICT (path)"
                " DO UPDATE SET format = excluded.format, columns = excluded.columns",
                (path, format_, json.dumps(dict(columns), sort_keys=True), now_unix_s),
            )
        return next(source for source in self.sources() if source.path == path)

    def sources(self) -> list[Source]:
        """All of them, in the order in which they were added."""
        rows = self._database.rows("SELECT * FROM sources ORDER BY id")
        return [Source(r["id"], r["path"], r["format"], json.loads(r["columns"]), r["added_at"]) for r in rows]

    def remove_source(self, number: int) -> bool:
        """Forget a source (its file stays); False if there is no such number."""
        with self._database.transaction() as connection:
            return connection.execute("DELETE FROM sources WHERE id = ?", (number,)).rowcount == 1

    def begin_pass(self, now_unix_s: int) -> int:
        """A pass starts; returns its number."""
        with self._database.transaction() as connection:
            number = connection.execute("INSERT INTO passes (started_at) VALUES (?)", (now_unix_s,)).lastrowid
            # `status` shows the last few; a device that wakes hourly for years must not grow for it.
            connection.execute("DELETE FROM passes WHERE id <= ? - 1000", (number,))
        assert number is not None
        return number

    def end_pass(self, number: int, *, now_unix_s: int, exit_code: int, summary: str) -> None:
        """A pass ended."""
        with self._database.transaction() as connection:
            connection.execute(
                "UPDATE passes SET ended_at = ?, exit_code = ?, summary = ? WHERE id = ?",
                (now_unix_s, exit_code, summary, number),
            )

    def last_pass(self) -> Pass | None:
        """The newest pass."""
        return next(iter(self.passes(1)), None)

    def passes(self, most: int) -> list[Pass]:
        """The newest passes, newest first."""
        rows = self._database.rows("SELECT * FROM passes ORDER BY id DESC LIMIT ?", (most,))
        return [Pass(row["started_at"], row["ended_at"], row["exit_code"], row["summary"]) for row in rows]
