"""The ledger: plain words, spans of time, and nothing that changes afterwards."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from edge_client import ledger
from edge_client.cli.main import cli
from edge_client.home import Home
from edge_client.store import Store, open_store
from edge_client.store.contributions import State
from nightshift.protocol.errors import UsageError
from nightshift.protocol.readable_ids import readable_id
from tests.support.contributions import contribution
from tests.support.plans import World

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


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with open_store(Home(tmp_path / "config.toml", tmp_path, tmp_path / "cache")) as store:
        yield store


def check_in_at(store: Store, *moments: int) -> None:
    for moment in moments:
        ledger.checked_in(store, now_unix_s=moment, recipient="night.example:7443", size_bytes=24, prekeys=0)


def test_lines_come_back_in_order_from_a_time_on(store: Store) -> None:
    plan = World.make(devices=4).open_cohort().document
    check_in_at(store, NOW, NOW + 10, NOW + 20)
    ledger.answered(store, plan, contributors=6, message=b"vector", now_unix_s=NOW + 30, recipient="a:1")
    entries = store.records.ledger(NOW + 10)
    assert [entry.time_unix_s - NOW for entry in entries] == [10, 20, 30]
    assert "no text, no results" in entries[0].sentence
    assert "one of 4 committee members for task 'notes', round 1" in entries[-1].sentence
    assert "6 devices" in entries[-1].sentence
    assert entries[-1].size_bytes == 6
    assert entries[-1].details["answers_needed"] == 4
    assert entries[-1].details["sha256"] == hashlib.sha256(b"vector").hexdigest()


def test_a_contribution_says_for_what_it_was_and_who_could_open_it(store: Store) -> None:
    sent = contribution(committee_keys=tuple(bytes([number]) * 91 for number in range(10)), n_min=12)
    store.adapters.see_release("commands", 7, sent.parent_release, NOW)
    ledger.contributed(store, sent, now_unix_s=NOW, recipient="night.example:7443")
    (entry,) = store.records.ledger()
    assert "task 'commands', round 1, trained from release 7" in entry.sentence
    assert "a sum over at least 12 devices, and only by 8 of the 10 committee members" in entry.sentence
    assert entry.details["sha256"] == sent.body_sha256.hex()
    assert entry.details["committee"] == [readable_id(hashlib.sha256(key).digest()) for key in sent.committee_keys]


@pytest.mark.parametrize(
    ("prekeys", "expected"),
    [
        (0, "the size of the log seen last and how many rank slots this machine trains at most; no text"),
        (1, "how many rank slots this machine trains at most and 1 new one-time public key; no text"),
        (8, "how many rank slots this machine trains at most and 8 new one-time public keys; no text"),
    ],
)
def test_a_check_in_is_a_sentence(store: Store, prekeys: int, expected: str) -> None:
    ledger.checked_in(store, now_unix_s=NOW, recipient="a:1", size_bytes=24, prekeys=prekeys)
    (entry,) = store.records.ledger()
    assert entry.sentence.startswith("checked in: sent the program's version, the size of the log seen last")
    assert expected in entry.sentence


@pytest.mark.parametrize("members", range(3, 32))
def test_how_many_must_answer_is_what_the_protocol_says(members: int) -> None:
    """T = floor((2C + f) / 3) + 1, f = max(1, floor((C - 1) / 3)), for whatever n_max the plan had."""
    assert ledger.answers_needed(members) == (2 * members + max(1, (members - 1) // 3)) // 3 + 1


class Shown:
    """What `edge-client ledger` prints for a store."""

    def __init__(self, home: Path) -> None:
        self.home = home

    def __call__(self, *arguments: str) -> str:
        result = CliRunner().invoke(cli, ["--home", str(self.home), "ledger", *arguments], env={"COLUMNS": "80"})
        assert result.exit_code == 0, result.output
        return result.output


@pytest.fixture
def shown(tmp_path: Path) -> Shown:
    return Shown(tmp_path)


def test_it_is_read_in_eighty_columns(store: Store, shown: Shown) -> None:
    check_in_at(store, NOW, NOW + 3600, NOW + 7200)
    sent = contribution()
    store.contributions.add(sent)
    ledger.contributed(store, sent, now_unix_s=NOW + 8000, recipient="night.example:7443")
    check_in_at(store, NOW + 9000)
    output = shown()
    assert max(len(line) for line in output.splitlines()) <= 80
    assert "check-in, 3 times until 2027-01-15T10:00:00Z" in output
    assert "(each time)" in " ".join(output.split())
    assert f"sha256: {sent.body_sha256.hex()}" in output
    assert output.splitlines()[-1] == "in all 106 B in 5 messages, to night.example:7443"
    assert shown("--all").count("Z     24 B  check-in") == 4


def test_check_ins_that_said_different_things_are_not_one(store: Store, shown: Shown) -> None:
    for moment, prekeys in ((NOW, 8), (NOW + 10, 0), (NOW + 20, 0)):
        ledger.checked_in(store, now_unix_s=moment, recipient="a:1", size_bytes=24, prekeys=prekeys)
    assert [line for line in shown().splitlines() if "check-in" in line] == [
        "2027-01-15T08:00:00Z     24 B  check-in",
        "2027-01-15T08:00:10Z     48 B  check-in, 2 times until 2027-01-15T08:00:20Z",
    ]


@pytest.mark.parametrize(
    ("state", "outcome"),
    [
        (State.SENDING, "partly sent"),
        (State.SENT, "taken; not seen in a release yet"),
        (State.LATE, "never opened as far as this device was shown"),
        (State.VOID, "its cohort ended without a sum"),
    ],
)
def test_what_became_of_it(store: Store, shown: Shown, state: State, outcome: str) -> None:
    sent = contribution(state=state)
    store.contributions.add(sent)
    ledger.contributed(store, sent, now_unix_s=NOW, recipient="a:1")
    assert outcome in " ".join(shown().split())


def test_over_how_many_devices_it_was_opened(store: Store, shown: Shown) -> None:
    sent = contribution(state=State.SENT)
    store.contributions.add(sent)
    ledger.contributed(store, sent, now_unix_s=NOW, recipient="a:1")
    store.contributions.note_release(sent.cohort_id, number=8, contributors=14)
    assert "opened as part of a sum: release 8 holds it, over 14 devices" in " ".join(shown().split())
    (entry,) = json.loads(shown("--json"))
    assert entry["outcome"] == "opened as part of a sum: release 8 holds it, over 14 devices"


def test_a_ledger_that_was_erased_does_not_say_that_nothing_ever_left(store: Store, shown: Shown) -> None:
    assert shown() == "nothing has left this device\n"
    check_in_at(store, NOW)
    store.database.forget_everything(NOW + 60)
    said = shown()
    assert "note: the ledger begins 2027-01-15T08:01:00Z; what was before was erased (leave --wipe) or lost" in said
    assert "nothing has left this device since 2027-01-15T08:01:00Z" in said
    assert "nothing has left this device since 2027-01-16T00:00:00Z" in shown("--since", "2027-01-16")
    assert "note:" not in shown("--since", "2027-01-16"), "that is not about the time before"
