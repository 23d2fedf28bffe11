"""How many bytes a night sent and received: what the owner's nightly limit is about.

A night goes from noon to noon, in local time, so that one night is not two days.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

from edge_client.store.database import Database

NIGHTS_KEPT = 32
_DAY_S = 86_400


@dataclass(frozen=True, slots=True)
class NightTraffic:
    """Bytes of messages, headers of the transport not counted."""

    sent_bytes: int
    received_bytes: int

    @property
    def total_bytes(self) -> int:
        """Both ways."""
        return self.sent_bytes + self.received_bytes


def night_of(unix_s: float) -> int:
    """The night that a moment belongs to: the day, since 1970-01-01, of the noon before it."""
    return int(unix_s + time.localtime(unix_s).tm_gmtoff - _DAY_S / 2) // _DAY_S


class Traffic:
    """The table of nights."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def add(self, night: int, *, sent_bytes: int, received_bytes: int) -> None:
        """Count more; nights long past are forgotten."""
        with self._database.transaction() as connection:
            connection.execute(
                "INSERT INTO traffic (night, sent_bytes, received_bytes) VALUES (?, ?, ?) ON CONFLICT (night) DO UPDATE"
                " SET sent_bytes = sent_bytes + excluded.sent_bytes,"
                " received_bytes = received_bytes + excluded.received_bytes",
                (night, sent_bytes, received_bytes),
            )
            connection.execute("DELETE FROM traffic WHERE night < ?", (night - NIGHTS_KEPT,))

    def of(self, night: int) -> NightTraffic:
        """What a night used so far."""
        row = self._database.row("SELECT sent_bytes, received_bytes FROM traffic WHERE night = ?", (night,))
        return NightTraffic(0, 0) if row is None else NightTraffic(row["sent_bytes"], row["received_bytes"])
