"""A member that gets signed garbage for one contributor says so, once, and answers for nobody."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from edge_client.agent.duties import serve
from edge_client.agent.erasures import lay_to_rest
from edge_client.agent.session import Session
from edge_client.store.answers import Kind
from nightshift.host import clock
from nightshift.protocol.errors import EquivocationError
from nightshift.protocol.identity import DeviceId
from nightshift.protocol.secagg import device as contributing
from nightshift.protocol.secagg.erasure import ErasureStatement, verify_erasure
from nightshift.protocol.secagg.refusal import Refusal, ShareFault, UnusableShare, verify_refusal
from nightshift.protocol.secagg.sealing import seal
from nightshift.v1 import device_pb2
from tests.support.authority import NOW_UNIX_S
from tests.support.plans import Cohort, FrozenSet, World
from tests.support.scripted_coordinator import ScriptedCoordinator, agent_of

MEMBER = 2


@pytest.fixture(autouse=True)
def _clock_of_the_world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "clock"
    path.write_text(str(NOW_UNIX_S - time.time()), "ascii")
    monkeypatch.setenv(clock.ENVIRONMENT_VARIABLE, str(path))


def not_in_field(share: bytes, prekey: bytes, info: bytes) -> bytes:
    return seal(b"\xff" * len(share), prekey, info)


def for_another_plan(share: bytes, prekey: bytes, info: bytes) -> bytes:
    return seal(share, prekey, info + b"another")


Spoil = Callable[[bytes, bytes, bytes], bytes]


@pytest.fixture
def frozen(monkeypatch: pytest.MonkeyPatch) -> Callable[[Spoil], FrozenSet]:
    """Four contributors, of whom the first seals otherwise than it should, and signs that."""

    def make(spoil: Spoil) -> FrozenSet:
        cohort = World.make(devices=4).open_cohort()
        first, *rest = cohort.world.devices
        with monkeypatch.context() as patch:
            patch.setattr(contributing, "seal", spoil)
            made = {first.device_id: cohort.contribute(first)}
        return cohort.freeze(made | {device.device_id: cohort.contribute(device) for device in rest})

    return make


def bundle_of(frozen: FrozenSet) -> Callable[[device_pb2.GetBundleRequest], Iterator[device_pb2.GetBundleResponse]]:
    def reply(request: device_pb2.GetBundleRequest) -> Iterator[device_pb2.GetBundleResponse]:
        header = frozen.header()
        if request.log_size:
            header.consistency_path.extend(frozen.cohort.world.tree.consistency_path(request.log_size))
        yield device_pb2.GetBundleResponse(header=header)
        for entry in frozen.entries(MEMBER):
            yield device_pb2.GetBundleResponse(entry=entry)

    return reply


def culprit(cohort: Cohort) -> DeviceId:
    return cohort.world.devices[0].device_id


@contextmanager
def member_of(frozen: FrozenSet, directory: Path, coordinator: ScriptedCoordinator) -> Iterator[Session]:
    with agent_of(frozen.cohort.world, frozen.member(MEMBER), directory, coordinator) as session:
        yield session


@pytest.mark.parametrize(
    ("spoil", "fault"),
    [(not_in_field, ShareFault.NOT_IN_FIELD), (for_another_plan, ShareFault.DOES_NOT_OPEN)],
)
def test_the_refusal_names_the_contributor_and_carries_the_erasure(
    spoil: Spoil, fault: ShareFault, frozen: Callable[[Spoil], FrozenSet], tmp_path: Path
) -> None:
    shown = frozen(spoil)
    cohort, member = shown.cohort, shown.member(MEMBER)
    coordinator = ScriptedCoordinator(bundle=bundle_of(shown))
    with member_of(shown, tmp_path, coordinator) as session:
        said = serve(session, cohort.message.cohort_id)
        assert said.kind is Kind.REFUSAL
        assert session.store.prekeys.find(member.prekey.public) is None
        (line,) = session.store.records.ledger()
        assert line.kind == "refusal"
        assert line.details["contributors"] == [culprit(cohort).hex()]
        assert session.store.records.security_events() == []
    assert coordinator.answers == []
    (sent,) = coordinator.refusals
    assert said.message == sent.SerializeToString(deterministic=True)
    shares = (UnusableShare(culprit(cohort), fault),)
    assert [(share.contributor, share.fault) for share in sent.shares] == [(culprit(cohort), fault)]
    verify_refusal(
        Refusal(shown.set_hash, shares, sent.signature),
        plan_hash=cohort.plan_hash,
        public_key=member.key.public_key(),
    )
    verify_erasure(
        ErasureStatement(cohort.plan_hash, cohort.message.cohort_id, member.device_id, sent.erasure),
        member.key.public_key(),
    )


def test_asked_again_it_sends_the_same_bytes(frozen: Callable[[Spoil], FrozenSet], tmp_path: Path) -> None:
    shown = frozen(not_in_field)
    coordinator = ScriptedCoordinator(bundle=bundle_of(shown))
    with member_of(shown, tmp_path, coordinator) as session:
        serve(session, shown.cohort.message.cohort_id)
        serve(session, shown.cohort.message.cohort_id)
        # The cohort ended void meanwhile: what is sent is still the refusal, which carries the erasure.
        lay_to_rest(session, shown.cohort.message.cohort_id)
    first, second, third = coordinator.refusals
    assert first.SerializeToString() == second.SerializeToString() == third.SerializeToString()
    assert coordinator.erasures == []


def test_the_set_without_the_culprit_is_not_answered_either(
    frozen: Callable[[Spoil], FrozenSet], tmp_path: Path
) -> None:
    """The mixing attack in kind clothes: the coordinator drops the named one and asks again."""
    shown = frozen(not_in_field)
    coordinator = ScriptedCoordinator(bundle=bundle_of(shown))
    with member_of(shown, tmp_path, coordinator) as session:
        serve(session, shown.cohort.message.cohort_id)
        honest = {device: made for device, made in shown.contributions.items() if device != culprit(shown.cohort)}
        second = shown.cohort.freeze(honest)
        coordinator.bundle = bundle_of(second)
        with pytest.raises(EquivocationError, match="second set"):
            serve(session, shown.cohort.message.cohort_id)
    assert coordinator.answers == []
    assert len(coordinator.refusals) == 1
