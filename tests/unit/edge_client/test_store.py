"""The store: constraints that hold the protocol's promises, and what happens to a lost or malformed file."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from itertools import product
from pathlib import Path

import pytest

from edge_client import ledger
from edge_client.home import Home
from edge_client.store import Store, open_store
from edge_client.store.adapters import StoredAdapter
from edge_client.store.answers import Kind, StoredAnswer
from edge_client.store.contributions import TRANSITIONS, Event, State
from edge_client.store.prekeys import StoredPrekey
from nightshift.protocol.errors import EquivocationError, IncompatibleError, ResourceError
from tests.support.contributions import contribution

NOW = 1_800_000_000


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "config.toml", tmp_path, tmp_path / "cache")


@pytest.fixture
def store(home: Home) -> Iterator[Store]:
    with open_store(home) as store:
        yield store


def prekey(serial: int, *, not_after: int = NOW + 1000) -> StoredPrekey:
    return StoredPrekey(1, serial, os.urandom(32), os.urandom(32), not_after, b"signed", None)


def answer_for(cohort: bytes, plan: bytes) -> StoredAnswer:
    return StoredAnswer(cohort, plan, Kind.ANSWER, b"s" * 32, b"the answer's bytes", NOW + 500, None)


def test_a_prekey_answers_only_for_the_first_plan_that_names_it(store: Store) -> None:
    key = prekey(1)
    store.prekeys.add([key])
    assert store.prekeys.bind(key.public_key, b"1" * 32, until_unix_s=NOW + 100) is not None
    assert store.prekeys.bind(key.public_key, b"1" * 32, until_unix_s=NOW + 100) is not None
    with pytest.raises(EquivocationError, match="two different plans"):
        store.prekeys.bind(key.public_key, b"2" * 32, until_unix_s=NOW + 100)
    assert store.prekeys.find(key.public_key).bound_plan_hash == b"1" * 32


def test_a_key_ends_with_its_cohort(store: Store) -> None:
    bound, free = prekey(1), prekey(2)
    store.prekeys.add([bound, free])
    store.prekeys.bind(bound.public_key, b"1" * 32, until_unix_s=NOW + 100)
    assert store.prekeys.erase_expired(NOW + 100) == 0
    assert store.prekeys.erase_expired(NOW + 101) == 1
    assert store.prekeys.find(bound.public_key) is None
    assert store.prekeys.find(free.public_key) is not None


def test_a_prekey_that_is_not_here_binds_to_nothing(store: Store) -> None:
    assert store.prekeys.bind(os.urandom(32), b"1" * 32, until_unix_s=NOW + 100) is None


def test_serials_are_never_used_twice_even_after_erasure(store: Store) -> None:
    store.prekeys.add([prekey(store.prekeys.next_serial(), not_after=NOW)])
    assert store.prekeys.erase_expired(NOW) == 1
    assert store.prekeys.next_serial() == 2


def test_recording_an_answer_erases_its_prekey_and_no_other(store: Store) -> None:
    used, other = prekey(1), prekey(2)
    store.prekeys.add([used, other])
    store.answers.record(answer_for(b"c" * 32, b"h" * 32), prekey_public=used.public_key, now_unix_s=NOW)
    assert store.prekeys.find(used.public_key) is None
    assert store.prekeys.find(other.public_key) == other
    assert store.answers.find(b"c" * 32).message == b"the answer's bytes"


@pytest.mark.parametrize(("cohort", "plan"), [(b"c" * 32, b"x" * 32), (b"y" * 32, b"h" * 32)])
def test_neither_cohort_nor_plan_is_answered_twice(store: Store, cohort: bytes, plan: bytes) -> None:
    first, second = prekey(1), prekey(2)
    store.prekeys.add([first, second])
    store.answers.record(answer_for(b"c" * 32, b"h" * 32), prekey_public=first.public_key, now_unix_s=NOW)
    with pytest.raises(EquivocationError, match="answered already"):
        store.answers.record(answer_for(cohort, plan), prekey_public=second.public_key, now_unix_s=NOW)
    assert store.prekeys.find(second.public_key) == second
    assert store.answers.count() == 1


def test_an_answer_without_its_prekey_is_not_kept(store: Store) -> None:
    with pytest.raises(EquivocationError, match="used already"):
        store.answers.record(answer_for(b"c" * 32, b"h" * 32), prekey_public=b"gone" * 8, now_unix_s=NOW)
    assert store.answers.count() == 0


def test_an_erased_prekey_leaves_no_trace_in_the_file(store: Store) -> None:
    key = prekey(1)
    store.prekeys.add([key])
    path = store.database.path
    assert key.private_key in path.read_bytes()
    store.answers.record(answer_for(b"c" * 32, b"h" * 32), prekey_public=key.public_key, now_unix_s=NOW)
    assert key.private_key not in path.read_bytes()


def test_a_cohort_has_one_plan(store: Store) -> None:
    store.answers.see_cohort(b"c" * 32, b"1" * 32, NOW)
    store.answers.see_cohort(b"c" * 32, b"1" * 32, NOW)
    with pytest.raises(EquivocationError, match="two different plans"):
        store.answers.see_cohort(b"c" * 32, b"2" * 32, NOW)


@pytest.mark.parametrize(("state", "event"), list(product(State, Event)))
def test_every_pair_of_state_and_event_is_a_transition_or_is_refused(store: Store, state: State, event: Event) -> None:
    made = contribution(state=state)
    store.contributions.add(made)
    wanted = TRANSITIONS.get((state, event))
    if wanted is None:
        with pytest.raises(ValueError, match="cannot take"):
            store.contributions.apply(made.cohort_id, event, NOW)
        assert store.contributions.find(made.cohort_id).state is state
    else:
        assert store.contributions.apply(made.cohort_id, event, NOW) is wanted
        assert store.contributions.find(made.cohort_id).state is wanted


@pytest.mark.parametrize("state", [state for state in State if state is not State.PREPARED])
def test_only_what_never_left_is_withdrawn(store: Store, state: State) -> None:
    left, prepared = contribution(state=state), contribution()
    store.contributions.add(left)
    store.contributions.add(prepared)
    store.contributions.withdraw(prepared.cohort_id)
    with pytest.raises(ValueError, match="cannot be withdrawn"):
        store.contributions.withdraw(left.cohort_id)
    assert store.contributions.recent(10) == [left]


@pytest.mark.parametrize(
    ("state", "after_expiry_s", "free"),
    [
        (State.VOID, 1, True),
        (State.VOID, 0, False),
        (State.SENT, 1, False),
        (State.SENDING, 1, False),
        (State.LATE, 1, False),
        (State.PREPARED, 1, False),
    ],
)
def test_a_parent_is_free_only_when_void_and_out_of_keys(state: State, after_expiry_s: int, free: bool) -> None:
    made = contribution(state=state)
    assert made.frees_parent(made.latest_prekey_expiry_unix_s + after_expiry_s) is free


def test_the_same_adapter_under_another_release_or_task_is_the_same_parent(store: Store) -> None:
    made = contribution()
    store.contributions.add(made)
    assert store.contributions.of_parent("commands", b"p" * 32, b"z" * 32) == [made]
    assert store.contributions.of_parent("other", b"q" * 32, b"a" * 32) == [made]
    assert store.contributions.of_parent("other", b"p" * 32, b"z" * 32) == []


def test_switching_adapters_remembers_the_one_before(store: Store) -> None:
    for number in (0, 1):
        store.adapters.adopt(StoredAdapter(f"t/{number}", "t", bytes([number]) * 32, b"m" * 32, b"", b"r" * 32, NOW))
    store.adapters.use("t", "t/1")
    pair = store.adapters.in_use("t")
    assert (pair.current, pair.previous) == ("t/1", "t/0")
    store.adapters.use("t", None)
    pair = store.adapters.in_use("t")
    assert (pair.current, pair.previous) == (None, "t/1")


def test_an_inner_block_is_undone_with_the_outer_one(store: Store) -> None:
    def fail() -> None:
        with store.database.transaction():
            store.answers.see_cohort(b"c" * 32, b"1" * 32, NOW)
            raise RuntimeError("power cut")

    with pytest.raises(RuntimeError):
        fail()
    assert store.database.rows("SELECT * FROM cohorts") == []
    store.answers.see_cohort(b"c" * 32, b"2" * 32, NOW)


def test_the_file_is_its_owners_only(store: Store) -> None:
    assert store.database.path.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("garbage", [b"this is no database", b"SQLite format 3\0" + b"\xff" * 4000])
def test_a_malformed_file_is_set_aside_and_a_new_epoch_begins(home: Home, garbage: bytes) -> None:
    with open_store(home) as store:
        store.prekeys.add([prekey(1)])
        store.database.put(epoch=1)
    home.store_file.write_bytes(garbage)
    with open_store(home) as store:
        assert store.prekeys.count() == 0
        assert store.database.epoch > 1
        assert store.database.lost_at_unix_s is not None
    (aside,) = home.state.glob("store.sqlite3.corrupt-*")
    assert aside.read_bytes() == garbage


def test_a_file_torn_in_the_middle_is_set_aside(home: Home) -> None:
    with open_store(home) as store:
        for serial in range(1, 200):
            store.prekeys.add([prekey(serial)])
    data = bytearray(home.store_file.read_bytes())
    data[8192:20480] = os.urandom(12288)
    home.store_file.write_bytes(data)
    with open_store(home) as store:
        assert store.database.lost_at_unix_s is not None
    assert list(home.state.glob("store.sqlite3.corrupt-*"))


def test_a_missing_file_of_a_joined_device_counts_as_lost(home: Home) -> None:
    with open_store(home) as store:
        assert store.database.lost_at_unix_s is None
    home.store_file.unlink()
    home.membership_file.write_text("{}")
    with open_store(home) as store:
        assert store.database.lost_at_unix_s is not None


def test_a_file_of_a_newer_program_is_left_alone(home: Home) -> None:
    with open_store(home):
        pass
    with sqlite3.connect(home.store_file) as connection:
        connection.execute("PRAGMA user_version = 99")
    connection.close()
    before = home.store_file.read_bytes()
    with pytest.raises(IncompatibleError, match="newer edge-client"), open_store(home):
        pass
    assert home.store_file.read_bytes() == before


def test_a_locked_file_is_not_mistaken_for_a_malformed_one(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edge_client.store.database.BUSY_TIMEOUT_S", 0.05)
    with open_store(home):
        pass
    other = sqlite3.connect(home.store_file, isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    try:
        with pytest.raises(Exception, match="locked"), open_store(home) as store:
            store.answers.see_cohort(b"c" * 32, b"1" * 32, NOW)
    finally:
        other.close()
    assert not list(home.state.glob("*.corrupt-*"))


def test_a_full_disk_is_said_to_be_one(home: Home) -> None:
    with open_store(home) as store:
        # The size limit of this connection stands for the end of the disk: SQLite reports both as SQLITE_FULL.
        (pages,) = store.database.row("PRAGMA page_count")
        store.database.rows(f"PRAGMA max_page_count = {pages}")
        with pytest.raises(ResourceError, match="free space"):
            store.prekeys.add([prekey(serial) for serial in range(1, 1000)])
        assert store.prekeys.count() == 0
    with open_store(home) as store:
        assert store.database.lost_at_unix_s is None


def test_a_pass_that_was_cut_off_has_no_end(store: Store) -> None:
    number = store.records.begin_pass(NOW)
    assert store.records.last_pass().ended_at_unix_s is None
    store.records.end_pass(number, now_unix_s=NOW + 5, exit_code=0, summary="nothing was due")
    assert store.records.last_pass().exit_code == 0


def test_everything_is_forgotten_but_that_it_was(home: Home) -> None:
    with open_store(home) as store:
        ledger.checked_in(store, now_unix_s=NOW, recipient="a:1", size_bytes=24, prekeys=0)
        store.contributions.add(contribution(task="a-very-private-task"))
        store.adapters.see_release("a-very-private-task", 1, b"r" * 32, NOW)
        before = store.database.epoch
        store.database.forget_everything(NOW)
        assert store.records.ledger() == []
        assert store.contributions.recent(10) == []
        assert store.database.lost_at_unix_s == NOW
        assert store.database.epoch > before
    # Overwritten, not only unlinked (secure_delete).
    assert b"a-very-private-task" not in home.store_file.read_bytes()
    with open_store(home) as store:
        assert store.database.lost_at_unix_s == NOW
