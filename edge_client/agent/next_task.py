"""A plan that is declined is no reason to learn nothing: the next task in the order is asked for.

The coordinator serves its tasks in one order for all devices. Where the owner's limits, or what this device gave
before, stand against the task whose turn it is, the device says so and is offered the plan of the next.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

from edge_client.agent.check_in import CheckedIn, peek
from edge_client.agent.session import Session
from nightshift.protocol.errors import EquivocationError, MalformedError

if TYPE_CHECKING:
    from nightshift.v1 import device_pb2

MOST_TASKS = 64


def order_of_tasks(checked: CheckedIn) -> list[device_pb2.TaskTurn]:
    """The tasks of a check-in as the coordinator serves them, next first.

    Raises:
        MalformedError: more than can be meant, or a name that no task can have.
    """
    from nightshift.protocol.plan import MAX_TASK_CHARACTERS

    turns = list(checked.response.turns[: MOST_TASKS + 1])
    if len(turns) > MOST_TASKS:
        raise MalformedError(f"the check-in lists more than {MOST_TASKS} tasks; so many are not read")
    for turn in turns:
        if not (0 < len(turn.task) <= MAX_TASK_CHARACTERS and turn.task.isprintable()):
            raise MalformedError(f"the check-in names a task by other than 1 to {MAX_TASK_CHARACTERS} characters")
    return turns


def offered_task(checked: CheckedIn) -> str:
    """The task of an offered plan; only a look-up, nothing is proved of it."""
    from google.protobuf.message import DecodeError

    from nightshift.v1 import plan_pb2

    try:
        return plan_pb2.Plan.FromString(checked.response.plan.plan).task
    except DecodeError as error:
        raise MalformedError("a plan could not be read; its bytes are damaged") from error


def next_offer(session: Session, checked: CheckedIn, declined: Collection[str]) -> CheckedIn | None:
    """Ask for the plan of another task, where one waits.

    Args:
        session: of this pass.
        checked: the last check-in.
        declined: the tasks whose plans have been declined in this pass.

    Returns:
        A check-in with such a plan, or None.

    Raises:
        EquivocationError: the coordinator offers what was declined all the same.
        NightshiftError: as `check_in`.
    """
    if not any(turn.plan_waits and turn.task not in declined for turn in order_of_tasks(checked)):
        return None
    again = peek(session, without=sorted(declined))
    if not again.response.HasField("plan"):
        return None
    if offered_task(again) in declined:
        raise EquivocationError(
            f"the coordinator offers a plan of task {offered_task(again)!r} again, which was declined in this pass"
        )
    return again
