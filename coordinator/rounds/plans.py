"""Opening a round: how many cohorts, a plan for each, and every device's place in one of them.

All of it is one transaction: after a crash there is the whole round or nothing.
Each cohort draws a committee of its own from a pool of its own, the devices that
still have a prekey when its turn comes; a device may sit on several committees
of a round, with another prekey on each, but contributes to one cohort.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from functools import partial

from sqlalchemy import func, insert, select
from sqlalchemy.orm import Session

from coordinator.deployment import Deployment
from coordinator.releases.publication import newest_release
from coordinator.rounds import assignment
from coordinator.rounds.cohort_plans import Deadlines, open_cohort
from coordinator.rounds.pool import PoolEntry, able_to_contribute, pool
from coordinator.rounds.rounds import running
from coordinator.rounds.standing import judge
from coordinator.rounds.states import ROUND_INITIAL
from coordinator.rounds.task_settings import TaskSettings
from coordinator.storage.rows import AssignmentRow, Cohort, ReleaseRow, Round, Task, TaskState
from nightshift.protocol.errors import DeclinedError
from nightshift.protocol.identity import DeviceId


def open_round(
    session: Session,
    deployment: Deployment,
    task: Task,
    now_unix_s: int,
    *,
    apart: Sequence[Collection[DeviceId]] = (),
) -> Round:
    """Open the next round of a task, in the session's transaction.

    Args:
        session: a transaction.
        deployment: whose log and key.
        task: what is learned.
        now_unix_s: when.
        apart: groups of devices of which each is to be spread over different cohorts, beside those that earlier
            rounds make suspects (`coordinator.rounds.suspects`).

    Raises:
        DeclinedError: not now; the message says what is missing.
    """
    settings = TaskSettings.model_validate_json(task.settings)
    parent = newest_release(session, task.name)
    _require_room(session, task, settings, parent)
    deadlines = Deadlines.of(settings, now_unix_s)
    candidates = partial(pool, session, now_unix_s=now_unix_s, answer_deadline_unix_s=deadlines.answer_unix_s)
    _require_pool(task, settings, candidates())  # most attempts end here, before the history is read
    suspicion = judge(session, now_unix_s)
    apart = [*suspicion.groups, *apart]
    candidates = partial(candidates, without=suspicion.doubtful)
    entries = candidates()
    _require_pool(task, settings, entries)
    able = able_to_contribute(session, entries, parent.release_id, now_unix_s)
    _require_contributors(task, settings, parent, able=len(able), pool_size=len(entries))
    opened = Round(
        task=task.name,
        number=_next_number(session, task),
        state=ROUND_INITIAL,
        parent_release=parent.release_id,
        opened_unix_s=now_unix_s,
    )
    session.add(opened)
    session.flush()
    wanted = assignment.cohort_count(
        len(able), wanted=settings.rounds.cohorts, n_min=settings.cohort.n_min, n_max=settings.cohort.n_max, apart=apart
    )
    cohorts: list[Cohort] = []
    while len(cohorts) < wanted and len(entries) >= settings.cohort.pool_needed:
        cohorts.append(
            open_cohort(
                session,
                deployment,
                task,
                settings,
                round_number=opened.number,
                parent=parent,
                entries=entries,
                deadlines=deadlines,
                now_unix_s=now_unix_s,
            )
        )
        if len(cohorts) < wanted:
            # Committees spend prekeys: where too few are left, the round has fewer cohorts.
            entries = candidates()
    opened.seed = assignment.round_seed(cohort.plan_hash for cohort in cohorts)
    _assign(session, opened, cohorts, able, apart)
    return opened


def _assign(
    session: Session,
    opened: Round,
    cohorts: Sequence[Cohort],
    able: Sequence[DeviceId],
    apart: Sequence[Collection[DeviceId]],
) -> None:
    dealt = assignment.deal(able, cohorts=len(cohorts), seed=opened.seed, apart=apart)
    rows = [
        {
            "task": opened.task,
            "round_number": opened.number,
            "device_id": device,
            "cohort_id": cohorts[place].cohort_id,
        }
        for device, place in dealt.items()
    ]
    session.execute(insert(AssignmentRow), rows)


def _require_room(session: Session, task: Task, settings: TaskSettings, parent: ReleaseRow) -> None:
    if task.state is TaskState.PAUSED:
        raise DeclinedError(f"task {task.name} is paused; `coordinator task pause {task.name} --resume` lifts it")
    if settings.rounds.total and parent.number >= settings.rounds.total:
        raise DeclinedError(f"task {task.name} has all its {settings.rounds.total} releases; it opens no more rounds")
    open_one = next((found for found in running(session) if found.task == task.name), None)
    if open_one is not None:
        raise DeclinedError(
            f"round {open_one.number} of task {task.name} is still running; it must end first "
            f"(`coordinator round show {task.name}/{open_one.number}`)"
        )


def _require_pool(task: Task, settings: TaskSettings, entries: Sequence[PoolEntry]) -> None:
    needed = settings.cohort.pool_needed
    if len(entries) < needed:
        raise DeclinedError(
            f"no round for task {task.name}: {len(entries)} devices were seen in the last 48 h and hold a prekey "
            f"that outlives the round, {needed} are needed; let more devices check in"
        )


def _require_contributors(task: Task, settings: TaskSettings, parent: ReleaseRow, *, able: int, pool_size: int) -> None:
    if able < settings.cohort.n_min:
        raise DeclinedError(
            f"no round for task {task.name}: of {pool_size} devices only {able} may still contribute to release "
            f"{parent.number}, n_min is {settings.cohort.n_min}; the others wait until the void cohort that they "
            "contributed to is laid to rest: its members state that their keys are gone, or the keys expire"
        )


def _next_number(session: Session, task: Task) -> int:
    last = session.scalar(select(func.max(Round.number)).where(Round.task == task.name))
    return (last or 0) + 1
