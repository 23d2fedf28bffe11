"""The ledger: plain words, spans of time, and nothing that changes afterwards."""

from __future__ import annotations

from pathlib import Path

import pytest

from edge_client import ledger
from edge_client.home import Home
from edge_client.store import open_store
from nightshift.protocol.errors import UsageError

NOW = 1_800_000_000


@pytest.mark.parametrize(
    ("text", "unix_s"),
    [
        ("90m", NOW - 5400),
        ("24h", NOW - 86_400),
        ("7d", NOW - 604_800),
        ("2w", NOW - 1_209_600),
        ("2026-01-31", 1_769_817_600),
        ("2026-01-31T00:00:00Z", 1_769_817_600),
        ("2026-01-31T01:00:00+01:00", 1_769_817_600),
    ],
)
def test_a_span_or_a_date(text: str, unix_s: int) -> None:
    assert ledger.parse_since(text, NOW) == unix_s


@pytest.mark.parametrize("text", ["", "d", "7", "7y", "-7d", "yesterday", "2026-13-01"])
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="neither a span"):
        ledger.parse_since(text, NOW)


@pytest.mark.parametrize(
    ("size", "shown"), [(0, "0 B"), (999, "999 B"), (120_400, "120 kB"), (5_000_000, "5 MB"), (2_500_000_000, "2.5 GB")]
)
def test_sizes_for_people(size: int, shown: str) -> None:
    assert ledger.readable_size(size) == shown


def test_lines_come_back_in_order_from_a_time_on(tmp_path: Path) -> None:
    with open_store(Home(tmp_path / "config.toml", tmp_path, tmp_path / "cache")) as store:
        for moment in (NOW, NOW + 10, NOW + 20):
            ledger.checked_in(store, now_unix_s=moment, recipient="a:1", size_bytes=24, prekeys=moment % 3)
        ledger.answered(
            store, cohort_id=b"c" * 32, contributors=6, size_bytes=8292, now_unix_s=NOW + 30, recipient="a:1"
        )
        entries = store.records.ledger(NOW + 10)
    assert [entry.time_unix_s - NOW for entry in entries] == [10, 20, 30]
    assert "no text, no results" in entries[0].sentence
    assert "6 devices" in entries[-1].sentence
    assert entries[-1].details == {"cohort": (b"c" * 32).hex(), "contributors": 6}
