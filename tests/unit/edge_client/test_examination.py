"""Whether to take part: one plan a cohort, one contribution a parent, and nothing that only looks like a plan."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from edge_client.agent.check_in import CheckedIn
from edge_client.agent.examination import Assignment, examine
from edge_client.agent.session import Session
from edge_client.configuration import Configuration
from edge_client.store.contributions import State, StoredContribution
from nightshift.host import clock
from nightshift.protocol.errors import (
    DeclinedError,
    EquivocationError,
    SignatureInvalidError,
    StateConflictError,
    VerificationError,
)
from nightshift.protocol.release import verify_release
from nightshift.v1 import device_pb2, plan_pb2, release_pb2
from tests.support.authority import DAY_S, NOW_UNIX_S
from tests.support.contributions import contribution
from tests.support.plans import Cohort, Publication, World
from tests.support.scripted_coordinator import ScriptedCoordinator, agent_of


@pytest.fixture(autouse=True)
def _clock_of_the_world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(clock.ENVIRONMENT_VARIABLE, str(tmp_path / "clock"))
    set_clock(tmp_path, NOW_UNIX_S)


def set_clock(directory: Path, unix_s: int) -> None:
    (directory / "clock").write_text(str(unix_s - time.time()), "ascii")


@pytest.fixture
def world() -> World:
    return World.make(devices=3)


@pytest.fixture
def session(world: World, tmp_path: Path) -> Iterator[Session]:
    with agent_of(world, world.devices[0], tmp_path, ScriptedCoordinator()) as session:
        yield session


def offered(
    session: Session,
    cohort: Cohort,
    *parents: Publication,
    edit: Callable[[device_pb2.PlanOffer], object] | None = None,
) -> Assignment | None:
    """What the device makes of a cohort's plan beside these releases."""
    world = cohort.world
    view = world.view()
    offer = cohort.offer()
    if edit is not None:
        edit(offer)
    releases = [verify_release(parent.offer(), view=view, trust=world.trust) for parent in parents]
    checked = CheckedIn(device_pb2.CheckInResponse(plan=offer), view, frozenset())
    return examine(session, checked, {release.release_id: release for release in releases})


def journal(session: Session, cohort: Cohort, parent: Publication, **changes: object) -> StoredContribution:
    """A contribution to a cohort, in the journal."""
    release = verify_release(parent.offer(), view=cohort.world.view(), trust=cohort.world.trust)
    made = contribution(
        cohort_id=cohort.message.cohort_id,
        plan_hash=cohort.plan_hash,
        task="notes",
        parent_release=parent.release_id,
        parent_adapter_sha256=release.document.adapter_sha256,
        latest_prekey_expiry_unix_s=NOW_UNIX_S + DAY_S,
    )
    made = replace(made, **changes)  # type: ignore[arg-type]  # keywords of many types, checked at run time
    session.store.contributions.add(made)
    return made


def test_an_honest_plan_becomes_an_assignment(session: Session, world: World) -> None:
    parent = world.publish()
    cohort = world.open_cohort(parent=parent)
    assignment = offered(session, cohort, parent)
    assert assignment.plan.plan_hash == cohort.plan_hash
    assert assignment.parent.release_id == parent.release_id
    # This device sits on the committee of three: its key now answers for this plan only.
    own = session.store.prekeys.find(world.devices[0].prekey.public)
    assert own.bound_plan_hash == cohort.plan_hash


@pytest.mark.parametrize(("limit", "taken"), [(0, True), (1, False), (2, True), (3, True)])
def test_no_plan_trains_more_rank_slots_than_the_machine_should(
    world: World, tmp_path: Path, limit: int, taken: bool
) -> None:
    """The world's plans train both slots of an adapter of rank 2."""
    wanted = {"policy": {"minimum_cohort": 3}, "training": {"rank": limit}}
    configuration = Configuration.model_validate(wanted)
    parent = world.publish()
    cohort = world.open_cohort(parent=parent)
    with agent_of(world, world.devices[0], tmp_path, ScriptedCoordinator(), configuration) as session:
        if taken:
            assert offered(session, cohort, parent) is not None
        else:
            with pytest.raises(DeclinedError, match=r"trains 2 rank slots, this machine trains at most 1"):
                offered(session, cohort, parent)


def test_a_plan_of_fewer_slots_suits_a_small_machine(world: World, tmp_path: Path) -> None:
    def narrow(plan: plan_pb2.Plan) -> None:
        plan.trained_rank, plan.encoding.delta_length = 1, 8

    configuration = Configuration.model_validate({"policy": {"minimum_cohort": 3}, "training": {"rank": 1}})
    parent = world.publish()
    cohort = world.open_cohort(parent=parent, edit=narrow)
    with agent_of(world, world.devices[0], tmp_path, ScriptedCoordinator(), configuration) as session:
        assignment = offered(session, cohort, parent)
    assert assignment is not None
    slots = assignment.plan.document.slots
    assert (slots.rank, slots.length, slots.narrow.scale) == (1, 8, slots.layout.scale)


def test_a_plan_changed_by_one_byte_is_refused(session: Session, world: World) -> None:
    parent = world.publish()
    cohort = world.open_cohort(parent=parent)

    def flip(offer: device_pb2.PlanOffer) -> None:
        changed = bytearray(offer.plan)
        changed[40] ^= 1
        offer.plan = bytes(changed)

    with pytest.raises(SignatureInvalidError) as caught:
        offered(session, cohort, parent, edit=flip)
    assert caught.value.exit_code == 14


def test_two_plans_for_one_cohort_are_an_equivocation(session: Session, world: World) -> None:
    parent = world.publish()
    first = world.open_cohort(parent=parent)
    offered(session, first, parent)
    cohort_id = first.message.cohort_id
    pool = sorted(device.device_id for device in world.devices)
    pool_index = world.log_pool(cohort_id, pool)
    second = world.commit(world.draft(parent, cohort_id, pool), pool_index)
    with pytest.raises(EquivocationError, match="two different plans"):
        offered(session, second, parent)


def test_a_plan_without_its_parent_is_refused(session: Session, world: World) -> None:
    parent, other = world.publish(), world.publish(task="other")
    with pytest.raises(VerificationError, match="did not show"):
        offered(session, world.open_cohort(parent=parent), other)


def other_base(release: release_pb2.Release) -> None:
    release.base_model = bytes(32)


def other_rank(release: release_pb2.Release) -> None:
    release.layout.rank = 1


def other_task(release: release_pb2.Release) -> None:
    release.task = "mail"


@pytest.mark.parametrize(
    ("edit", "what"), [(other_base, "base model"), (other_rank, "adapter layout"), (other_task, "task")]
)
def test_a_parent_that_contradicts_the_plan_is_refused(
    session: Session, world: World, edit: Callable[[release_pb2.Release], object], what: str
) -> None:
    parent = world.publish(edit=edit)
    with pytest.raises(VerificationError, match=f"the plan's {what} is not that of its parent release"):
        offered(session, world.open_cohort(parent=parent), parent)


def test_the_same_plan_again_is_nothing_to_do(session: Session, world: World) -> None:
    parent = world.publish()
    cohort = world.open_cohort(parent=parent)
    journal(session, cohort, parent, state=State.SENT)
    assert offered(session, cohort, parent) is None


@pytest.fixture
def two_plans(session: Session, world: World) -> tuple[Cohort, Cohort, Publication]:
    """Two cohorts of one parent; this device has no key in their committees, so that only the parent is in question."""
    parent = world.publish()
    first = world.open_cohort(parent=parent)
    with session.store.database.transaction() as connection:
        connection.execute("DELETE FROM prekeys")
    return first, world.open_cohort(parent=parent), parent


@pytest.mark.parametrize("state", [State.SENT, State.SENDING, State.PREPARED])
def test_a_second_plan_for_the_same_parent_is_an_equivocation(
    session: Session, two_plans: tuple[Cohort, Cohort, Publication], state: State
) -> None:
    first, second, parent = two_plans
    journal(session, first, parent, state=state)
    with pytest.raises(EquivocationError, match="two sums could be subtracted") as caught:
        offered(session, second, parent)
    assert caught.value.exit_code == 14


def test_the_same_adapter_under_a_new_release_is_the_same_parent(
    session: Session, two_plans: tuple[Cohort, Cohort, Publication], world: World
) -> None:
    first, _, parent = two_plans
    journal(session, first, parent, state=State.SENT)
    again = world.publish(number=1, parent=parent.release_id)
    with pytest.raises(EquivocationError, match="two sums could be subtracted"):
        offered(session, world.open_cohort(parent=again), again)


def test_another_adapter_is_another_parent(
    session: Session, two_plans: tuple[Cohort, Cohort, Publication], world: World
) -> None:
    first, _, parent = two_plans
    journal(session, first, parent, state=State.SENT)

    def newer(release: release_pb2.Release) -> None:
        release.adapter_sha256 = b"n" * 32

    release = world.publish(number=1, parent=parent.release_id, edit=newer)
    assert offered(session, world.open_cohort(parent=release), release) is not None


def test_after_a_logged_void_the_device_waits_for_the_last_key_and_then_takes_part(
    session: Session, two_plans: tuple[Cohort, Cohort, Publication], tmp_path: Path
) -> None:
    first, second, parent = two_plans
    journal(session, first, parent, state=State.VOID, latest_prekey_expiry_unix_s=NOW_UNIX_S + 600)
    with pytest.raises(DeclinedError, match="again only when nobody can open it") as caught:
        offered(session, second, parent)
    assert caught.value.exit_code == 4
    set_clock(tmp_path, NOW_UNIX_S + 660)
    assert offered(session, second, parent) is not None


def test_after_a_void_that_was_laid_to_rest_it_takes_part_at_once(
    session: Session, two_plans: tuple[Cohort, Cohort, Publication]
) -> None:
    first, second, parent = two_plans
    journal(session, first, parent, state=State.VOID, latest_prekey_expiry_unix_s=NOW_UNIX_S + 600)
    session.store.contributions.lay_to_rest(first.message.cohort_id, NOW_UNIX_S)
    assert offered(session, second, parent) is not None


def test_what_left_but_was_not_taken_counts_as_given(
    session: Session, two_plans: tuple[Cohort, Cohort, Publication]
) -> None:
    first, second, parent = two_plans
    journal(session, first, parent, state=State.LATE)
    with pytest.raises(DeclinedError, match="waits for the next release"):
        offered(session, second, parent)


def test_after_a_lost_store_an_older_parent_is_left_alone(session: Session, world: World) -> None:
    parent = world.publish()
    session.store.database.put(lost_at=NOW_UNIX_S)
    with pytest.raises(DeclinedError, match="lost and rebuilt"):
        offered(session, world.open_cohort(parent=parent), parent)
    session.store.database.put(lost_at=NOW_UNIX_S - 1)
    with session.store.database.transaction() as connection:
        connection.execute("DELETE FROM prekeys")
    assert offered(session, world.open_cohort(parent=parent), parent) is not None


def test_a_plan_below_the_owners_minimum_is_declined(world: World, tmp_path: Path) -> None:
    from edge_client.configuration import Configuration

    parent = world.publish()
    cohort = world.open_cohort(parent=parent)
    owner = Configuration.model_validate({"policy": {"minimum_cohort": 4}})
    with (
        agent_of(world, world.devices[0], tmp_path, ScriptedCoordinator(), owner) as session,
        pytest.raises(DeclinedError, match=r"policy\.minimum_cohort") as caught,
    ):
        offered(session, cohort, parent)
    assert caught.value.exit_code == 4


def test_a_plan_whose_uploads_have_ended_is_not_begun(session: Session, world: World, tmp_path: Path) -> None:
    parent = world.publish()
    cohort = world.open_cohort(parent=parent)
    set_clock(tmp_path, cohort.message.latest_upload_deadline_unix_s + 60)
    with pytest.raises(StateConflictError, match="uploads have ended"):
        offered(session, cohort, parent)
