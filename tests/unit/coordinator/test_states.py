"""The table of cohort states: complete, reachable, final where it says so, drawn as it is."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from coordinator.rounds.states import FINAL, INITIAL, MEANING, TRANSITIONS, Event, markdown, mermaid, next_state
from coordinator.storage.rows import CohortState
from nightshift.protocol.errors import StateConflictError

ROOT = Path(__file__).resolve().parents[3]


@pytest.mark.parametrize(("state", "event"), list(itertools.product(CohortState, Event)))
def test_every_pair_is_a_transition_or_refused(state: CohortState, event: Event) -> None:
    if (state, event) in TRANSITIONS:
        assert next_state(state, event) is TRANSITIONS[state, event]
    else:
        with pytest.raises(StateConflictError, match=state.value):
            next_state(state, event)


def test_nothing_leads_out_of_a_final_state() -> None:
    assert {state for state, _ in TRANSITIONS} == set(CohortState) - FINAL


def test_every_state_is_reached_and_every_event_happens() -> None:
    reached = {INITIAL}
    for _ in CohortState:
        reached |= {end for (start, _), end in TRANSITIONS.items() if start in reached}
    assert reached == set(CohortState)
    assert {event for _, event in TRANSITIONS} == set(Event) == set(MEANING)


def test_a_frozen_set_never_opens_for_uploads_again() -> None:
    assert CohortState.OPEN not in {end for (start, _), end in TRANSITIONS.items() if start is not CohortState.OPEN}


def test_the_page_in_the_docs_is_the_table() -> None:
    assert (ROOT / "docs" / "cohort-states.md").read_text("utf-8") == markdown()
    assert mermaid().count("-->") == 1 + len(TRANSITIONS) + len(FINAL)
