"""A committee member answers once: the same set gets the same bytes, anything else a refusal."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from edge_client.agent.duties import serve
from edge_client.agent.session import Session
from edge_client.configuration import Configuration
from nightshift.host import clock
from nightshift.protocol.errors import (
    DeclinedError,
    EquivocationError,
    HashMismatchError,
    LogInconsistentError,
    MalformedError,
    NightshiftError,
    StateConflictError,
)
from nightshift.protocol.secagg.errors import ShareRefusedError
from nightshift.v1 import device_pb2
from tests.support.authority import DAY_S, NOW_UNIX_S
from tests.support.plans import FrozenSet, World
from tests.support.scripted_coordinator import ScriptedCoordinator, agent_of

Replies = Iterator[device_pb2.GetBundleResponse]
MEMBER = 2


@pytest.fixture(autouse=True)
def _clock_of_the_world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(clock.ENVIRONMENT_VARIABLE, str(tmp_path / "clock"))
    set_clock(tmp_path, NOW_UNIX_S)


def set_clock(directory: Path, unix_s: int) -> None:
    """From now on it is that time."""
    (directory / "clock").write_text(str(unix_s - time.time()), "ascii")


def frozen(world: World, *, contributors: int = 4) -> FrozenSet:
    """A frozen set of the first devices of the world."""
    cohort = world.open_cohort()
    return cohort.freeze({d.device_id: cohort.contribute(d) for d in world.devices[:contributors]})


def bundle(
    chosen: FrozenSet, edit: Callable[[list[device_pb2.GetBundleResponse]], object] | None = None
) -> Callable[[device_pb2.GetBundleRequest], Replies]:
    """An honest bundle for MEMBER, or what `edit` makes of it."""

    def reply(request: device_pb2.GetBundleRequest) -> Replies:
        world = chosen.cohort.world
        header = chosen.header()
        if request.log_size:
            header.consistency_path.extend(world.tree.consistency_path(request.log_size))
        messages = [
            device_pb2.GetBundleResponse(header=header),
            *(device_pb2.GetBundleResponse(entry=entry) for entry in chosen.entries(MEMBER)),
        ]
        if edit is not None:
            edit(messages)
        yield from messages

    return reply


def ask(session: Session, chosen: FrozenSet) -> None:
    serve(session, chosen.cohort.message.cohort_id)


def refused(
    tmp_path: Path, chosen: FrozenSet, edit: Callable[[list[device_pb2.GetBundleResponse]], object]
) -> NightshiftError:
    """What the member raises; asserts that it sent nothing, stored nothing and kept its key."""
    coordinator = ScriptedCoordinator(bundle=bundle(chosen, edit))
    member = chosen.member(MEMBER)
    with agent_of(chosen.cohort.world, member, tmp_path, coordinator) as session:
        with pytest.raises(NightshiftError) as caught:
            ask(session, chosen)
        assert session.store.answers.count() == 0
        assert session.store.prekeys.find(member.prekey.public) is not None
    assert coordinator.answers == []
    return caught.value


def test_the_answer_is_right_stored_and_its_key_gone(tmp_path: Path) -> None:
    chosen = frozen(World.make())
    member = chosen.member(MEMBER)
    coordinator = ScriptedCoordinator(bundle=bundle(chosen))
    with agent_of(chosen.cohort.world, member, tmp_path, coordinator) as session:
        ask(session, chosen)
        cohort_id = chosen.cohort.message.cohort_id
        stored = session.store.answers.find(cohort_id)
        assert session.store.answers.unsent(NOW_UNIX_S) == []
        assert session.store.prekeys.find(member.prekey.public) is None
        assert [entry.kind for entry in session.store.records.ledger()] == ["answer"]
    (sent,) = coordinator.answers
    expected = chosen.answer(MEMBER)
    assert (sent.vector, sent.signature, sent.index) == (expected.vector, expected.signature, MEMBER)
    assert stored.message == sent.SerializeToString(deterministic=True)


def test_asked_again_about_the_same_set_it_sends_the_same_bytes(tmp_path: Path) -> None:
    chosen = frozen(World.make())
    coordinator = ScriptedCoordinator(bundle=bundle(chosen))
    with agent_of(chosen.cohort.world, chosen.member(MEMBER), tmp_path, coordinator) as session:
        ask(session, chosen)
        ask(session, chosen)
    first, second = coordinator.answers
    assert first.SerializeToString() == second.SerializeToString()


def test_a_second_set_for_an_answered_cohort_is_refused_and_remembered(tmp_path: Path) -> None:
    chosen = frozen(World.make())
    fewer = dict(list(chosen.contributions.items())[:3])
    coordinator = ScriptedCoordinator(bundle=bundle(chosen))
    with agent_of(chosen.cohort.world, chosen.member(MEMBER), tmp_path, coordinator) as session:
        ask(session, chosen)
        second = chosen.cohort.freeze(fewer)
        coordinator.bundle = bundle(second)
        with pytest.raises(EquivocationError, match="second set"):
            ask(session, second)
    assert len(coordinator.answers) == 1


def test_another_plan_for_an_answered_cohort_is_refused(tmp_path: Path) -> None:
    world = World.make()
    chosen = frozen(world)
    cohort_id = chosen.cohort.message.cohort_id
    pool = sorted(device.device_id for device in world.devices)
    coordinator = ScriptedCoordinator(bundle=bundle(chosen))
    with agent_of(world, chosen.member(MEMBER), tmp_path, coordinator) as session:
        ask(session, chosen)
        pool_index = world.log_pool(cohort_id, pool)
        other = world.commit(world.draft(world.publish(), cohort_id, pool), pool_index)
        second = other.freeze({d.device_id: other.contribute(d) for d in world.devices[:4]})
        coordinator.bundle = bundle(second)
        with pytest.raises(EquivocationError, match="another plan"):
            ask(session, second)
    assert len(coordinator.answers) == 1


def test_a_key_named_in_two_plans_answers_only_for_the_first(tmp_path: Path) -> None:
    world = World.make(devices=3)  # all three sit on every committee, with the same prekeys
    first, second = frozen(world, contributors=3), frozen(world, contributors=3)
    member = first.member(MEMBER)
    places = [second.member(index).device_id for index in (1, 2, 3)]
    coordinator = ScriptedCoordinator(bundle=bundle(first))
    with agent_of(world, member, tmp_path, coordinator) as session:
        session.store.prekeys.bind(member.prekey.public, second.cohort.plan_hash, until_unix_s=NOW_UNIX_S + DAY_S)
        with pytest.raises(EquivocationError, match="two different plans"):
            ask(session, first)
    assert member.device_id in places
    assert coordinator.answers == []


def drop_last(messages: list[device_pb2.GetBundleResponse]) -> None:
    messages.pop()


def swap_share(messages: list[device_pb2.GetBundleResponse]) -> None:
    messages[1].entry.sealed = messages[2].entry.sealed


def repeat_entry(messages: list[device_pb2.GetBundleResponse]) -> None:
    messages[2].CopyFrom(messages[1])


def other_ciphertext(messages: list[device_pb2.GetBundleResponse]) -> None:
    messages[1].entry.ciphertext_tag = bytes(16)


def other_set_hash(messages: list[device_pb2.GetBundleResponse]) -> None:
    messages[0].header.set_hash = bytes(32)


def no_header(messages: list[device_pb2.GetBundleResponse]) -> None:
    messages.pop(0)


def second_header(messages: list[device_pb2.GetBundleResponse]) -> None:
    messages.insert(2, messages[0])


def one_more(messages: list[device_pb2.GetBundleResponse]) -> None:
    messages.append(messages[-1])


def nothing(messages: list[device_pb2.GetBundleResponse]) -> None:
    messages.clear()


@pytest.mark.parametrize(
    ("edit", "error"),
    [
        (drop_last, MalformedError),
        (swap_share, ShareRefusedError),
        (repeat_entry, NightshiftError),
        (other_ciphertext, ShareRefusedError),
        (other_set_hash, LogInconsistentError),
        (no_header, MalformedError),
        (second_header, MalformedError),
        (one_more, MalformedError),
        (nothing, MalformedError),
    ],
)
def test_a_bundle_with_a_lie_in_it_is_refused_whole(
    tmp_path: Path,
    edit: Callable[[list[device_pb2.GetBundleResponse]], object],
    error: type[NightshiftError],
) -> None:
    raised = refused(tmp_path, frozen(World.make()), edit)
    assert isinstance(raised, error)
    assert raised.exit_code == 14


def test_shares_that_are_not_those_of_the_logged_set_are_refused(tmp_path: Path) -> None:
    world = World.make()
    cohort = world.open_cohort()
    made = {d.device_id: cohort.contribute(d) for d in world.devices[:4]}
    chosen = cohort.freeze(made)
    again = cohort.freeze({**made, world.devices[0].device_id: cohort.contribute(world.devices[0])})

    def other_header(messages: list[device_pb2.GetBundleResponse]) -> None:
        messages[0].header.set_hash = again.set_hash
        messages[0].header.set_proof.CopyFrom(again.header().set_proof)

    assert isinstance(refused(tmp_path, chosen, other_header), HashMismatchError)


def test_the_owners_minimum_holds_for_a_member_too(tmp_path: Path) -> None:
    chosen = frozen(World.make())
    configuration = Configuration.model_validate({"policy": {"minimum_cohort": 5}})
    coordinator = ScriptedCoordinator(bundle=bundle(chosen))
    member = chosen.member(MEMBER)
    with (
        agent_of(chosen.cohort.world, member, tmp_path, coordinator, configuration) as session,
        pytest.raises(DeclinedError, match="over 4 devices"),
    ):
        ask(session, chosen)
    assert coordinator.answers == []


def test_a_lost_key_is_a_reason_not_a_lie(tmp_path: Path) -> None:
    chosen = frozen(World.make())
    coordinator = ScriptedCoordinator(bundle=bundle(chosen))
    with agent_of(chosen.cohort.world, chosen.member(MEMBER), tmp_path, coordinator) as session:
        session.store.prekeys.erase_expired(NOW_UNIX_S + 30 * DAY_S)
        with pytest.raises(DeclinedError, match="no longer here"):
            ask(session, chosen)
    assert coordinator.answers == []


def test_after_the_deadline_nothing_is_answered(tmp_path: Path) -> None:
    chosen = frozen(World.make())
    coordinator = ScriptedCoordinator(bundle=bundle(chosen))
    with agent_of(chosen.cohort.world, chosen.member(MEMBER), tmp_path, coordinator) as session:
        set_clock(tmp_path, chosen.cohort.message.answer_deadline_unix_s + 60)
        with pytest.raises(StateConflictError, match="has passed"):
            ask(session, chosen)
    assert coordinator.answers == []


def test_a_log_that_shrank_is_refused_before_anything_else(tmp_path: Path) -> None:
    world = World.make()
    chosen = frozen(world)
    coordinator = ScriptedCoordinator(bundle=bundle(chosen))
    with agent_of(world, chosen.member(MEMBER), tmp_path, coordinator) as session:
        session.store.database.put(log_size=world.tree.size + 5, log_root=bytes(32))
        coordinator.bundle = lambda _: iter([device_pb2.GetBundleResponse(header=chosen.header())])
        with pytest.raises(LogInconsistentError):
            ask(session, chosen)
        assert session.log_size == world.tree.size + 5


@pytest.mark.parametrize("name", [b"", b"short", b"x" * 33])
def test_a_duty_names_a_cohort(tmp_path: Path, name: bytes) -> None:
    world = World.make(devices=3)
    with (
        agent_of(world, world.devices[0], tmp_path, ScriptedCoordinator()) as session,
        pytest.raises(MalformedError, match="32 bytes"),
    ):
        serve(session, name)


def members(chosen: FrozenSet) -> Sequence[bytes]:
    return [member.prekey.device_id for member in chosen.cohort.message.committee]


def test_a_plan_without_this_device_is_no_duty(tmp_path: Path) -> None:
    world = World.make(devices=12)
    chosen = frozen(world)
    outsider = next(device for device in world.devices if device.device_id not in members(chosen))
    coordinator = ScriptedCoordinator(bundle=bundle(chosen))
    with agent_of(world, outsider, tmp_path, coordinator) as session:
        with pytest.raises(MalformedError, match="does not name this device"):
            ask(session, chosen)
        assert session.store.prekeys.find(outsider.prekey.public).bound_plan_hash is None
