"""The life of a prekey on the device: issued, published, bound, spent or erased or expired; each way leaves no key."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from edge_client.agent import prekeys
from edge_client.home import Home
from edge_client.identity import Identity
from edge_client.store import Store, open_store
from edge_client.store.answers import Kind, StoredAnswer
from edge_client.store.prekeys import StoredPrekey
from nightshift.protocol.plan import prekey_from_proto
from nightshift.protocol.secagg import prekeys as protocol
from nightshift.v1 import plan_pb2
from tests.support.authority import DAY_S, NOW_UNIX_S, new_key

H = b"h" * 32
KEY = new_key()
IDENTITY = Identity(KEY)


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "config.toml", tmp_path / "state", tmp_path / "cache")


@pytest.fixture
def store(home: Home) -> Iterator[Store]:
    with open_store(home) as store:
        yield store


def issue(store: Store, *, now_unix_s: int = NOW_UNIX_S, held: int | None = None) -> list[StoredPrekey]:
    return prekeys.pending(store, identity=IDENTITY, now_unix_s=now_unix_s, held=held)


def publish(store: Store) -> list[StoredPrekey]:
    made = issue(store)
    store.prekeys.mark_published(made)
    return made


def bind(store: Store, key: StoredPrekey, *, until_unix_s: int = NOW_UNIX_S + DAY_S) -> None:
    store.prekeys.bind(key.public_key, H, until_unix_s=until_unix_s)


def test_the_numbers_are_the_protocols() -> None:
    assert prekeys.PREKEYS_KEPT == protocol.PREKEYS_KEPT == 8
    assert prekeys.LIFETIME_S == protocol.MAX_LIFETIME_S == 14 * DAY_S


def test_issued_eight_signed_and_stored_before_anybody_sees_them(store: Store) -> None:
    made = issue(store)
    assert len(made) == 8
    assert store.prekeys.unpublished() == made
    for key in made:
        signed = prekey_from_proto(plan_pb2.Prekey.FromString(key.message))
        protocol.verify(signed, KEY.public_key(), now=NOW_UNIX_S)
        assert (signed.serial, signed.epoch) == (key.serial, store.database.epoch)
    assert issue(store) == made, "not acknowledged: the same again"


def test_published_once(store: Store) -> None:
    publish(store)
    assert issue(store) == []
    assert len(store.prekeys.unspent()) == 8


def test_bound_it_is_no_longer_unspent_and_one_more_is_made(store: Store) -> None:
    first, *_ = publish(store)
    bind(store, first)
    assert first.public_key not in {key.public_key for key in store.prekeys.unspent()}
    (more,) = issue(store)
    assert more.serial == 9


def said(kind: Kind) -> StoredAnswer:
    set_hash = None if kind is Kind.ERASURE else b"s" * 32
    return StoredAnswer(b"c" * 32, H, kind, set_hash, b"its bytes", NOW_UNIX_S + DAY_S, None)


def speak(kind: Kind) -> Callable[[Store, StoredPrekey], None]:
    def end(store: Store, key: StoredPrekey) -> None:
        store.answers.record(said(kind), prekey_public=key.public_key, now_unix_s=NOW_UNIX_S)

    return end


def expire(store: Store, key: StoredPrekey) -> None:
    assert store.prekeys.erase_expired(key.not_after_unix_s - 1) == 1, "only the cohort's end has come"


def end_of_cohort(store: Store, key: StoredPrekey) -> None:
    assert store.prekeys.erase_expired(NOW_UNIX_S + DAY_S + 1) == 1


@pytest.mark.parametrize(
    "end",
    [
        pytest.param(speak(Kind.ANSWER), id="spent on an answer"),
        pytest.param(speak(Kind.REFUSAL), id="spent on a refusal"),
        pytest.param(speak(Kind.ERASURE), id="erased for a void cohort"),
        pytest.param(end_of_cohort, id="its cohort ended"),
        pytest.param(expire, id="its cohort ended long ago"),
    ],
)
def test_the_end_of_a_bound_key_leaves_no_trace_and_no_other_goes(
    store: Store, home: Home, end: Callable[[Store, StoredPrekey], None]
) -> None:
    first, *others = publish(store)
    bind(store, first)
    end(store, first)
    assert store.prekeys.find(first.public_key) is None
    assert [key.serial for key in store.prekeys.unspent()] == [key.serial for key in others]
    assert first.private_key not in home.store_file.read_bytes()
    assert [key.serial for key in issue(store)] == [9], "topped up to eight"


def test_all_expire_at_their_end_and_eight_new_ones_take_their_place(store: Store, home: Home) -> None:
    old = publish(store)
    end = max(key.not_after_unix_s for key in old)
    made = issue(store, now_unix_s=end)
    assert [key.serial for key in made] == list(range(9, 17))
    assert store.prekeys.count() == 8
    content = home.store_file.read_bytes()
    assert not any(key.private_key in content for key in old)


def test_after_a_lost_store_a_new_epoch_begins_without_any_of_the_old_keys(home: Home) -> None:
    with open_store(home) as store:
        old, epoch = publish(store), store.database.epoch
    home.store_file.write_bytes(os.urandom(4096))
    with open_store(home) as store:
        assert store.database.epoch >= epoch
        assert store.database.lost_at_unix_s is not None
        assert store.prekeys.count() == 0
        assert not any(store.prekeys.find(key.public_key) for key in old)
        made = issue(store)
        assert [key.serial for key in made] == list(range(1, 9))
        assert {key.epoch for key in made} == {store.database.epoch}
