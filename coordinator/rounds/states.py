"""The lives of a task, of its rounds and of their cohorts, as tables.

A task is what is learned, for as long as it is wanted: its rounds follow one another, each from what the one before
left. While it is **active** the next round opens as soon as the last has ended and enough devices are there, or when
the operator says so; while it is **paused** no round opens, and one that runs ends as planned.

A round is one night's learning of one task: one or more cohorts that start from
the same parent release. A cohort is one plan and everything that happens under it.

* **open**: its plan is signed and logged; devices upload. Each upload that
  passes its checks is *counted*: folded into the running sum, which is what
  being a part of the set U means. When the upload deadline passes with fewer
  than n_min counted and the plan allows an extension, it is *extended*.
* **frozen**: U is fixed for good. Its hash is logged, and committee members
  fetch their bundles and answer, in any order, at any later contact. The T-th
  answer opens the sum; if the residual check refuses it, further answers are
  waited for. A member that cannot use a contributor's share says so instead of answering;
  it weighs as much as one that is silent.
* **opened**: the sum is durable. The end; what comes of it is the round's matter.
* **void**: the cohort ended without a sum; the reason is logged. The end.
  Nothing of it can be opened later: uploads are erased.

A round is **running** as long as one of its cohorts is. When all are final, the
sums of the opened ones are added in the clear (each is already an aggregate) and
become one release: it is **published**. A round none of whose cohorts opened is **void**.

Two rules hold everywhere. A transition is one database transaction, together
with the log entry that announces it, and is committed before anybody is told;
so a coordinator that is killed at any instruction finds itself in a state of
these tables and goes on from there. And `opened`, `published` and `void` are final:
no event leads out of them, whatever message arrives late.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import Generic, TypeVar

from coordinator.storage.rows import CohortState, RoundState, TaskState
from nightshift.protocol.errors import StateConflictError

StateT = TypeVar("StateT", bound=StrEnum)
EventT = TypeVar("EventT", bound=StrEnum)


@dataclass(frozen=True, slots=True)
class Machine(Generic[StateT, EventT]):
    """One table.

    Attributes:
        what: whose life it is.
        initial: the state in which it begins.
        transitions: (state, event) to the state that the event leads to; what is not there is refused.
        meaning: each event in words.
    """

    what: str
    initial: StateT
    transitions: Mapping[tuple[StateT, EventT], StateT]
    meaning: Mapping[EventT, str]

    @property
    def final(self) -> frozenset[StateT]:
        """States that no event leads out of."""
        return frozenset(self.transitions.values()) - {start for start, _ in self.transitions}

    def next(self, state: StateT, event: EventT) -> StateT:
        """The state that an event leads to.

        Raises:
            StateConflictError: the event has no place in this state.
        """
        try:
            return self.transitions[state, event]
        except KeyError:
            raise StateConflictError(f"a {self.what} that is {state.value} allows no {event.value!r}") from None

    def mermaid(self) -> str:
        """The table as a Mermaid state diagram."""
        lines = ["stateDiagram-v2", f"    [*] --> {self.initial}"]
        lines += [f"    {start} --> {end}: {event}" for (start, event), end in self.transitions.items()]
        lines += [f"    {state} --> [*]" for state in sorted(self.final)]
        return "\n".join(lines) + "\n"

    def markdown(self) -> str:
        """A section of the page: the picture, and what each event means."""
        rows = "".join(f"| {event.value} | {means} |\n" for event, means in self.meaning.items())
        return (
            f"## {self.what.capitalize()}\n\n```mermaid\n{self.mermaid()}```\n\n| event | meaning |\n|---|---|\n{rows}"
        )


class TaskEvent(StrEnum):
    """What can happen to a task."""

    PAUSE = "pause"
    RESUME = "resume"


TASK = Machine(
    "task",
    TaskState.ACTIVE,
    MappingProxyType(
        {
            (TaskState.ACTIVE, TaskEvent.PAUSE): TaskState.PAUSED,
            (TaskState.ACTIVE, TaskEvent.RESUME): TaskState.ACTIVE,
            (TaskState.PAUSED, TaskEvent.PAUSE): TaskState.PAUSED,
            (TaskState.PAUSED, TaskEvent.RESUME): TaskState.ACTIVE,
        }
    ),
    MappingProxyType(
        {
            TaskEvent.PAUSE: "the operator lets no new round open",
            TaskEvent.RESUME: "the operator lets rounds open again",
        }
    ),
)


class RoundEvent(StrEnum):
    """What can happen to a round. All of it when its last cohort has ended."""

    PUBLISH = "publish"
    FAIL = "fail"
    DISCARD = "discard"


ROUND = Machine(
    "round",
    RoundState.RUNNING,
    MappingProxyType(
        {
            (RoundState.RUNNING, RoundEvent.PUBLISH): RoundState.PUBLISHED,
            (RoundState.RUNNING, RoundEvent.FAIL): RoundState.VOID,
            (RoundState.RUNNING, RoundEvent.DISCARD): RoundState.VOID,
        }
    ),
    MappingProxyType(
        {
            RoundEvent.PUBLISH: "the sums of the opened cohorts, one at least, became a release",
            RoundEvent.FAIL: "every cohort is void",
            RoundEvent.DISCARD: "the opened sums became no release: no device could use what they add up to, the gate "
            "dropped the release that they started from, or it was left behind meanwhile",
        }
    ),
)


class Event(StrEnum):
    """What can happen to a cohort."""

    COUNT = "count"
    EXTEND = "extend"
    FREEZE = "freeze"
    STARVE = "starve"
    ANSWER = "answer"
    OPEN = "open"
    REFUSE = "refuse"
    UNUSABLE = "unusable"
    FALL_SILENT = "fall silent"
    ABORT = "abort"


COHORT = Machine(
    "cohort",
    CohortState.OPEN,
    MappingProxyType(
        {
            (CohortState.OPEN, Event.COUNT): CohortState.OPEN,
            (CohortState.OPEN, Event.EXTEND): CohortState.OPEN,
            (CohortState.OPEN, Event.FREEZE): CohortState.FROZEN,
            (CohortState.OPEN, Event.STARVE): CohortState.VOID,
            (CohortState.OPEN, Event.ABORT): CohortState.VOID,
            (CohortState.FROZEN, Event.ANSWER): CohortState.FROZEN,
            (CohortState.FROZEN, Event.OPEN): CohortState.OPENED,
            (CohortState.FROZEN, Event.REFUSE): CohortState.VOID,
            (CohortState.FROZEN, Event.UNUSABLE): CohortState.VOID,
            (CohortState.FROZEN, Event.FALL_SILENT): CohortState.VOID,
            (CohortState.FROZEN, Event.ABORT): CohortState.VOID,
        }
    ),
    MappingProxyType(
        {
            Event.COUNT: "an upload passed its checks and is in the running sum",
            Event.EXTEND: "the deadline passed with fewer than n_min uploads, and the plan allows more time",
            Event.FREEZE: "n_max uploads are counted, or the deadline passed with n_min or more",
            Event.STARVE: "the latest deadline passed with fewer than n_min uploads",
            Event.ANSWER: "a member's answer is durable",
            Event.OPEN: "the sum opened, passed every check, and is durable",
            Event.REFUSE: "the sum opened but holds values that honest contributors cannot add up to",
            Event.UNUSABLE: "so many members could not use a contributor's share that T answers cannot come any more",
            Event.FALL_SILENT: "the answer deadline passed without a sum",
            Event.ABORT: "the operator ended the cohort",
        }
    ),
)

FINAL = COHORT.final
next_state = COHORT.next


def markdown() -> str:
    """The page docs/states.md: the theory, and for each table its picture and what each event means."""
    sections = "\n".join(machine.markdown() for machine in (TASK, ROUND, COHORT))
    return (
        "# Task, round and cohort states\n\n<!-- Generated by coordinator.rounds.states.markdown; a test compares. -->"
        f"\n\n{(__doc__ or '').strip()}\n\n{sections}"
    )
