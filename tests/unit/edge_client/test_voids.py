"""When a device believes that a void cohort, to which it contributed, can never be opened any more."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from edge_client.agent.session import Session
from edge_client.agent.voids import note_voids
from edge_client.store.contributions import State, StoredContribution
from nightshift.protocol.errors import LogInconsistentError, MalformedError, SignatureInvalidError
from nightshift.protocol.identity import spki
from nightshift.protocol.secagg.erasure import sign_erasure
from nightshift.v1 import device_pb2, log_pb2
from tests.support.authority import NOW_UNIX_S
from tests.support.contributions import contribution
from tests.support.plans import EnrolledDevice, World
from tests.support.scripted_coordinator import ScriptedCoordinator, agent_of

REQUIRED = 3


@dataclass(frozen=True)
class Night:
    """A contribution whose cohort is void by the log, and the devices of its committee of five."""

    world: World
    contribution: StoredContribution
    index: int

    @classmethod
    def make(cls) -> Night:
        world = World.make(devices=6)
        made = contribution(
            state=State.SENT,
            committee_keys=tuple(spki(device.key.public_key()) for device in world.devices[:5]),
            erasures_required=REQUIRED,
            latest_prekey_expiry_unix_s=NOW_UNIX_S + 1000,
        )
        return cls(
            world,
            made,
            world.append(log_pb2.LOG_ENTRY_KIND_VOID, subject=made.cohort_id, digest=made.plan_hash, note="too few"),
        )

    def statement(self, member: EnrolledDevice) -> device_pb2.ErasureStatement:
        made = sign_erasure(
            plan_hash=self.contribution.plan_hash,
            cohort_id=self.contribution.cohort_id,
            member=member.device_id,
            sign=member.sign,
        )
        return device_pb2.ErasureStatement(member=made.member, signature=made.signature)

    def reply(self, statements: Sequence[device_pb2.ErasureStatement]) -> device_pb2.CheckInResponse:
        response = device_pb2.CheckInResponse()
        response.voids.add(proof=self.world.proof(self.index), erasures=statements)
        return response

    def tell(self, session: Session, statements: Sequence[device_pb2.ErasureStatement]) -> StoredContribution:
        note_voids(session, self.reply(statements), self.world.view())
        found = session.store.contributions.find(self.contribution.cohort_id)
        assert found is not None
        return found


@pytest.fixture
def night() -> Night:
    return Night.make()


def session_of(night: Night, directory: Path) -> object:
    return agent_of(night.world, night.world.devices[5], directory, ScriptedCoordinator())


def test_enough_statements_free_the_parent_at_once(night: Night, tmp_path: Path) -> None:
    with session_of(night, tmp_path) as session:
        session.store.contributions.add(night.contribution)
        statements = [night.statement(device) for device in night.world.devices[:REQUIRED]]
        few = night.tell(session, statements[:-1])
        assert (few.state, few.frees_parent(NOW_UNIX_S)) == (State.VOID, False)
        enough = night.tell(session, statements)
        assert enough.frees_parent(NOW_UNIX_S)
        assert "may contribute to the same parent again" in session.notes[-1]
        noted = len(session.notes)
        night.tell(session, statements)
        assert len(session.notes) == noted, "said once"


def test_one_member_that_states_it_often_counts_once(night: Night, tmp_path: Path) -> None:
    with session_of(night, tmp_path) as session:
        session.store.contributions.add(night.contribution)
        found = night.tell(session, [night.statement(night.world.devices[0])] * 5)
        assert not found.frees_parent(NOW_UNIX_S)


def other_cohort(night: Night) -> list[device_pb2.ErasureStatement]:
    return [Night(night.world, contribution(), 0).statement(device) for device in night.world.devices[:REQUIRED]]


def no_member(night: Night) -> list[device_pb2.ErasureStatement]:
    outsider = night.statement(night.world.devices[5])
    return [outsider, *(night.statement(device) for device in night.world.devices[:REQUIRED])]


def in_anothers_name(night: Night) -> list[device_pb2.ErasureStatement]:
    first, *rest = (night.statement(device) for device in night.world.devices[:REQUIRED])
    return [device_pb2.ErasureStatement(member=night.world.devices[4].device_id, signature=first.signature), *rest]


def too_many(night: Night) -> list[device_pb2.ErasureStatement]:
    return [night.statement(device) for device in night.world.devices]


@pytest.mark.parametrize(
    ("statements", "error"),
    [
        (other_cohort, SignatureInvalidError),
        (no_member, MalformedError),
        (in_anothers_name, SignatureInvalidError),
        (too_many, MalformedError),
    ],
)
def test_statements_that_are_not_the_committees_free_nothing(
    night: Night,
    tmp_path: Path,
    statements: Callable[[Night], list[device_pb2.ErasureStatement]],
    error: type[Exception],
) -> None:
    with session_of(night, tmp_path) as session:
        session.store.contributions.add(night.contribution)
        with pytest.raises(error):
            night.tell(session, statements(night))
        found = session.store.contributions.find(night.contribution.cohort_id)
        assert not found.frees_parent(NOW_UNIX_S)


def test_statements_without_a_void_in_the_log_free_nothing(night: Night, tmp_path: Path) -> None:
    """A coordinator and its members alone cannot end a cohort: the void must be where everybody sees it."""
    with session_of(night, tmp_path) as session:
        made = contribution(
            state=State.SENT, committee_keys=night.contribution.committee_keys, erasures_required=REQUIRED
        )
        session.store.contributions.add(made)
        index = night.world.append(log_pb2.LOG_ENTRY_KIND_SET, subject=made.cohort_id, digest=made.plan_hash)
        unlogged = Night(night.world, made, index)
        with pytest.raises(LogInconsistentError):
            unlogged.tell(session, [unlogged.statement(device) for device in night.world.devices[:5]])
        assert session.store.contributions.find(made.cohort_id).state is State.SENT
