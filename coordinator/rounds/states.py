"""The lives of a cohort and of a round, as tables.

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

from collections.abc import Iterable, Mapping
from enum import StrEnum
from types import MappingProxyType

from coordinator.storage.rows import CohortState, RoundState
from nightshift.protocol.errors import StateConflictError


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


MEANING = MappingProxyType(
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
)

TRANSITIONS = MappingProxyType(
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
)

INITIAL = CohortState.OPEN
FINAL = frozenset({CohortState.OPENED, CohortState.VOID})


class RoundEvent(StrEnum):
    """What can happen to a round. All of it when its last cohort has ended."""

    PUBLISH = "publish"
    FAIL = "fail"
    DISCARD = "discard"


ROUND_MEANING = MappingProxyType(
    {
        RoundEvent.PUBLISH: "the sums of the opened cohorts, one at least, became a release",
        RoundEvent.FAIL: "every cohort is void",
        RoundEvent.DISCARD: "the opened sums became no release: no device could use what they add up to, the gate "
        "dropped the release that they started from, or it was left behind meanwhile",
    }
)

ROUND_TRANSITIONS = MappingProxyType(
    {
        (RoundState.RUNNING, RoundEvent.PUBLISH): RoundState.PUBLISHED,
        (RoundState.RUNNING, RoundEvent.FAIL): RoundState.VOID,
        (RoundState.RUNNING, RoundEvent.DISCARD): RoundState.VOID,
    }
)

ROUND_INITIAL = RoundState.RUNNING


def next_state(state: CohortState, event: Event) -> CohortState:
    """The state that an event leads to.

    Raises:
        StateConflictError: the event has no place in this state.
    """
    try:
        return TRANSITIONS[state, event]
    except KeyError:
        raise StateConflictError(f"a cohort that is {state.value} allows no {event.value!r}") from None


def next_round_state(state: RoundState, event: RoundEvent) -> RoundState:
    """The state that an event leads a round to.

    Raises:
        StateConflictError: the event has no place in this state.
    """
    try:
        return ROUND_TRANSITIONS[state, event]
    except KeyError:
        raise StateConflictError(f"a round that is {state.value} allows no {event.value!r}") from None


def mermaid(initial: str, arrows: Iterable[tuple[str, str, str]], final: Iterable[str]) -> str:
    """A table as a Mermaid state diagram, from its (state, event, state) rows."""
    lines = ["stateDiagram-v2", f"    [*] --> {initial}"]
    lines += [f"    {start} --> {end}: {event}" for start, event, end in arrows]
    lines += [f"    {state} --> [*]" for state in sorted(final)]
    return "\n".join(lines) + "\n"


def markdown() -> str:
    """The page docs/cohort-states.md: the theory, and for cohorts and rounds the picture and what each event means."""
    cohorts = mermaid(INITIAL, [(*pair, end) for pair, end in TRANSITIONS.items()], FINAL)
    rounds = mermaid(
        ROUND_INITIAL, [(*pair, end) for pair, end in ROUND_TRANSITIONS.items()], set(ROUND_TRANSITIONS.values())
    )
    return (
        "# Cohort and round states\n\n<!-- Generated by coordinator.rounds.states.markdown; a test compares. -->\n\n"
        f"{(__doc__ or '').strip()}\n\n## Cohort\n\n```mermaid\n{cohorts}```\n\n{_events(MEANING)}\n"
        f"## Round\n\n```mermaid\n{rounds}```\n\n{_events(ROUND_MEANING)}"
    )


def _events(meaning: Mapping[Event, str] | Mapping[RoundEvent, str]) -> str:
    rows = "".join(f"| {event.value} | {means} |\n" for event, means in meaning.items())
    return f"| event | meaning |\n|---|---|\n{rows}"
