"""A parent that restores an earlier adapter: contributed to again by a logged decision, and by nothing else."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge_client.agent.check_in import CheckedIn
from edge_client.agent.examination import Assignment, examine
from edge_client.agent.session import Session
from edge_client.store.contributions import State
from nightshift.host import clock
from nightshift.protocol.decision import DecisionKind
from nightshift.protocol.errors import DeclinedError, EquivocationError, VerificationError
from nightshift.protocol.metrics import COMPARING
from nightshift.protocol.release import verify_release
from nightshift.v1 import device_pb2, plan_pb2, release_pb2
from tests.support.authority import NOW_UNIX_S
from tests.support.contributions import contribution
from tests.support.plans import Cohort, Decided, Publication, World
from tests.support.scripted_coordinator import ScriptedCoordinator, agent_of


@pytest.fixture(autouse=True)
def _clock_of_the_world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(clock.ENVIRONMENT_VARIABLE, str(tmp_path / "clock"))
    (tmp_path / "clock").write_text(str(NOW_UNIX_S - time.time()), "ascii")


@pytest.fixture
def world() -> World:
    return World.make(devices=3)


@pytest.fixture
def session(world: World, tmp_path: Path) -> Iterator[Session]:
    with agent_of(world, world.devices[0], tmp_path, ScriptedCoordinator()) as session:
        yield session


def offered(
    session: Session, cohort: Cohort, *shown: Publication, decided: tuple[Decided, ...] = ()
) -> Assignment | None:
    """What the device makes of a plan beside these releases and decisions."""
    world = cohort.world
    view = world.view()
    releases = [verify_release(each.offer(), view=view, trust=world.trust) for each in shown]
    response = device_pb2.CheckInResponse(plan=cohort.offer(), decisions=[each.offer() for each in decided])
    return examine(
        session, CheckedIn(response, view, frozenset()), {release.release_id: release for release in releases}
    )


def given(session: Session, parent: Publication, *, task: str = "notes") -> None:
    """This device's contribution to a parent was taken, and became part of a sum."""
    sha256 = release_pb2.Release.FromString(parent.release).adapter_sha256
    session.store.contributions.add(
        contribution(task=task, parent_release=parent.release_id, parent_adapter_sha256=sha256, state=State.SENT)
    )


def restored(world: World, earlier: Publication, *, number: int = 2) -> Publication:
    """The adapter of an earlier release under a new number, as the coordinator restores it."""

    def edit(release: release_pb2.Release) -> None:
        release.restores = earlier.release_id

    return world.publish(number=number, parent=b"c" * 32, edit=edit)


def dropped(world: World, served: Publication, parent: Publication) -> Decided:
    """The decision that dropped a candidate and made a restored release the next parent."""
    return world.decide(served, number=3, kind=DecisionKind.SET_ASIDE, next_parent=parent)


def test_a_restored_parent_is_contributed_to_though_its_adapter_was_a_parent_before(
    session: Session, world: World
) -> None:
    first = world.publish()
    given(session, first)
    again = restored(world, first)
    cohort = world.open_cohort(parent=again)
    assignment = offered(session, cohort, first, again, decided=(dropped(world, first, again),))
    assert assignment.parent.release_id == again.release_id
    assert any("starts again from an earlier adapter (set aside: decided by a test)" in note for note in session.notes)


def test_once_to_each_name(session: Session, world: World) -> None:
    first = world.publish()
    again = restored(world, first)
    given(session, again)
    with pytest.raises(EquivocationError, match="second plan"):
        offered(session, world.open_cohort(parent=again), again, decided=(dropped(world, first, again),))


def test_the_same_adapter_under_another_name_without_saying_so_is_the_same_parent(
    session: Session, world: World
) -> None:
    first = world.publish()
    given(session, first)
    renamed = world.publish(number=2, parent=b"c" * 32)
    with pytest.raises(EquivocationError, match="two sums could be subtracted"):
        offered(session, world.open_cohort(parent=renamed), renamed, decided=(dropped(world, first, renamed),))


def test_without_a_logged_decision_nothing_is_restored(session: Session, world: World) -> None:
    first = world.publish()
    again = restored(world, first)
    other = world.decide(first, number=3)
    with pytest.raises(VerificationError, match="no logged decision says why"):
        offered(session, world.open_cohort(parent=again), again, decided=(other,))


def test_what_another_task_was_given_stays_given(session: Session, world: World) -> None:
    """Restoring in one task does not free the adapter for what another task got from it."""
    first = world.publish()
    given(session, first, task="mail")
    again = restored(world, first)
    with pytest.raises(EquivocationError, match="task 'mail'"):
        offered(session, world.open_cohort(parent=again), again, decided=(dropped(world, first, again),))


def test_after_a_lost_store_a_restored_parent_is_a_new_one_only_if_it_was_restored_since(
    session: Session, world: World
) -> None:
    session.store.database.put(lost_at=NOW_UNIX_S + 10)
    again = restored(world, world.publish())
    with pytest.raises(DeclinedError, match="store was lost"):
        offered(session, world.open_cohort(parent=again), again, decided=(dropped(world, again, again),))


def test_what_the_parent_is_compared_with_must_be_shown(session: Session, world: World) -> None:
    served, parent = world.publish(), world.publish(number=1, parent=b"p" * 32, edit=other_adapter)

    def compare(plan: plan_pb2.Plan) -> None:
        plan.served_release = served.release_id
        plan.encoding.metrics.extend(COMPARING)

    cohort = world.open_cohort(parent=parent, edit=compare)
    assert offered(session, cohort, served, parent).served.release_id == served.release_id
    with pytest.raises(VerificationError, match="compares its parent with release"):
        offered(session, cohort, parent)


def other_adapter(release: release_pb2.Release) -> None:
    release.adapter_sha256 = b"o" * 32
