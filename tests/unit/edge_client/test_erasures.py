"""A member lays a void cohort to rest only when the log says so, once, and can never answer it afterwards."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from edge_client.agent.duties import serve
from edge_client.agent.erasures import lay_to_rest
from edge_client.agent.session import Session
from edge_client.home import Home
from edge_client.store import open_store
from edge_client.store.answers import Kind, StoredAnswer
from nightshift.host import clock
from nightshift.protocol.errors import (
    ClonedIdentityError,
    DeclinedError,
    EquivocationError,
    LogInconsistentError,
    MalformedError,
    NightshiftError,
    SignatureInvalidError,
    VerificationError,
)
from nightshift.protocol.secagg.erasure import ErasureStatement, verify_erasure
from nightshift.v1 import device_pb2, log_pb2, plan_pb2
from tests.support.authority import DAY_S, NOW_UNIX_S
from tests.support.plans import Cohort, EnrolledDevice, FrozenSet, World
from tests.support.scripted_coordinator import ScriptedCoordinator, agent_of, keep_prekey

MEMBER = 2


@pytest.fixture(autouse=True)
def _clock_of_the_world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "clock"
    path.write_text(str(NOW_UNIX_S - time.time()), "ascii")
    monkeypatch.setenv(clock.ENVIRONMENT_VARIABLE, str(path))


class Void:
    """A cohort, and the proof of its end as the coordinator would give it."""

    def __init__(self, cohort: Cohort, *, logged: bool = True, digest: bytes | None = None) -> None:
        self.cohort = cohort
        self.world = cohort.world
        kind = log_pb2.LOG_ENTRY_KIND_VOID if logged else log_pb2.LOG_ENTRY_KIND_SET
        self.index = self.world.append(
            kind, subject=self.cohort_id, digest=cohort.plan_hash if digest is None else digest
        )

    @property
    def cohort_id(self) -> bytes:
        return self.cohort.message.cohort_id

    def proof(self, request: device_pb2.GetVoidRequest) -> device_pb2.GetVoidResponse:
        offer = self.cohort.offer()
        seen = request.log_size
        return device_pb2.GetVoidResponse(
            plan=offer.plan,
            signature=offer.signature,
            plan_proof=offer.plan_proof,
            void_proof=self.world.proof(self.index),
            checkpoint=self.world.checkpoint(),
            consistency_path=self.world.tree.consistency_path(seen) if seen else [],
        )

    def member(self) -> EnrolledDevice:
        place = self.cohort.message.committee[MEMBER - 1]
        return self.world.device(place.prekey.device_id)


@contextmanager
def member_of(void: Void, directory: Path, coordinator: ScriptedCoordinator) -> Iterator[Session]:
    """The member's agent, whose store made the prekey that the plan names."""
    device = void.member()
    with agent_of(void.world, device, directory, coordinator) as session:
        session.store.database.put(epoch=device.prekey.epoch)
        yield session


def bundle_of(frozen: FrozenSet) -> Callable[[device_pb2.GetBundleRequest], Iterator[device_pb2.GetBundleResponse]]:
    def reply(request: device_pb2.GetBundleRequest) -> Iterator[device_pb2.GetBundleResponse]:
        header = frozen.header()
        if request.log_size:
            header.consistency_path.extend(frozen.cohort.world.tree.consistency_path(request.log_size))
        yield device_pb2.GetBundleResponse(header=header)
        for entry in frozen.entries(MEMBER):
            yield device_pb2.GetBundleResponse(entry=entry)

    return reply


def frozen(cohort: Cohort) -> FrozenSet:
    return cohort.freeze({device.device_id: cohort.contribute(device) for device in cohort.world.devices[:4]})


def test_the_statement_is_signed_kept_and_its_key_gone(tmp_path: Path) -> None:
    void = Void(World.make(devices=4).open_cohort())
    coordinator = ScriptedCoordinator(void=void.proof)
    device = void.member()
    with member_of(void, tmp_path, coordinator) as session:
        said = lay_to_rest(session, void.cohort_id)
        assert session.store.prekeys.find(device.prekey.public) is None
        assert [entry.kind for entry in session.store.records.ledger()] == ["erasure"]
        assert session.store.answers.count() == 0
        assert session.store.answers.count(Kind.ERASURE) == 1
    (sent,) = coordinator.erasures
    assert said.message == sent.SerializeToString(deterministic=True)
    statement = ErasureStatement(void.cohort.plan_hash, void.cohort_id, device.device_id, sent.signature)
    verify_erasure(statement, device.key.public_key())
    assert device.prekey_private not in (tmp_path / "store.sqlite3").read_bytes()


def test_asked_again_it_sends_the_same_bytes_and_looks_at_nothing_new(tmp_path: Path) -> None:
    void = Void(World.make(devices=4).open_cohort())
    coordinator = ScriptedCoordinator(void=void.proof)
    with member_of(void, tmp_path, coordinator) as session:
        lay_to_rest(session, void.cohort_id)
        coordinator.void = ScriptedCoordinator().void
        lay_to_rest(session, void.cohort_id)
    first, second = coordinator.erasures
    assert first.SerializeToString() == second.SerializeToString()


def test_a_prekey_that_was_erased_at_its_end_is_stated_too(tmp_path: Path) -> None:
    void = Void(World.make(devices=4).open_cohort())
    coordinator = ScriptedCoordinator(void=void.proof)
    with member_of(void, tmp_path, coordinator) as session:
        serial = void.member().prekey.serial
        session.store.prekeys.erase_expired(NOW_UNIX_S + 30 * DAY_S)
        assert session.store.prekeys.next_serial() == serial + 1
        lay_to_rest(session, void.cohort_id)
    assert len(coordinator.erasures) == 1


def test_what_was_answered_is_never_stated(tmp_path: Path) -> None:
    cohort = World.make(devices=4).open_cohort()
    chosen = frozen(cohort)
    coordinator = ScriptedCoordinator(bundle=bundle_of(chosen))
    void = Void(cohort)
    coordinator.void = void.proof
    with member_of(void, tmp_path, coordinator) as session:
        serve(session, void.cohort_id)
        with pytest.raises(DeclinedError, match="had answered it"):
            lay_to_rest(session, void.cohort_id)
    assert coordinator.erasures == []


def test_after_the_statement_nothing_is_answered(tmp_path: Path) -> None:
    cohort = World.make(devices=4).open_cohort()
    chosen = frozen(cohort)
    void = Void(cohort)
    coordinator = ScriptedCoordinator(bundle=bundle_of(chosen), void=void.proof)
    with member_of(void, tmp_path, coordinator) as session:
        lay_to_rest(session, void.cohort_id)
        with pytest.raises(EquivocationError, match="void by the log, and now asks for an answer"):
            serve(session, void.cohort_id)
        # Nor from its rows alone: the record is gone, the key stays gone.
        with session.store.database.transaction() as connection:
            connection.execute("DELETE FROM answers")
        with pytest.raises(DeclinedError, match="no longer here"):
            serve(session, void.cohort_id)
    assert coordinator.answers == []


def test_an_old_copy_of_the_store_states_nothing_about_keys_that_it_never_made(tmp_path: Path) -> None:
    """The image is from before the prekey was made: in it, nothing tells what was said with that key since."""
    void = Void(World.make(devices=4).open_cohort())
    coordinator = ScriptedCoordinator(void=void.proof)
    with member_of(void, tmp_path, coordinator) as session:
        session.store.database.put(last_serial=0)
        with session.store.database.transaction() as connection:
            connection.execute("DELETE FROM prekeys")
        with pytest.raises(ClonedIdentityError, match="old copy"):
            lay_to_rest(session, void.cohort_id)
    assert coordinator.erasures == []


def test_a_coordinator_cannot_make_a_store_look_old(tmp_path: Path) -> None:
    """It signs and logs a plan that names a later key of this device, which the device never signed."""

    def later_serial(plan: plan_pb2.Plan) -> None:
        plan.committee[MEMBER - 1].prekey.serial += 100

    void = Void(World.make(devices=4).open_cohort(edit=later_serial))
    coordinator = ScriptedCoordinator(void=void.proof)
    with member_of(void, tmp_path, coordinator) as session, pytest.raises(SignatureInvalidError, match="prekey"):
        lay_to_rest(session, void.cohort_id)
    assert coordinator.erasures == []


def test_after_a_lost_store_nothing_is_stated_about_earlier_keys(tmp_path: Path) -> None:
    void = Void(World.make(devices=4).open_cohort())
    coordinator = ScriptedCoordinator(void=void.proof)
    with (
        agent_of(void.world, void.member(), tmp_path, coordinator) as session,
        pytest.raises(DeclinedError, match="store that was lost"),
    ):
        lay_to_rest(session, void.cohort_id)
    assert coordinator.erasures == []


def test_of_an_answer_and_a_statement_that_race_exactly_one_is_kept(tmp_path: Path) -> None:
    """Two connections to one store, as of a run and of a copy of it that was let run beside it."""
    home = Home(tmp_path / "config.toml", tmp_path / "raced", tmp_path / "cache")
    device = World.make(devices=3).devices[0]
    for number in range(12):
        cohort = number.to_bytes(32, "big")
        with open_store(home) as store:
            keep_prekey(store, device)
        start = threading.Barrier(2)
        with ThreadPoolExecutor(2) as pool:
            said = [pool.submit(say, home, kind, cohort, device, start) for kind in (Kind.ANSWER, Kind.ERASURE)]
        failed = [attempt.exception() for attempt in said if attempt.exception() is not None]
        assert [type(error) for error in failed] == [EquivocationError]
        with open_store(home) as store:
            kept = store.answers.find(cohort)
            assert kept is not None
            assert kept.message == kept.kind.value.encode()
            assert store.prekeys.count() == 0


def say(home: Home, kind: Kind, cohort: bytes, device: EnrolledDevice, start: threading.Barrier) -> None:
    """Record one of the two, at the same moment as the other."""
    with open_store(home) as store:
        start.wait()
        said = StoredAnswer(cohort, cohort, kind, None, kind.value.encode(), NOW_UNIX_S, None)
        store.answers.record(said, prekey_public=device.prekey.public, now_unix_s=NOW_UNIX_S)


# A false void.


def refused(tmp_path: Path, void: Void, edit: Callable[[device_pb2.GetVoidResponse], object]) -> NightshiftError:
    """What the member raises; asserts that it stated nothing and kept its key."""

    def lie(request: device_pb2.GetVoidRequest) -> device_pb2.GetVoidResponse:
        response = void.proof(request)
        edit(response)
        return response

    coordinator = ScriptedCoordinator(void=lie)
    with member_of(void, tmp_path, coordinator) as session:
        with pytest.raises(NightshiftError) as caught:
            lay_to_rest(session, void.cohort_id)
        assert session.store.prekeys.find(void.member().prekey.public) is not None
        assert session.store.answers.find(void.cohort_id) is None
    assert coordinator.erasures == []
    return caught.value


def nothing(response: device_pb2.GetVoidResponse) -> None:
    """The lie is in the log itself."""


def test_a_void_that_is_not_in_the_log(tmp_path: Path) -> None:
    void = Void(World.make(devices=4).open_cohort(), logged=False)
    assert isinstance(refused(tmp_path, void, nothing), LogInconsistentError)


def test_a_void_of_another_plan(tmp_path: Path) -> None:
    void = Void(World.make(devices=4).open_cohort(), digest=bytes(32))
    assert isinstance(refused(tmp_path, void, nothing), LogInconsistentError)


def test_a_log_that_forks_to_hold_a_void(tmp_path: Path) -> None:
    void = Void(World.make(devices=4).open_cohort())
    coordinator = ScriptedCoordinator(void=void.proof)
    with member_of(void, tmp_path, coordinator) as session:
        size = void.world.tree.size
        session.store.database.put(log_size=size, log_root=bytes(32))
        with pytest.raises(LogInconsistentError):
            lay_to_rest(session, void.cohort_id)
        assert session.store.prekeys.find(void.member().prekey.public) is not None
    assert coordinator.erasures == []


def forge_entry(response: device_pb2.GetVoidResponse) -> None:
    entry = log_pb2.LogEntry.FromString(response.void_proof.entry)
    entry.note = "void, believe me"
    response.void_proof.entry = entry.SerializeToString()


def resign(response: device_pb2.GetVoidResponse) -> None:
    response.signature = bytes(63) + b"\x01"


def swap_proofs(response: device_pb2.GetVoidResponse) -> None:
    response.void_proof.CopyFrom(response.plan_proof)


@pytest.mark.parametrize(
    ("edit", "error"),
    [(forge_entry, LogInconsistentError), (resign, SignatureInvalidError), (swap_proofs, LogInconsistentError)],
)
def test_a_proof_with_a_lie_in_it(
    tmp_path: Path, edit: Callable[[device_pb2.GetVoidResponse], object], error: type[NightshiftError]
) -> None:
    assert isinstance(refused(tmp_path, Void(World.make(devices=4).open_cohort()), edit), error)


def test_another_cohorts_void(tmp_path: Path) -> None:
    world = World.make(devices=3)  # all three sit on every committee
    asked, other = Void(world.open_cohort()), Void(world.open_cohort())

    def answer_for_other(response: device_pb2.GetVoidResponse) -> None:
        response.CopyFrom(other.proof(device_pb2.GetVoidRequest()))

    assert isinstance(refused(tmp_path, asked, answer_for_other), VerificationError)


def test_a_key_that_is_bound_to_another_plan_is_not_given_up(tmp_path: Path) -> None:
    void = Void(World.make(devices=4).open_cohort())
    coordinator = ScriptedCoordinator(void=void.proof)
    with member_of(void, tmp_path, coordinator) as session:
        public = void.member().prekey.public
        session.store.prekeys.bind(public, bytes(32), until_unix_s=NOW_UNIX_S + DAY_S)
        with pytest.raises(EquivocationError, match="two different plans"):
            lay_to_rest(session, void.cohort_id)
        assert session.store.prekeys.find(public) is not None
    assert coordinator.erasures == []


def test_a_device_that_was_no_member_has_nothing_to_state(tmp_path: Path) -> None:
    world = World.make(devices=12)
    void = Void(world.open_cohort())
    members = {member.prekey.device_id for member in void.cohort.message.committee}
    outsider = next(device for device in world.devices if device.device_id not in members)
    coordinator = ScriptedCoordinator(void=void.proof)
    with (
        agent_of(world, outsider, tmp_path, coordinator) as session,
        pytest.raises(VerificationError, match="no member"),
    ):
        lay_to_rest(session, void.cohort_id)
    assert coordinator.erasures == []


@pytest.mark.parametrize("name", [b"", b"x" * 31, b"x" * 33])
def test_a_cohort_is_named_by_32_bytes(tmp_path: Path, name: bytes) -> None:
    world = World.make(devices=3)
    with (
        agent_of(world, world.devices[0], tmp_path, ScriptedCoordinator()) as session,
        pytest.raises(MalformedError, match="32 bytes"),
    ):
        lay_to_rest(session, name)
