"""Opening a round: how many cohorts, a plan for each, and every device's place in one of them.

All of it is one transaction: after a crash there is the whole round or nothing.
Each cohort draws a committee of its own from a pool of its own, the devices that
still have a prekey when its turn comes; a device may sit on several committees
of a round, with another prekey on each, but contributes to one cohort. Devices of
different strength train different numbers of rank slots, in cohorts of their own
(`coordinator.rounds.rank_classes`).
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from functools import partial

from sqlalchemy import func, insert, select
from sqlalchemy.orm import Session

from coordinator.deployment import Deployment
from coordinator.releases.publication import newest_release
from coordinator.rounds import assignment, rank_classes
from coordinator.rounds.cohort_plans import Deadlines, open_cohort
from coordinator.rounds.pool import PoolEntry, able_to_contribute, pool
from coordinator.rounds.rank_classes import RankClass
from coordinator.rounds.rounds import running
from coordinator.rounds.standing import judge
from coordinator.rounds.states import ROUND
from coordinator.rounds.task_settings import TaskSettings
from coordinator.storage.rows import AssignmentRow, Cohort, ReleaseRow, Round, Task, TaskState
from nightshift.protocol.errors import DeclinedError
from nightshift.protocol.identity import DeviceId
from nightshift.protocol.secagg.parameters import MIN_COMMITTEE


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
    classes = _classes(settings, parent, entries, able)
    if not classes:
        raise DeclinedError(_too_few(task, settings, parent, entries, able))
    opened = Round(
        task=task.name,
        number=_next_number(session, task),
        state=ROUND.initial,
        parent_release=parent.release_id,
        opened_unix_s=now_unix_s,
    )
    session.add(opened)
    session.flush()
    cohorts: list[Cohort] = []
    for trained_rank in _ranks_of_cohorts(settings, classes, apart):
        if cohorts:
            # Committees spend prekeys: where too few are left, the round has fewer cohorts.
            entries = candidates()
            if len(entries) < settings.cohort.pool_needed or len(_seatable(settings, entries)) < MIN_COMMITTEE:
                break
        cohorts.append(
            open_cohort(
                session,
                deployment,
                task,
                settings,
                round_number=opened.number,
                trained_rank=trained_rank,
                parent=parent,
                entries=_seatable(settings, entries),
                deadlines=deadlines,
                now_unix_s=now_unix_s,
            )
        )
    opened.seed = assignment.round_seed(cohort.plan_hash for cohort in cohorts)
    _assign(session, opened, cohorts, classes, apart)
    return opened


def _classes(
    settings: TaskSettings, parent: ReleaseRow, entries: Sequence[PoolEntry], able: Sequence[DeviceId]
) -> tuple[RankClass, ...]:
    limits = {DeviceId(entry.device.device_id): entry.device.rank_limit for entry in entries}
    return rank_classes.divide(
        {device: limits[device] for device in able},
        ranks=settings.adapter.trained_ranks,
        n_min=settings.cohort.n_min,
        seed=parent.release_id,
    )


def _ranks_of_cohorts(
    settings: TaskSettings, classes: Sequence[RankClass], apart: Sequence[Collection[DeviceId]]
) -> list[int]:
    """What each cohort of the round trains: first one of each class, the lowest before all, then the others."""
    counts = assignment.cohort_counts(
        [each.devices for each in classes],
        wanted=settings.rounds.cohorts,
        n_min=settings.cohort.n_min,
        n_max=settings.cohort.n_max,
        apart=apart,
    )
    more = [each.rank for each, count in zip(classes, counts, strict=True) for _ in range(count - 1)]
    return [each.rank for each in classes] + more


def _assign(
    session: Session,
    opened: Round,
    cohorts: Sequence[Cohort],
    classes: Sequence[RankClass],
    apart: Sequence[Collection[DeviceId]],
) -> None:
    rows = []
    for each in rank_classes.fall(classes, {cohort.trained_rank for cohort in cohorts}):
        own = [cohort.cohort_id for cohort in cohorts if cohort.trained_rank == each.rank]
        dealt = assignment.deal(each.devices, cohorts=len(own), seed=opened.seed, apart=apart)
        rows += [
            {"task": opened.task, "round_number": opened.number, "device_id": device, "cohort_id": own[place]}
            for device, place in dealt.items()
        ]
    session.execute(insert(AssignmentRow), rows)


def _require_room(session: Session, task: Task, settings: TaskSettings, parent: ReleaseRow) -> None:
    if task.state is TaskState.PAUSED:
        raise DeclinedError(f"task {task.name} is paused; `coordinator task resume {task.name}` lifts it")
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
    seatable = _seatable(settings, entries)
    if len(seatable) < MIN_COMMITTEE:
        raise DeclinedError(
            f"no round for task {task.name}: {len(seatable)} of the {len(settings.cohort.seatable)} devices of "
            f"cohort.committee_from are in the pool, {MIN_COMMITTEE} are needed; let them check in"
        )


def _seatable(settings: TaskSettings, entries: Sequence[PoolEntry]) -> Sequence[PoolEntry]:
    """The devices of a pool from which committees may be drawn.

    A pool is the coordinator's word in any case; drawing from fewer of its devices gives it no choice that it
    lacked. Among them the draw decides, and owners who pinned some of them find them seated.
    """
    wanted = settings.cohort.seatable
    return [entry for entry in entries if entry.device.device_id in wanted] if wanted else entries


def _too_few(
    task: Task, settings: TaskSettings, parent: ReleaseRow, entries: Sequence[PoolEntry], able: Sequence[DeviceId]
) -> str:
    """Why no cohort can be filled, for the operator."""
    n_min, smallest = settings.cohort.n_min, settings.adapter.trained_ranks[0]
    weak = sum(0 < entry.device.rank_limit < smallest for entry in entries)
    reason = (
        f"no round for task {task.name}: of {len(entries)} devices only {len(able)} may still contribute to release "
        f"{parent.number}, n_min is {n_min}; the others wait until the void cohort that they "
        "contributed to is laid to rest: its members state that their keys are gone, or the keys expire"
    )
    if len(able) >= n_min:
        reason = (
            f"no round for task {task.name}: of {len(able)} devices that may contribute fewer than n_min = {n_min} can "
            f"train {smallest} rank slots, the fewest that its cohorts train"
        )
    if weak:
        reason += f"; {weak} devices train fewer than {smallest} rank slots: [adapter] ranks of a task can name less"
    return reason


def _next_number(session: Session, task: Task) -> int:
    last = session.scalar(select(func.max(Round.number)).where(Round.task == task.name))
    return (last or 0) + 1
