"""The tables of task, round and cohort states: complete, reachable, final where they say so, drawn as they are."""

from __future__ import annotations

import itertools
from enum import StrEnum
from pathlib import Path

import pytest

from coordinator.rounds.states import COHORT, FINAL, ROUND, TASK, Event, Machine, RoundEvent, TaskEvent, markdown
from coordinator.storage.rows import CohortState, RoundState, TaskState
from nightshift.protocol.errors import StateConflictError

ROOT = Path(__file__).resolve().parents[3]
MACHINES = [(TASK, TaskState, TaskEvent), (ROUND, RoundState, RoundEvent), (COHORT, CohortState, Event)]
PAIRS = [(machine, *pair) for machine, states, events in MACHINES for pair in itertools.product(states, events)]

each = pytest.mark.parametrize(("machine", "states", "events"), MACHINES, ids=lambda value: getattr(value, "what", ""))


@pytest.mark.parametrize(("machine", "state", "event"), PAIRS, ids=lambda value: getattr(value, "what", value))
def test_every_pair_is_a_transition_or_refused(machine: Machine, state: StrEnum, event: StrEnum) -> None:
    if (state, event) in machine.transitions:
        assert machine.next(state, event) is machine.transitions[state, event]
    else:
        with pytest.raises(StateConflictError, match=f"a {machine.what} that is {state.value} allows no"):
            machine.next(state, event)


@each
def test_every_state_is_reached_and_every_event_happens(
    machine: Machine, states: type[StrEnum], events: type[StrEnum]
) -> None:
    reached = {machine.initial}
    for _ in states:
        reached |= {end for (start, _), end in machine.transitions.items() if start in reached}
    assert reached == set(states)
    assert {event for _, event in machine.transitions} == set(events) == set(machine.meaning)


def test_what_is_final() -> None:
    assert frozenset({CohortState.OPENED, CohortState.VOID}) == COHORT.final == FINAL
    assert frozenset({RoundState.PUBLISHED, RoundState.VOID}) == ROUND.final
    assert frozenset() == TASK.final


def test_a_frozen_set_never_opens_for_uploads_again() -> None:
    ends = {end for (start, _), end in COHORT.transitions.items() if start is not CohortState.OPEN}
    assert CohortState.OPEN not in ends


def test_the_page_in_the_docs_is_the_tables() -> None:
    page = (ROOT / "docs" / "states.md").read_text("utf-8")
    assert page == markdown(), "write it again: see coordinator.rounds.states.markdown"
    pictures = page.split("```mermaid\n")[1:]
    assert len(pictures) == len(MACHINES)
    for picture, (machine, _, events) in zip(pictures, MACHINES, strict=True):
        drawing, _, table = picture.partition("```")
        # One arrow into each picture, and one out of it for each final state.
        assert drawing.count("-->") == 1 + len(machine.transitions) + len(machine.final)
        assert all(f"| {event.value} | " in table for event in events)
