"""Sending a journaled contribution: the same bytes, from where they are wanted, given up only with a reason."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from edge_client.agent import uploads
from edge_client.agent.session import Session
from edge_client.store.contributions import State, StoredContribution
from nightshift.host.rpc import abort
from nightshift.protocol.errors import (
    MalformedError,
    NightshiftError,
    PartialError,
    StateConflictError,
    UnreachableError,
)
from nightshift.v1 import device_pb2
from tests.support.contributions import contribution
from tests.support.plans import World
from tests.support.scripted_coordinator import ScriptedCoordinator, agent_of

BODY = os.urandom(200_000)


@dataclass
class Receiver(ScriptedCoordinator):
    """Takes an upload, durable piece by piece; can refuse, or lose the line a few times."""

    received: bytearray = field(default_factory=bytearray)
    offsets: list[int] = field(default_factory=list)
    cuts: list[int] = field(default_factory=list)
    breaks_off: bool = False
    refusal: NightshiftError | None = None
    claim: int | None = None

    def OpenUpload(self, request, context):
        if self.refusal is not None:
            abort(context, self.refusal)
        assert (request.size_bytes, request.signature) == (len(BODY), BODY[-64:])
        offset = len(self.received) if self.claim is None else self.claim
        return device_pb2.OpenUploadResponse(offset=offset, complete=len(self.received) == len(BODY))

    def Upload(self, request_iterator, context):
        cut = self.cuts.pop(0) if self.cuts else None
        for number, piece in enumerate(request_iterator):
            if number == 0:
                self.offsets.append(piece.offset)
                assert piece.offset == len(self.received)
            self.received += piece.data
            if cut is not None and len(self.received) >= cut:
                if self.breaks_off:  # as the service does when it stops, or the stream lasts too long
                    context.cancel()
                    return device_pb2.UploadResponse()
                abort(context, UnreachableError("the line went dead"))
        complete = len(self.received) == len(BODY)
        return device_pb2.UploadResponse(offset=len(self.received), complete=complete)


@pytest.fixture
def receiver() -> Receiver:
    return Receiver()


@pytest.fixture
def session(tmp_path: Path, receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> Iterator[Session]:
    monkeypatch.setattr(uploads.time, "sleep", lambda _: None)
    world = World.make(devices=3)
    with agent_of(world, world.devices[0], tmp_path, receiver) as session:
        yield session


def journaled(session: Session, **changes: object) -> StoredContribution:
    changes = {"body_sha256": hashlib.sha256(BODY).digest(), "body_size_bytes": len(BODY)} | changes
    made = contribution(**changes)
    uploads.body_file(session.home, made.cohort_id).write_bytes(BODY)
    session.store.contributions.add(made)
    return made


def state_of(session: Session, made: StoredContribution) -> State:
    return session.store.contributions.find(made.cohort_id).state


def test_everything_arrives_and_the_bytes_are_erased(session: Session, receiver: Receiver) -> None:
    made = journaled(session)
    uploads.send(session, made)
    assert bytes(receiver.received) == BODY
    assert state_of(session, made) is State.SENT
    assert not uploads.body_file(session.home, made.cohort_id).exists()
    (entry,) = session.store.records.ledger()
    assert (entry.kind, entry.size_bytes) == ("contribution", len(BODY))
    assert "at least 3 devices" in entry.sentence


@pytest.mark.parametrize("breaks_off", [False, True])
def test_a_cut_upload_goes_on_from_the_acknowledged_byte(
    session: Session, receiver: Receiver, breaks_off: bool
) -> None:
    receiver.cuts, receiver.breaks_off = [70_000, 150_000], breaks_off
    uploads.send(session, journaled(session))
    assert bytes(receiver.received) == BODY
    assert receiver.offsets[0] == 0
    assert receiver.offsets == sorted(receiver.offsets)
    assert len(receiver.offsets) == 3
    assert len(session.store.records.ledger()) == 1


def test_a_lost_acknowledgement_is_asked_for_again(session: Session, receiver: Receiver) -> None:
    receiver.received += BODY
    made = journaled(session, state=State.SENDING)
    uploads.send(session, made)
    assert state_of(session, made) is State.SENT
    assert receiver.offsets == []


def test_a_line_that_stays_dead_leaves_everything_journaled(session: Session, receiver: Receiver) -> None:
    receiver.cuts = [1] * uploads.ATTEMPTS
    made = journaled(session)
    with pytest.raises(PartialError, match="the same bytes are sent at the next run") as caught:
        uploads.send(session, made)
    assert caught.value.exit_code == 3
    assert state_of(session, made) is State.SENDING
    assert uploads.body_file(session.home, made.cohort_id).read_bytes() == BODY
    uploads.send(session, made)
    assert bytes(receiver.received) == BODY


def test_refused_before_the_first_byte_it_never_left(session: Session, receiver: Receiver) -> None:
    receiver.refusal = StateConflictError("the cohort is closed")
    made = journaled(session)
    with pytest.raises(StateConflictError, match="the cohort is closed"):
        uploads.send(session, made)
    assert session.store.contributions.find(made.cohort_id) is None
    assert not uploads.body_file(session.home, made.cohort_id).exists()
    assert session.store.records.ledger() == []


def test_refused_after_the_first_byte_it_counts_as_given(session: Session, receiver: Receiver) -> None:
    receiver.refusal = StateConflictError("the cohort is closed")
    made = journaled(session, state=State.SENDING)
    with pytest.raises(StateConflictError):
        uploads.send(session, made)
    assert state_of(session, made) is State.LATE
    assert not uploads.body_file(session.home, made.cohort_id).exists()


@pytest.mark.parametrize("damage", [b"", b"other bytes", None])
def test_damaged_bytes_are_not_sent(session: Session, receiver: Receiver, damage: bytes | None) -> None:
    made = journaled(session)
    path = uploads.body_file(session.home, made.cohort_id)
    if damage is None:
        path.unlink()
    else:
        path.write_bytes(damage)
    with pytest.raises(PartialError, match="missing or damaged"):
        uploads.send(session, made)
    assert receiver.received == b""
    assert session.store.contributions.find(made.cohort_id) is None


def test_a_coordinator_that_claims_more_than_there_is(session: Session, receiver: Receiver) -> None:
    receiver.claim = len(BODY) + 1
    made = journaled(session)
    with pytest.raises(MalformedError, match="claims to have"):
        uploads.send(session, made)
    assert state_of(session, made) is State.PREPARED


def test_leftover_files_that_no_row_wants_are_removed(session: Session) -> None:
    wanted = journaled(session)
    sent = journaled(session, state=State.SENT, cohort_id=os.urandom(32), plan_hash=os.urandom(32))
    stray = session.home.uploads / f"{os.urandom(32).hex()}.contribution"
    stray.write_bytes(b"encrypted, never journaled")
    uploads.forget_finished_files(session.home, session.store)
    assert uploads.body_file(session.home, wanted.cohort_id).exists()
    assert not uploads.body_file(session.home, sent.cohort_id).exists()
    assert not stray.exists()
