"""Adapters: only what fits and is whole comes in use, and there is always a way back."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from edge_client.adapters_in_use import (
    adapter_file,
    check_fits,
    current_adapter,
    find_adapter,
    forget_unused_files,
    load_adapter,
    read_adapter,
    roll_back,
)
from edge_client.agent import decisions, releases
from edge_client.agent.session import Session
from edge_client.store.contributions import State
from nightshift.packages.package import ModelPackage
from nightshift.protocol.adapters import AdapterLayout, Target
from nightshift.protocol.decision import verify_decision
from nightshift.protocol.errors import (
    EquivocationError,
    HashMismatchError,
    IncompatibleError,
    NotFoundError,
    UsageError,
    VerificationError,
)
from nightshift.protocol.release import VerifiedRelease
from nightshift.v1 import device_pb2, release_pb2
from tests.support.contributions import contribution
from tests.support.plans import World
from tests.support.scripted_coordinator import ScriptedCoordinator, agent_of
from tests.support.small_releases import LAYOUT, Library, Publisher, adapter_bytes
from tests.support.stories import build_stories


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> ModelPackage:
    return build_stories(tmp_path_factory.mktemp("models") / "stories")


@pytest.fixture
def publisher(package: ModelPackage) -> Publisher:
    library = Library()
    library.put((package.directory / "manifest.json").read_bytes())
    return Publisher(World.make(devices=3), library, package)


@pytest.fixture
def session(publisher: Publisher, tmp_path: Path) -> Iterator[Session]:
    coordinator = ScriptedCoordinator(artefact=publisher.library)
    with agent_of(publisher.world, publisher.world.devices[0], tmp_path, coordinator) as session:
        yield session


def test_a_release_comes_in_use_and_the_one_before_is_one_step_away(session: Session, publisher: Publisher) -> None:
    for number in (0, 1):
        releases.adopt(session, publisher.release(number, adapter_bytes(number)))
    store = session.store
    assert current_adapter(store, "notes").name == "notes/1"
    assert load_adapter(session.home, find_adapter(store, "notes/1")).layout == LAYOUT
    assert roll_back(store, "notes").name == "notes/0"
    assert current_adapter(store, None).name == "notes/0"
    # A rollback of a rollback is the way forward again.
    assert roll_back(store, "notes").name == "notes/1"


@pytest.mark.parametrize(
    ("state", "hashes", "expected"),
    [
        (
            State.SENT,
            [b"1" * 32, b"h" * 32],
            "release 1 of task 'notes' holds what this device contributed in round 4, "
            "in the sum of 2 cohorts over 7 devices",
        ),
        (
            State.SENT,
            [b"1" * 32],
            "release 1 of task 'notes' does not hold what this device contributed in round 4, "
            "though the coordinator took it and showed no void of its cohort",
        ),
        (State.VOID, [b"1" * 32], None),
        (State.LATE, [b"1" * 32], None),
    ],
)
def test_the_owner_is_told_whether_a_release_holds_what_this_device_gave(
    session: Session, publisher: Publisher, state: State, hashes: list[bytes], expected: str | None
) -> None:
    given = contribution(plan_hash=b"h" * 32, task="notes", parent_release=b"p" * 32, round=4, state=state)
    session.store.contributions.add(given)

    def fill(release: release_pb2.Release) -> None:
        release.plan_hashes.extend(hashes)
        release.contributors = 7

    releases.note_releases(session, by_id(publisher.release(1, adapter_bytes(1), edit=fill)))
    assert session.notes == ([] if expected is None else [expected])


def with_nan(data: bytes) -> bytes:
    spoilt = bytearray(data)
    spoilt[-4:] = np.array([np.nan], dtype="<f4").tobytes()
    return bytes(spoilt)


def test_values_that_are_not_finite_are_refused_and_the_old_one_stays(session: Session, publisher: Publisher) -> None:
    releases.adopt(session, publisher.release(0, adapter_bytes(0)))
    with pytest.raises(IncompatibleError, match=r"not finite.*the one in use stays") as caught:
        releases.adopt(session, publisher.release(1, with_nan(adapter_bytes(1))))
    assert caught.value.exit_code == 15
    assert current_adapter(session.store, "notes").name == "notes/0"


def test_other_bytes_than_the_release_promises_are_refused(session: Session, publisher: Publisher) -> None:
    data = adapter_bytes(0)
    promised = hashlib.sha256(adapter_bytes(9)).digest()
    with pytest.raises(HashMismatchError):
        releases.adopt(session, publisher.release(0, data, sha256=promised))
    assert session.store.adapters.all() == []


def test_another_rank_than_the_release_says_is_refused(session: Session, publisher: Publisher) -> None:
    other = AdapterLayout(layers=5, targets=(Target("q_proj", 64, 64),), rank=4, alpha=8.0)
    with pytest.raises(IncompatibleError, match="cannot be used"):
        releases.adopt(session, publisher.release(0, adapter_bytes(0, other)))


@pytest.mark.parametrize(
    ("layout", "what"),
    [
        (AdapterLayout(layers=4, targets=(Target("q_proj", 64, 64),), rank=2, alpha=4.0), "4 layers"),
        (AdapterLayout(layers=5, targets=(Target("q_proj", 64, 32),), rank=2, alpha=4.0), "q_proj of 32 x 64"),
    ],
)
def test_an_adapter_of_another_base_is_refused_before_it_is_fetched(
    session: Session, publisher: Publisher, layout: AdapterLayout, what: str
) -> None:
    release = publisher.release(0, adapter_bytes(0, layout), layout=layout)
    del publisher.library.files[release.document.adapter_sha256]
    with pytest.raises(IncompatibleError, match=what):
        releases.adopt(session, release)


def test_a_target_that_the_base_does_not_offer_is_refused(package: ModelPackage) -> None:
    from dataclasses import replace

    manifest = replace(package.manifest, lora_targets=("v_proj",))
    with pytest.raises(IncompatibleError, match="q_proj, which its base model does not offer"):
        check_fits(LAYOUT, manifest, what="the adapter")


def by_id(*releases_: VerifiedRelease) -> dict[bytes, VerifiedRelease]:
    return {release.release_id: release for release in releases_}


def test_a_newest_release_older_than_one_seen_is_refused(session: Session, publisher: Publisher) -> None:
    first, second = publisher.release(0, adapter_bytes(0)), publisher.release(1, adapter_bytes(1))
    releases.note_releases(session, by_id(second))
    # Shown beside the newest one an older release is no lie: it may be what is served.
    releases.note_releases(session, by_id(first, second))
    with pytest.raises(VerificationError, match="but 1 was seen before"):
        releases.note_releases(session, by_id(first))


def test_a_second_release_under_a_number_is_an_equivocation(session: Session, publisher: Publisher) -> None:
    releases.note_releases(session, by_id(publisher.release(1, adapter_bytes(1))))
    with pytest.raises(EquivocationError, match="two versions"):
        releases.note_releases(session, by_id(publisher.release(1, adapter_bytes(2))))


def test_a_pass_with_known_releases_and_decisions_verifies_nothing_again(
    session: Session, publisher: Publisher
) -> None:
    world = publisher.world
    first, second = publisher.release(0, adapter_bytes(0)), publisher.release(1, adapter_bytes(1))

    def offering(*offered: VerifiedRelease, decided: bytes = b"") -> device_pb2.CheckInResponse:
        return device_pb2.CheckInResponse(
            releases=[device_pb2.ReleaseOffer(release=release.release_bytes) for release in offered],
            decisions=[device_pb2.DecisionOffer(decision=decided)] if decided else [],
        )

    assert releases.nothing_new(session, offering())
    assert not releases.nothing_new(session, offering(first))
    releases.note_releases(session, by_id(first))
    assert releases.nothing_new(session, offering(first))
    assert not releases.nothing_new(session, offering(first, second))
    releases.note_releases(session, by_id(first, second))
    assert releases.nothing_new(session, offering(first, second))
    # An older release alone is a rollback: it must reach `note_releases`.
    assert not releases.nothing_new(session, offering(first))

    decision = world.decide(world.publish(number=1, parent=b"p" * 32))
    shown = offering(first, second, decided=decision.decision)
    assert not releases.nothing_new(session, shown)
    verified = verify_decision(decision.offer(), view=world.view(), trust=world.trust)
    decisions.remember(session, verified)
    assert not releases.nothing_new(session, shown), "seen, but not acted on yet"
    session.store.served.follow("notes")
    assert releases.nothing_new(session, shown)

    stored = releases.adopt(session, second)
    assert releases.nothing_new(session, shown)
    adapter_file(session.home, stored.sha256).unlink()
    assert not releases.nothing_new(session, shown)


def test_tasks_that_the_owner_did_not_choose_bring_no_adapters(publisher: Publisher, tmp_path: Path) -> None:
    from edge_client.configuration import Configuration

    owner = Configuration.model_validate({"policy": {"tasks": ["mail-*"]}})
    release = publisher.release(0, adapter_bytes(0))
    world = publisher.world
    with agent_of(world, world.devices[0], tmp_path, ScriptedCoordinator(), owner) as session:
        assert releases.chosen_tasks(session, {release.release_id: release}) == []


def test_a_damaged_file_is_not_used(session: Session, publisher: Publisher) -> None:
    stored = releases.adopt(session, publisher.release(0, adapter_bytes(0)))
    path = adapter_file(session.home, stored.sha256)
    path.write_bytes(adapter_bytes(5))
    with pytest.raises(HashMismatchError, match="damaged"):
        load_adapter(session.home, stored)
    path.unlink()
    with pytest.raises(NotFoundError, match="is gone"):
        load_adapter(session.home, stored)


def test_files_of_a_cut_off_adoption_are_removed(session: Session, publisher: Publisher) -> None:
    stored = releases.adopt(session, publisher.release(0, adapter_bytes(0)))
    stray = adapter_file(session.home, b"s" * 32)
    stray.write_bytes(adapter_bytes(5))
    forget_unused_files(session.home, session.store)
    assert not stray.exists()
    assert adapter_file(session.home, stored.sha256).exists()


def test_without_an_adapter_the_base_answers_and_with_several_one_must_be_named(
    session: Session, publisher: Publisher
) -> None:
    store = session.store
    assert current_adapter(store, None) is None
    with pytest.raises(NotFoundError, match="no adapter was adopted"):
        current_adapter(store, "notes")
    with pytest.raises(NotFoundError, match="nothing to go back from"):
        roll_back(store, "notes")
    stored = releases.adopt(session, publisher.release(0, adapter_bytes(0)))
    store.adapters.use("other", stored.name)
    with pytest.raises(UsageError, match="--task"):
        current_adapter(store, None)


def test_garbage_is_no_adapter() -> None:
    for data in (b"", b"garbage", bytes(8), adapter_bytes(0)[:-1], adapter_bytes(0) + b"\0"):
        with pytest.raises(IncompatibleError):
            read_adapter(data, LAYOUT, what="the adapter")
