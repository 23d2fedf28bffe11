"""Whose turn it is: several tasks on one coordinator, served in one order that everybody can see.

A device has one night and gives it to one task. So the order in which tasks are offered decides what
is learned, and it must be the same for all devices: if each took another task first, none would reach its n_min.

The task that was served least recently comes first; a task that never was comes before all others, the oldest
first. Rounds that open by themselves are opened in the same order, since each spends the members' prekeys.

A task has been served when a set of it froze: its devices gave it a night. It has also been served when a
cohort of it ended for want of contributions while it was first: then it had its turn and could not use
it. Without this rule a task that never fills up would be first for ever. A task that starved behind
another keeps its place, and so comes first next time.

`coordinator task list` shows the order, and each check-in tells it to the device.
"""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import or_, select
from sqlalchemy.orm import Session

from coordinator.storage.rows import Cohort, CohortState, Round, RoundState, Task, TaskState


def in_order(session: Session) -> Sequence[Task]:
    """The tasks that are due: active ones, and paused ones whose last round still runs; whoever is next comes first."""
    running = select(Round.task).where(Round.state == RoundState.RUNNING)
    rows = select(Task).where(or_(Task.state == TaskState.ACTIVE, Task.name.in_(running)))
    return sorted(session.scalars(rows), key=_rank)


def froze(session: Session, cohort: Cohort, now_unix_s: int) -> None:
    """A set of the cohort's task froze, in the session's transaction: the task has been served."""
    session.get_one(Task, cohort.task).served_unix_s = now_unix_s


def starved(session: Session, cohort: Cohort, now_unix_s: int) -> None:
    """A cohort ended for want of contributions, in the session's transaction: if its task was first, that was its turn.

    It was not first where another task was served while the cohort was open, or stands before it and is still open.
    """
    open_ = select(Cohort.task).where(Cohort.state == CohortState.OPEN)
    mine = session.get_one(Task, cohort.task)
    others = session.scalars(
        select(Task).where(
            Task.name != mine.name, or_(Task.name.in_(open_), Task.served_unix_s >= cohort.created_unix_s)
        )
    )
    if not any((other.served_unix_s or 0) >= cohort.created_unix_s or _rank(other) < _rank(mine) for other in others):
        mine.served_unix_s = now_unix_s


def _rank(task: Task) -> tuple[int, int, str]:
    return (task.served_unix_s or 0, task.created_unix_s, task.name)
