"""`log verify`: the log is read to its last entry, and must hold what this device and others were shown."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from edge_client.agent.check_in import check_in
from edge_client.agent.log_audit import Audit, audit
from edge_client.agent.session import Session
from edge_client.store.answers import Kind, StoredAnswer
from nightshift.host import clock
from nightshift.protocol.errors import EquivocationError, LogInconsistentError, MalformedError, NightshiftError
from nightshift.protocol.log import checkpoint_note
from nightshift.protocol.log_heads import read_head, short_head
from nightshift.protocol.signed_note import parse, verify
from nightshift.v1 import device_pb2, log_pb2
from tests.support.authority import NOW_UNIX_S
from tests.support.plans import ORIGIN, World
from tests.support.scripted_coordinator import ScriptedCoordinator, agent_of

Edit = Callable[[list[bytes]], object]


@pytest.fixture(autouse=True)
def _clock_of_the_world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "clock").write_text(str(NOW_UNIX_S - time.time()), "ascii")
    monkeypatch.setenv(clock.ENVIRONMENT_VARIABLE, str(tmp_path / "clock"))


class WholeLog(ScriptedCoordinator):
    """Shows the world's log as it is; `edit` changes what can be read of it."""

    def __init__(self, world: World, edit: Edit | None = None, revoked: int = 0) -> None:
        super().__init__(check_in=self.reply)
        self.world, self.edit, self.revoked = world, edit, revoked

    def reply(self, request: device_pb2.CheckInRequest) -> device_pb2.CheckInResponse:
        tree, ids = self.world.tree, [device.device_id for device in self.world.devices[1 : 1 + self.revoked]]
        return device_pb2.CheckInResponse(
            protocol_version=1,
            time_unix_s=NOW_UNIX_S,
            checkpoint=self.world.checkpoint(),
            consistency_path=tree.consistency_path(request.log_size) if 0 < request.log_size <= tree.size else [],
            revocation=self.world.revocation(self.revoked, ids),
            prekeys_held=8,
        )

    def ReadLog(self, request: device_pb2.ReadLogRequest, context: object) -> Iterator[device_pb2.ReadLogResponse]:
        entries = list(self.world.entries[request.first : request.end])
        if self.edit is not None:
            self.edit(entries)
        for start in range(0, len(entries), 4):
            yield device_pb2.ReadLogResponse(entries=entries[start : start + 4])


@dataclass
class Shown:
    """A device that was shown a night, and its coordinator."""

    world: World
    session: Session
    coordinator: WholeLog

    def audit(self, *heads: str) -> Audit:
        return audit(self.session, [read_head(text, self.world.trust) for text in heads])


@pytest.fixture
def world() -> World:
    return World.make(devices=3)


@pytest.fixture
def shown(world: World, tmp_path: Path) -> Iterator[Shown]:
    coordinator = WholeLog(world)
    with agent_of(world, world.devices[0], tmp_path, coordinator) as session:
        yield Shown(world, session, coordinator)


def see_a_night(shown: Shown) -> bytes:
    """The device sees a plan, answers for its set, and takes a release; returns the cohort's id."""
    world, store = shown.world, shown.session.store
    parent = world.publish()
    cohort = world.open_cohort(parent=parent)
    cohort_id = cohort.message.cohort_id
    frozen = cohort.freeze({device.device_id: cohort.contribute(device) for device in world.devices})
    store.answers.see_cohort(cohort_id, cohort.plan_hash, NOW_UNIX_S)
    own = world.devices[0].prekey.public
    store.prekeys.bind(own, cohort.plan_hash, until_unix_s=NOW_UNIX_S + 600)
    answer = StoredAnswer(cohort_id, cohort.plan_hash, Kind.ANSWER, frozen.set_hash, b"said", NOW_UNIX_S + 600, None)
    store.answers.record(answer, prekey_public=own, now_unix_s=NOW_UNIX_S)
    store.adapters.see_release("notes", 0, parent.release_id, NOW_UNIX_S)
    return bytes(cohort_id)


def test_an_honest_log_holds_all_that_this_device_was_told(shown: Shown) -> None:
    check_in(shown.session)
    see_a_night(shown)
    found = shown.audit()
    assert (found.before, found.head) == (3, shown.world.head)
    assert found.kinds == {"enrolment": 3, "plan": 1, "pool": 1, "release": 1, "set": 1}
    # Its certificate, the plan, the set that it answered for, the release.
    assert found.remembered == 4


def test_the_note_of_the_head_is_kept_as_proof(shown: Shown) -> None:
    check_in(shown.session)
    note = shown.session.store.database.blob("log_note")
    assert note == checkpoint_note(shown.world.checkpoint(), shown.world.trust)
    verify(parse(note), name=ORIGIN, public_key=shown.world.trust.signing_key)


def test_heads_that_others_saw_before_are_compared(shown: Shown) -> None:
    earlier = short_head(shown.world.head, ORIGIN)
    see_a_night(shown)
    now = checkpoint_note(shown.world.checkpoint(), shown.world.trust).decode()
    assert shown.audit(earlier, now).compared == (3, shown.world.tree.size)


def test_a_device_that_was_shown_another_history_finds_out(shown: Shown) -> None:
    """Two groups were shown two logs of one size from the start; each is consistent in itself."""
    twin = World(shown.world.authority, shown.world.devices)
    for device in reversed(shown.world.devices):
        twin.enrol(device)
    for text in (short_head(twin.head, ORIGIN), checkpoint_note(twin.checkpoint(), twin.trust).decode()):
        with pytest.raises(LogInconsistentError, match="the log forked: at size 3") as caught:
            shown.audit(text)
        assert caught.value.exit_code == 14
        assert ("keep that note" in str(caught.value)) is ("\n" in text)


def test_a_head_from_a_longer_log_is_a_shrunken_one_here(shown: Shown) -> None:
    longer = World(shown.world.authority, shown.world.devices, tree=shown.world.tree, entries=shown.world.entries)
    ahead = short_head(type(longer.head)(99, bytes(32)), ORIGIN)
    with pytest.raises(LogInconsistentError, match="saw a log of 99 entries, this one is shown 3"):
        shown.audit(ahead)


def flip(entries: list[bytes]) -> None:
    entry = log_pb2.LogEntry.FromString(entries[1])
    entry.time_unix_s += 1
    entries[1] = entry.SerializeToString(deterministic=True)


@pytest.mark.parametrize(
    ("edit", "error", "message"),
    [
        (flip, LogInconsistentError, "do not hash to its signed head"),
        (lambda entries: entries.pop(), LogInconsistentError, "shows 2 of the 3 entries"),
        (lambda entries: entries.clear(), LogInconsistentError, "shows 0 of the 3 entries"),
        (lambda entries: entries.append(entries[0]), MalformedError, "other than the 3 entries"),
        (lambda entries: entries.reverse(), LogInconsistentError, "do not hash to its signed head"),
        (lambda entries: entries.__setitem__(0, b"\xff\xff"), LogInconsistentError, "cannot be read"),
    ],
)
def test_entries_that_are_not_those_that_were_signed(
    shown: Shown, edit: Edit, error: type[NightshiftError], message: str
) -> None:
    shown.coordinator.edit = edit
    with pytest.raises(error, match=message):
        shown.audit()


def test_a_second_set_for_others_is_found(shown: Shown) -> None:
    """Members were shown different sets, each logged: no proof of one entry tells, reading all of them does."""
    cohort_id = see_a_night(shown)
    shown.world.append(log_pb2.LOG_ENTRY_KIND_SET, subject=cohort_id, digest=bytes(32))
    with pytest.raises(EquivocationError, match="a second frozen set of cohort"):
        shown.audit()


def test_a_log_without_this_devices_enrolment(world: World, tmp_path: Path) -> None:
    coordinator = WholeLog(world)
    stranger = World.make(devices=1).devices[0]
    with (
        agent_of(world, stranger, tmp_path, coordinator) as session,
        pytest.raises(LogInconsistentError, match="this device's own certificate"),
    ):
        audit(session)


@pytest.mark.parametrize(
    ("statement", "message"),
    [
        ("UPDATE cohorts SET plan_hash = zeroblob(32)", "the plan of cohort"),
        ("UPDATE cohorts SET cohort_id = zeroblob(32)", "the plan of cohort"),
        ("UPDATE answers SET set_hash = zeroblob(32)", "the set of cohort"),
        ("UPDATE releases SET release_id = zeroblob(32)", "release 0 of task 'notes'"),
    ],
)
def test_what_this_device_was_told_and_the_log_lacks(shown: Shown, statement: str, message: str) -> None:
    see_a_night(shown)
    with shown.session.store.database.transaction() as connection:
        connection.execute(statement)
    with pytest.raises(LogInconsistentError, match=f"does not hold {message}"):
        shown.audit()


def test_what_it_was_told_before_it_joined_this_coordinator_is_another_logs(shown: Shown) -> None:
    see_a_night(shown)
    with shown.session.store.database.transaction() as connection:
        connection.execute("UPDATE cohorts SET plan_hash = zeroblob(32), seen_at = ?", (NOW_UNIX_S - 1,))
    assert shown.audit().remembered == 3


def test_a_revocation_that_is_told_and_not_logged(shown: Shown) -> None:
    shown.coordinator.revoked = 1
    with pytest.raises(LogInconsistentError, match="the 0 devices that the log revokes are not the 1"):
        shown.audit()
    revoked = shown.world.devices[1].device_id
    shown.world.append(log_pb2.LOG_ENTRY_KIND_REVOCATION, subject=revoked, digest=revoked)
    assert shown.audit().remembered == 2
