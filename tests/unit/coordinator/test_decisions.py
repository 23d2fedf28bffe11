"""What devices serve, over rounds of a real coordinator: the measurements of scripted devices decide."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from sqlalchemy import select
from tuf.api.metadata import Targets

from coordinator.deployment import Deployment
from coordinator.releases import decisions
from coordinator.releases.publication import find_release, newest_release
from coordinator.releases.repository import latest
from coordinator.rounds.plans import open_round
from coordinator.rounds.rounds import find
from coordinator.storage.rows import AuditRow, DecisionRow, ReleaseRow, Round, RoundState, Task
from nightshift.host.clock import now_unix_s
from nightshift.protocol.adapters.layout import Side
from nightshift.protocol.decision import DecisionKind, VerifiedDecision, verify_decision
from nightshift.protocol.errors import StateConflictError, UsageError
from nightshift.protocol.plan_checks import VerifiedPlan
from nightshift.protocol.targets import Role, adapter_target
from tests.support.coordinators import TASK, make_task
from tests.support.scripted_device import Greeting, ScriptedDevice

Join = Callable[[], ScriptedDevice]
GOOD = {"loss_before": 1.5, "loss_served": 2.0, "better": 1.0, "devices_better": 1.0}
BAD = {"loss_before": 2.5, "loss_served": 2.0, "better": 0.0, "devices_better": 0.0}


@dataclass
class Nights:
    """A served coordinator and its devices."""

    deployment: Deployment
    devices: list[ScriptedDevice]
    held: int = 0

    def open(self) -> VerifiedPlan:
        with self.deployment.database.transaction() as session:
            open_round(session, self.deployment, session.get_one(Task, TASK), now_unix_s())
        self.held += 1
        plan = self.devices[0].check_in().plan
        assert plan is not None
        return plan

    def end(self, metrics: Mapping[str, float], *, size: float = 0.01) -> tuple[Round, Greeting]:
        """Everybody contributes and answers; the round as it ended, and what a device is shown then."""
        for number, device in enumerate(self.devices):
            plan = device.check_in().plan
            assert plan is not None
            length = plan.document.vector.delta_length
            delta = np.random.default_rng(10 * self.held + number).uniform(-size, size, length).astype(np.float32)
            assert device.upload(device.prepare(plan, delta, metrics=metrics)).complete
        for device in self.devices:
            for duty in device.check_in(no_plan=True).duties:
                device.send_answer(device.make_answer(duty))
        greeting = self.devices[0].check_in(no_plan=True)
        with self.deployment.database.reading() as session:
            return find(session, f"{TASK}/{self.held}")[0], greeting

    def night(self, metrics: Mapping[str, float]) -> tuple[Round, Greeting]:
        self.open()
        return self.end(metrics)

    def releases(self) -> tuple[ReleaseRow, ReleaseRow]:
        """What is served, by rows and by the release metadata alike, and what is newest."""
        with self.deployment.database.reading() as session:
            served = decisions.served_release(session, TASK)
            target = latest(session, Role.ADAPTERS, Targets).targets[adapter_target(TASK)]
            assert target.custom["release"] == served.release_id.hex()
            return served, newest_release(session, TASK)

    def decided(self, greeting: Greeting) -> VerifiedDecision:
        """The decision that a device is shown, as it verifies it."""
        (offer,) = greeting.reply.decisions
        return verify_decision(offer, view=greeting.view, trust=self.devices[0].trust)

    def operator(self, verb: Callable[..., DecisionRow], name: str, reason: str = "we looked at it") -> DecisionRow:
        with self.deployment.database.transaction() as session:
            release = find_release(session, name)
            return verb(session, self.deployment, release, reason=reason, now_unix_s=now_unix_s())


@pytest.fixture
def make(served: Deployment, join: Join, package: Path) -> Callable[..., Nights]:
    def nights(**gate: object) -> Nights:
        make_task(served, package, cohort={"n_max": 3, "n_min": 3}, gate=gate, encoding={"clip_norm": 1.0})
        devices = [join() for _ in range(3)]
        for device in devices:
            device.check_in(new_prekeys=8)
        return Nights(served, devices)

    return nights


def test_the_first_release_is_served_for_want_of_another(make: Callable[..., Nights]) -> None:
    nights = make()
    greeting = nights.devices[0].check_in()
    decision = nights.decided(greeting).document
    assert (decision.kind, decision.number, decision.served_number) == (DecisionKind.FIRST, 1, 0)
    assert decision.served == decision.next_parent
    # The first round has nothing to compare: its parent is what devices serve.
    assert nights.open().document.served_release is None


def test_a_candidate_is_the_next_parent_at_once_and_served_when_the_next_round_finds_it_better(
    make: Callable[..., Nights],
) -> None:
    nights = make()
    nights.night({})
    served, candidate = nights.releases()
    assert (served.number, candidate.number) == (0, 1)

    plan = nights.open().document
    assert (plan.parent_release, plan.served_release) == (candidate.release_id, served.release_id)
    found, greeting = nights.end(GOOD)
    assert found.state is RoundState.PUBLISHED
    served, newest = nights.releases()
    assert (served.number, newest.number, newest.parent) == (1, 2, served.release_id)
    decision = nights.decided(greeting).document
    assert (decision.kind, decision.served_number, decision.next_parent) == (
        DecisionKind.PROMOTED,
        1,
        newest.release_id,
    )
    measurement = decision.measurement
    assert measurement is not None
    assert (measurement.devices, measurement.devices_better, measurement.plan_hashes) == (
        3,
        3,
        (nights_plan_hash(nights),),
    )
    assert measurement.loss_candidate == pytest.approx(1.5, abs=1e-6)
    assert measurement.loss_served == pytest.approx(2.0, abs=1e-6)
    assert measurement.share_better == pytest.approx(1.0, abs=1e-6)


def nights_plan_hash(nights: Nights) -> bytes:
    with nights.deployment.database.reading() as session:
        (cohort,) = find(session, f"{TASK}/{nights.held}")[1]
        return cohort.plan_hash


def test_a_candidate_that_is_worse_is_dropped_and_everybody_may_contribute_again(make: Callable[..., Nights]) -> None:
    nights = make()
    nights.night({})
    first, _ = nights.releases()
    found, greeting = nights.night(BAD)
    assert found.state is RoundState.VOID
    assert "release 1 was dropped: mean loss 2.5" in found.reason
    served, newest = nights.releases()
    assert served.release_id == first.release_id
    # The same adapter under a new name; what was learned from the dropped one is in no release.
    assert (newest.number, newest.adapter_sha256, newest.restores) == (2, first.adapter_sha256, first.release_id)
    assert newest.contributors == 0
    decision = nights.decided(greeting).document
    assert (decision.kind, decision.served, decision.next_parent) == (
        DecisionKind.DROPPED,
        first.release_id,
        newest.release_id,
    )

    # All three contributed to the adapter of release 0 before, and to release 1.
    plan = nights.open()
    assert (plan.document.parent_release, plan.document.served_release) == (newest.release_id, None)
    found, _ = nights.end({})
    assert found.state is RoundState.PUBLISHED
    served, newest = nights.releases()
    assert (served.number, newest.number) == (0, 3)
    # And that one is measured and promoted like any other.
    nights.night(GOOD)
    served, newest = nights.releases()
    assert (served.number, newest.number) == (3, 4)


def test_too_few_measurements_and_patience_hold_a_candidate(make: Callable[..., Nights]) -> None:
    nights = make(minimum_devices=4)
    nights.night({})
    found, greeting = nights.night(BAD)
    assert found.state is RoundState.PUBLISHED
    assert "3 devices measured it, 4 are needed" in found.reason
    served, newest = nights.releases()
    assert (served.number, newest.number) == (0, 2)
    assert nights.decided(greeting).document.kind is DecisionKind.FIRST


def test_patience_ends(make: Callable[..., Nights]) -> None:
    nights = make(margin=1.0, patience=1)
    nights.night({})
    found, _ = nights.night(GOOD)  # better, but by 0.5 only
    assert (found.state, nights.releases()[1].number) == (RoundState.PUBLISHED, 2)
    found, _ = nights.night(GOOD)
    assert found.state is RoundState.VOID
    assert nights.releases()[1].restores is not None


def test_which_side_is_trained_follows_from_what_is_in_the_adapter_not_from_its_number(
    make: Callable[..., Nights],
) -> None:
    """`alternate` trains B first, for B is zero and A has no gradient then: also when a first adapter comes back."""
    nights = make()
    assert nights.open().document.side is Side.B
    found, _ = nights.end({}, size=1.0)  # larger than the plan's norm: its sum is refused, and the adapter comes back
    assert (found.state, nights.releases()[1].number) == (RoundState.VOID, 1)
    assert nights.open().document.side is Side.B
    nights.end({})
    assert nights.open().document.side is Side.A, "release 2 holds one round"
    nights.end(BAD)  # release 2 is dropped: 4 is the first adapter again
    assert nights.releases()[1].restores is not None
    assert nights.open().document.side is Side.B


def test_without_a_gate_every_release_is_served_at_once(make: Callable[..., Nights]) -> None:
    nights = make(enabled=False)
    _, greeting = nights.night({})
    assert nights.decided(greeting).document.kind is DecisionKind.UNGATED
    served, newest = nights.releases()
    assert (served.number, newest.number) == (1, 1)
    assert nights.open().document.served_release is None


def test_a_sum_beyond_the_bound_is_refused_and_learning_starts_again_from_the_same_adapter(
    make: Callable[..., Nights],
) -> None:
    """The clip is 1 and each of 640 values may be as large: only the norm tells that nobody clipped."""
    nights = make()
    nights.open()
    found, greeting = nights.end({}, size=0.5)
    assert found.state is RoundState.VOID
    assert "clip their deltas to 1" in found.reason
    served, newest = nights.releases()
    assert (newest.number, newest.restores) == (1, served.release_id)
    assert nights.decided(greeting).document.kind is DecisionKind.SET_ASIDE
    found, _ = nights.night({})
    assert found.state is RoundState.PUBLISHED


def test_an_operator_promotes_a_candidate_and_one_that_was_dropped(make: Callable[..., Nights]) -> None:
    nights = make()
    nights.night({})
    made = nights.operator(decisions.promote, f"{TASK}/1", "measured elsewhere")
    assert (made.kind, made.reason) == ("promoted by operator", "measured elsewhere")
    served, newest = nights.releases()
    assert (served.number, newest.number) == (1, 1)
    with pytest.raises(StateConflictError, match="served already"):
        nights.operator(decisions.promote, f"{TASK}/1")

    nights.night({})
    nights.night(BAD)  # drops release 2
    nights.operator(decisions.promote, f"{TASK}/2", "the gate was wrong")
    served, newest = nights.releases()
    with nights.deployment.database.reading() as session:
        dropped = find_release(session, f"{TASK}/2")
    assert served.release_id == dropped.release_id
    # Learning had left it behind, so the next round starts from it again.
    assert newest.restores == dropped.release_id


def test_one_command_goes_back_while_a_round_is_under_way(make: Callable[..., Nights]) -> None:
    nights = make()
    nights.night({})
    nights.night(GOOD)  # release 1 is served, 2 is the candidate
    nights.open()
    made = nights.operator(decisions.roll_back, f"{TASK}/0", "it answers nonsense")
    assert made.kind == "rolled back"
    served, newest = nights.releases()
    assert (served.number, newest.number, newest.restores) == (0, 3, served.release_id)
    found, greeting = nights.end(GOOD)
    assert found.state is RoundState.VOID
    assert "left behind" in found.reason
    assert nights.releases()[1].release_id == newest.release_id, "what was learned from the distrusted one is not used"
    decision = nights.decided(greeting).document
    assert (decision.kind, decision.served_number) == (DecisionKind.ROLLED_BACK, 0)
    found, _ = nights.night({})
    assert found.state is RoundState.PUBLISHED
    with nights.deployment.database.reading() as session:
        (row,) = session.scalars(select(AuditRow).where(AuditRow.verb == "release rollback"))
    assert "it answers nonsense" in row.detail


def test_going_back_takes_a_reason_and_an_earlier_release(make: Callable[..., Nights]) -> None:
    nights = make()
    nights.night({})
    with pytest.raises(UsageError, match="later than 0"):
        nights.operator(decisions.roll_back, f"{TASK}/1")
    for verb in (decisions.roll_back, decisions.promote):
        with pytest.raises(UsageError, match="--reason"):
            nights.operator(verb, f"{TASK}/0", " \n")
    # The candidate alone is distrusted: what is served stays, and learning starts again from it.
    nights.operator(decisions.roll_back, f"{TASK}/0")
    served, newest = nights.releases()
    assert (served.number, newest.restores) == (0, served.release_id)
    with pytest.raises(StateConflictError, match="nothing changed"):
        nights.operator(decisions.roll_back, f"{TASK}/0")
