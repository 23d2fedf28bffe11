"""The tables of cohort and round states: complete, reachable, final where they say so, drawn as they are."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from coordinator.rounds.states import (
    FINAL,
    INITIAL,
    MEANING,
    ROUND_INITIAL,
    ROUND_MEANING,
    ROUND_TRANSITIONS,
    TRANSITIONS,
    Event,
    RoundEvent,
    markdown,
    next_round_state,
    next_state,
)
from coordinator.storage.rows import CohortState, RoundState
from nightshift.protocol.errors import StateConflictError

ROOT = Path(__file__).resolve().parents[3]


@pytest.mark.parametrize(("state", "event"), list(itertools.product(CohortState, Event)))
def test_every_pair_is_a_transition_or_refused(state: CohortState, event: Event) -> None:
    if (state, event) in TRANSITIONS:
        assert next_state(state, event) is TRANSITIONS[state, event]
    else:
        with pytest.raises(StateConflictError, match=state.value):
            next_state(state, event)


@pytest.mark.parametrize(("state", "event"), list(itertools.product(RoundState, RoundEvent)))
def test_every_pair_of_a_round_is_a_transition_or_refused(state: RoundState, event: RoundEvent) -> None:
    if state is RoundState.RUNNING:
        expected = RoundState.PUBLISHED if event is RoundEvent.PUBLISH else RoundState.VOID
        assert next_round_state(state, event) is expected
    else:
        with pytest.raises(StateConflictError, match=f"a round that is {state.value}"):
            next_round_state(state, event)


def test_nothing_leads_out_of_a_final_state() -> None:
    assert {state for state, _ in TRANSITIONS} == set(CohortState) - FINAL
    assert {state for state, _ in ROUND_TRANSITIONS} == {ROUND_INITIAL}


def test_every_state_is_reached_and_every_event_happens() -> None:
    reached = {INITIAL}
    for _ in CohortState:
        reached |= {end for (start, _), end in TRANSITIONS.items() if start in reached}
    assert reached == set(CohortState)
    assert {event for _, event in TRANSITIONS} == set(Event) == set(MEANING)
    assert {ROUND_INITIAL, *ROUND_TRANSITIONS.values()} == set(RoundState)
    assert {event for _, event in ROUND_TRANSITIONS} == set(RoundEvent) == set(ROUND_MEANING)


def test_a_frozen_set_never_opens_for_uploads_again() -> None:
    assert CohortState.OPEN not in {end for (start, _), end in TRANSITIONS.items() if start is not CohortState.OPEN}


def test_the_page_in_the_docs_is_the_tables() -> None:
    page = markdown()
    assert (ROOT / "docs" / "cohort-states.md").read_text("utf-8") == page
    arrows = [line for line in page.splitlines() if "-->" in line]
    # One arrow into each picture, and one out of it for each final state.
    drawn = [line for line in arrows if not line.startswith("<!--")]
    assert len(drawn) == 2 + len(TRANSITIONS) + len(FINAL) + len(ROUND_TRANSITIONS) + 2
