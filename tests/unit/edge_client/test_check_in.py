"""What a device makes of a check-in's reply, and what it never believes."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from edge_client.agent import prekeys
from edge_client.agent.check_in import check_in, peek
from edge_client.configuration import Configuration
from edge_client.store.contributions import State
from nightshift.host import clock
from nightshift.protocol.errors import (
    IncompatibleError,
    LogInconsistentError,
    MalformedError,
    NightshiftError,
    RevokedError,
    SignatureInvalidError,
    VerificationError,
)
from nightshift.protocol.log import MerkleTree
from nightshift.v1 import device_pb2, log_pb2
from tests.support.authority import DAY_S, NOW_UNIX_S
from tests.support.contributions import contribution
from tests.support.plans import EnrolledDevice, World
from tests.support.scripted_coordinator import ScriptedCoordinator, agent_of

Edit = Callable[[device_pb2.CheckInResponse], object]


@pytest.fixture(autouse=True)
def _clock_of_the_world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "clock"
    path.write_text(str(NOW_UNIX_S - time.time()), "ascii")
    monkeypatch.setenv(clock.ENVIRONMENT_VARIABLE, str(path))


@pytest.fixture
def world() -> World:
    return World.make(devices=3)


class Honest(ScriptedCoordinator):
    """Answers check-ins from the world as it is, holds what prekeys it is given; `edit` spoils the reply."""

    def __init__(self, world: World, edit: Edit | None = None) -> None:
        super().__init__(check_in=self.reply)
        self.world = world
        self.edit = edit
        self.requests: list[device_pb2.CheckInRequest] = []
        self.held = 0

    def reply(self, request: device_pb2.CheckInRequest) -> device_pb2.CheckInResponse:
        self.requests.append(request)
        self.held += len(request.prekeys)
        tree = self.world.tree
        path = tree.consistency_path(request.log_size) if 0 < request.log_size <= tree.size else []
        response = device_pb2.CheckInResponse(
            protocol_version=1,
            time_unix_s=NOW_UNIX_S,
            checkpoint=self.world.checkpoint(),
            consistency_path=path,
            revocation=self.world.revocation(0, []),
            next_check_in=device_pb2.NextCheckIn(not_before_s=3600, window_s=60),
            prekeys_held=self.held,
        )
        if self.edit is not None:
            self.edit(response)
        return response


def device_of(world: World) -> EnrolledDevice:
    return world.devices[0]


def test_prekeys_are_topped_up_and_published_once(world: World, tmp_path: Path) -> None:
    coordinator = Honest(world)
    with agent_of(world, device_of(world), tmp_path, coordinator) as session:
        check_in(session)
        check_in(session)
        assert len(session.store.prekeys.unspent()) == prekeys.PREKEYS_KEPT
    assert [len(request.prekeys) for request in coordinator.requests] == [prekeys.PREKEYS_KEPT, 0]


def test_what_the_coordinator_spent_is_replaced_in_the_same_contact(world: World, tmp_path: Path) -> None:
    coordinator = Honest(world)
    with agent_of(world, device_of(world), tmp_path, coordinator) as session:
        check_in(session)
        coordinator.held = 5
        check_in(session)
    assert [len(request.prekeys) for request in coordinator.requests] == [8, 0, 3]
    assert [request.no_plan for request in coordinator.requests] == [False, False, True]


@pytest.mark.parametrize(
    ("conditions", "told"),
    [({}, False), ({"hours": "22:00-06:30"}, True), ({"hours": "22:00-06:30", "tell_hours": False}, False)],
)
def test_hours_are_told_where_the_owner_named_some_and_lets_them_be_told(
    conditions: dict[str, object], told: bool, world: World, tmp_path: Path
) -> None:
    coordinator = Honest(world)
    configuration = Configuration.model_validate({"conditions": conditions})
    with agent_of(world, device_of(world), tmp_path, coordinator, configuration) as session:
        check_in(session)
        (line,) = session.store.records.ledger()
    (request,) = coordinator.requests
    assert request.HasField("night_hours") is told
    assert ("may be called back for" in line.sentence) is told, "the ledger says so"
    if told:
        assert request.night_hours.length_h in {7, 8}, "whole hours in any time zone"


def test_a_coordinator_that_forgets_prekeys_on_purpose_fills_no_disk(world: World, tmp_path: Path) -> None:
    def nothing_held(response: device_pb2.CheckInResponse) -> None:
        response.prekeys_held = 0

    with agent_of(world, device_of(world), tmp_path, Honest(world, nothing_held)) as session:
        for _ in range(12):
            check_in(session)
        assert session.store.prekeys.count() == prekeys.MOST_PRIVATE_KEYS


def test_a_prekey_lives_at_most_fourteen_days_and_is_replaced_before(world: World, tmp_path: Path) -> None:
    with agent_of(world, device_of(world), tmp_path, Honest(world)) as session:
        made = prekeys.pending(session.store, identity=session.identity, now_unix_s=NOW_UNIX_S)
        assert all(NOW_UNIX_S < key.not_after_unix_s <= NOW_UNIX_S + 14 * DAY_S for key in made)
        session.store.prekeys.mark_published(made)
        later = prekeys.pending(session.store, identity=session.identity, now_unix_s=NOW_UNIX_S + 12 * DAY_S)
        assert len(later) == prekeys.PREKEYS_KEPT
        prekeys.pending(session.store, identity=session.identity, now_unix_s=NOW_UNIX_S + 15 * DAY_S)
        assert all(session.store.prekeys.find(key.public_key) is None for key in made)


def test_the_head_of_the_log_is_remembered_and_only_grows(world: World, tmp_path: Path) -> None:
    with agent_of(world, device_of(world), tmp_path, Honest(world)) as session:
        peek(session)
        assert session.log_size == world.tree.size
        world.publish()
        peek(session)
        assert session.log_size == world.tree.size


@pytest.mark.parametrize("rank", [0, 4])
def test_the_coordinator_is_told_how_many_rank_slots_this_device_trains(
    world: World, tmp_path: Path, rank: int
) -> None:
    configuration = Configuration.model_validate({"training": {"rank": rank}})
    coordinator = Honest(world)
    with agent_of(world, device_of(world), tmp_path, coordinator, configuration) as session:
        check_in(session)
    assert [request.rank_limit for request in coordinator.requests] == [rank]


def test_a_forked_log_is_refused_and_the_old_head_kept(world: World, tmp_path: Path) -> None:
    with agent_of(world, device_of(world), tmp_path, Honest(world)) as session:
        peek(session)
        before = session.store.database.blob("log_root")
        other = World.make(devices=4)
        world.entries, world.tree = other.entries, MerkleTree(other.entries)
        with pytest.raises(LogInconsistentError):
            peek(session)
        assert session.store.database.blob("log_root") == before


def test_a_shrunk_log_is_refused(world: World, tmp_path: Path) -> None:
    with agent_of(world, device_of(world), tmp_path, Honest(world)) as session:
        world.publish()
        peek(session)
        world.tree = MerkleTree(world.entries[:2])
        with pytest.raises(LogInconsistentError):
            peek(session)


def unsigned_checkpoint(response: device_pb2.CheckInResponse) -> None:
    response.checkpoint.signature = bytes(64)


def unsigned_revocation(response: device_pb2.CheckInResponse) -> None:
    response.revocation.signature = bytes(64)


def newer_version(response: device_pb2.CheckInResponse) -> None:
    response.protocol_version = 2


def no_version(response: device_pb2.CheckInResponse) -> None:
    response.protocol_version = 0


def many_duties(response: device_pb2.CheckInResponse) -> None:
    response.duties.extend(device_pb2.Duty(cohort_id=bytes(32)) for _ in range(65))


@pytest.mark.parametrize(
    ("edit", "error"),
    [
        (unsigned_checkpoint, SignatureInvalidError),
        (unsigned_revocation, SignatureInvalidError),
        (newer_version, IncompatibleError),
        (no_version, IncompatibleError),
        (many_duties, MalformedError),
    ],
)
def test_a_reply_that_is_not_what_it_must_be_is_refused(
    world: World, tmp_path: Path, edit: Edit, error: type[NightshiftError]
) -> None:
    with agent_of(world, device_of(world), tmp_path, Honest(world, edit)) as session, pytest.raises(error):
        peek(session)


def test_this_devices_own_revocation_ends_everything(world: World, tmp_path: Path) -> None:
    def revoke(response: device_pb2.CheckInResponse) -> None:
        response.revocation.CopyFrom(world.revocation(1, [device_of(world).device_id]))

    with (
        agent_of(world, device_of(world), tmp_path, Honest(world, revoke)) as session,
        pytest.raises(RevokedError, match="ask the operator"),
    ):
        peek(session)


def test_an_older_revocation_list_is_refused(world: World, tmp_path: Path) -> None:
    number = 4

    def numbered(response: device_pb2.CheckInResponse) -> None:
        response.revocation.CopyFrom(world.revocation(number, []))

    with agent_of(world, device_of(world), tmp_path, Honest(world, numbered)) as session:
        peek(session)
        number = 3
        with pytest.raises(VerificationError, match="older"):
            peek(session)


def test_a_logged_void_marks_the_contribution_and_frees_it_only_after_the_last_key(
    world: World, tmp_path: Path
) -> None:
    made = contribution(state=State.SENT, latest_prekey_expiry_unix_s=NOW_UNIX_S + DAY_S)
    index = world.append(
        log_pb2.LOG_ENTRY_KIND_VOID, subject=made.cohort_id, digest=made.plan_hash, note="fewer than T answers"
    )

    def void(response: device_pb2.CheckInResponse) -> None:
        response.voids.add(proof=world.proof(index))

    with agent_of(world, device_of(world), tmp_path, Honest(world, void)) as session:
        session.store.contributions.add(made)
        peek(session)
        found = session.store.contributions.find(made.cohort_id)
        assert session.notes == ["the cohort of round 1 of task 'commands' ended without a sum: fewer than T answers"]
    assert found.state is State.VOID
    assert not found.frees_parent(NOW_UNIX_S)
    assert found.frees_parent(NOW_UNIX_S + DAY_S + 1)


def test_a_void_that_is_not_in_the_log_frees_nothing(world: World, tmp_path: Path) -> None:
    made = contribution(state=State.SENT)
    kept = world.append(log_pb2.LOG_ENTRY_KIND_SET, subject=made.cohort_id, digest=made.plan_hash)
    other_hash = world.append(log_pb2.LOG_ENTRY_KIND_VOID, subject=made.cohort_id, digest=bytes(32))
    for index in (kept, other_hash):

        def lie(response: device_pb2.CheckInResponse, index: int = index) -> None:
            response.voids.add(proof=world.proof(index))

        with agent_of(world, device_of(world), tmp_path / str(index), Honest(world, lie)) as session:
            session.store.contributions.add(made)
            with pytest.raises(LogInconsistentError):
                peek(session)
            assert session.store.contributions.find(made.cohort_id).state is State.SENT


def test_a_void_of_a_cohort_without_this_device_is_passed_over(world: World, tmp_path: Path) -> None:
    index = world.append(log_pb2.LOG_ENTRY_KIND_VOID, subject=bytes(32), digest=bytes(32))

    def void(response: device_pb2.CheckInResponse) -> None:
        response.voids.add(proof=world.proof(index))

    with agent_of(world, device_of(world), tmp_path, Honest(world, void)) as session:
        peek(session)
        assert session.notes == []


def test_a_pause_of_years_is_cut_to_a_week(world: World, tmp_path: Path) -> None:
    def years(response: device_pb2.CheckInResponse) -> None:
        response.next_check_in.not_before_s = 2**32 - 1

    with agent_of(world, device_of(world), tmp_path, Honest(world, years)) as session:
        check_in(session)
        assert session.store.database.number("next_check_in") <= NOW_UNIX_S + 7 * DAY_S + 60


def test_who_only_looks_has_not_had_this_devices_turn(world: World, tmp_path: Path) -> None:
    """`policy check` and a dry run must not make the timer wait."""
    with agent_of(world, device_of(world), tmp_path, Honest(world)) as session:
        peek(session)
        assert session.store.database.number("next_check_in") is None
        check_in(session)
        assert session.store.database.number("next_check_in") is not None
