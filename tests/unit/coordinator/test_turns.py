"""Several tasks: one order for all devices, in which no task is for ever behind another."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import select

from coordinator.deployment import Deployment
from coordinator.rounds import turns
from coordinator.rounds.advance import advance
from coordinator.rounds.plans import open_round
from coordinator.rounds.task_settings import TaskSettings
from coordinator.rounds.tasks import create_task, set_paused
from coordinator.storage.rows import Cohort, CohortState, Round, Task
from nightshift.host.clock import now_unix_s
from nightshift.protocol.errors import MalformedError
from tests.support.coordinators import TASK, make_task
from tests.support.scripted_device import ScriptedDevice

Join = Callable[[], ScriptedDevice]
Clock = Callable[[float], None]
OTHER = "an-other"
DEVICES = 3
AUTOMATIC = {"upload_window_s": 600, "answer_window_s": 600, "cohorts": 1, "open": "automatic"}


@pytest.fixture
def two_tasks(served: Deployment, package: Path) -> Deployment:
    """Two tasks on one model; the one whose name comes later is the older one."""
    task = make_task(served, package)
    with served.database.transaction() as session:
        session.get_one(Task, TASK).created_unix_s -= 100
        settings = TaskSettings.model_validate_json(task.settings).model_copy(update={"name": OTHER})
        create_task(session, served, settings, now_unix_s())
    return served


def order(deployment: Deployment) -> list[str]:
    with deployment.database.reading() as session:
        return [task.name for task in turns.in_order(session)]


def served_at(deployment: Deployment, **moments: int) -> None:
    with deployment.database.transaction() as session:
        for name, moment in moments.items():
            session.get_one(Task, name.replace("_", "-")).served_unix_s = moment


def test_the_oldest_comes_first_and_then_the_least_recently_served(two_tasks: Deployment) -> None:
    assert order(two_tasks) == [TASK, OTHER]
    served_at(two_tasks, commands=5_000)
    assert order(two_tasks) == [OTHER, TASK]
    served_at(two_tasks, an_other=6_000)
    assert order(two_tasks) == [TASK, OTHER]


def test_a_paused_task_has_no_turn(two_tasks: Deployment) -> None:
    with two_tasks.database.transaction() as session:
        set_paused(session, TASK, paused=True)
    assert order(two_tasks) == [OTHER]


class Night:
    """Three devices and a round of each task."""

    def __init__(self, deployment: Deployment, join: Join) -> None:
        self.deployment = deployment
        self.devices = [join() for _ in range(DEVICES)]
        for device in self.devices:
            device.check_in(new_prekeys=4)
        with deployment.database.transaction() as session:
            for name in (OTHER, TASK):
                open_round(session, deployment, session.get_one(Task, name), now_unix_s())

    def offered(self, number: int, **wishes: object) -> str | None:
        """The task whose plan a device is offered."""
        plan = self.devices[number].check_in(**wishes).plan  # type: ignore[arg-type]  # keywords of many types
        return None if plan is None else plan.document.task

    def contribute(self, number: int) -> str:
        import numpy as np

        device = self.devices[number]
        plan = device.check_in().plan
        assert plan is not None
        delta = np.full(plan.document.vector.delta_length, 0.01, np.float32)
        assert device.upload(device.prepare(plan, delta)).complete
        return plan.document.task


@pytest.fixture
def night(two_tasks: Deployment, join: Join) -> Night:
    return Night(two_tasks, join)


def test_all_devices_are_offered_the_same_task_first(night: Night) -> None:
    assert [night.offered(number) for number in range(DEVICES)] == [TASK] * DEVICES
    assert night.contribute(0) == TASK
    # One pass later the next task has its turn; the others still give to the first.
    assert night.offered(0) == OTHER
    assert night.offered(1) == TASK


def test_a_device_sees_the_order_and_what_waits_for_it(night: Night) -> None:
    night.contribute(0)
    served_at(night.deployment, an_other=4_000)
    reply = night.devices[0].check_in().reply
    assert [(turn.task, turn.served_unix_s, turn.plan_waits) for turn in reply.turns] == [
        (TASK, 0, False),
        (OTHER, 4_000, True),
    ]


def test_a_task_that_an_owner_declines_is_not_in_the_way_of_the_next(night: Night) -> None:
    assert night.offered(0, without_tasks=[TASK]) == OTHER
    assert night.offered(0, without_tasks=[TASK, OTHER]) is None
    with pytest.raises(MalformedError, match="65 tasks are declined"):
        night.offered(0, without_tasks=[f"t{number}" for number in range(65)])


def test_a_task_whose_set_froze_has_been_served(night: Night, clock: Clock) -> None:
    for number in range(DEVICES):
        assert night.contribute(number) == TASK
    clock(700)
    advance(night.deployment)
    # The other one starved behind it: it keeps its place, and so is first in the next night.
    with night.deployment.database.reading() as session:
        assert session.get_one(Task, TASK).served_unix_s is not None
        assert session.get_one(Task, OTHER).served_unix_s is None
    assert order(night.deployment) == [OTHER, TASK]


def test_a_task_that_starved_in_its_own_turn_goes_to_the_end(night: Night, clock: Clock) -> None:
    """Else one that never fills up would be first for ever, and devices that wake once a night learn nothing else."""
    assert night.contribute(0) == TASK
    clock(700)
    advance(night.deployment)
    with night.deployment.database.reading() as session:
        assert session.get_one(Task, TASK).served_unix_s is not None
        assert session.get_one(Task, OTHER).served_unix_s is None
    assert order(night.deployment) == [OTHER, TASK]


@pytest.mark.parametrize("first_to_end", [TASK, OTHER])
def test_what_counts_as_a_turn_does_not_hang_on_which_of_two_ends_is_noted_first(
    two_tasks: Deployment, join: Join, first_to_end: str
) -> None:
    night = Night(two_tasks, join)
    with two_tasks.database.transaction() as session:
        cohorts = {cohort.task: cohort for cohort in session.scalars(select(Cohort))}
        for name in (first_to_end, *({TASK, OTHER} - {first_to_end})):
            cohorts[name].state = CohortState.VOID
            session.flush()
            turns.starved(session, cohorts[name], now_unix_s() + 700)
    assert order(night.deployment) == [OTHER, TASK]
    with two_tasks.database.reading() as session:
        assert session.get_one(Task, OTHER).served_unix_s is None


def test_rounds_open_by_themselves_in_the_same_order(two_tasks: Deployment, join: Join) -> None:
    """Each device holds one prekey: there is a committee for one round only, and the next task gets it."""
    with two_tasks.database.transaction() as session:
        for task in session.scalars(select(Task)):
            settings = TaskSettings.model_validate_json(task.settings)
            rounds = settings.rounds.model_copy(update=AUTOMATIC)
            task.settings = settings.model_copy(update={"rounds": rounds}).model_dump_json()
    served_at(two_tasks, commands=5_000)
    for device in [join() for _ in range(DEVICES)]:
        device.check_in(new_prekeys=1)
    advance(two_tasks)
    with two_tasks.database.reading() as session:
        assert list(session.scalars(select(Round.task))) == [OTHER]
