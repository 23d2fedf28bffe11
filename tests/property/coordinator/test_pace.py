"""Pace steering: whatever waits, a device comes after what could bring it something, a member as soon as anybody."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from coordinator.rounds.pace import IDLE_S, IDLE_WINDOW_S, Wait, next_check_in
from coordinator.storage.rows import CohortState

NOW = 1_800_000_000
DAY_S = 86_400


@st.composite
def waits_and_seats(draw: st.DrawFn) -> tuple[frozenset[Wait], frozenset[Wait]]:
    """Cohorts that have not ended, and the open ones of them in which a device has a seat."""
    moments = st.integers(NOW - 600, NOW + 3 * DAY_S)
    waits = draw(
        st.frozensets(
            st.builds(
                lambda state, upload, more: Wait(state, upload, upload + more),
                st.sampled_from([CohortState.OPEN, CohortState.FROZEN]),
                moments,
                st.integers(1, 2 * DAY_S),
            ),
            max_size=6,
        )
    )
    opened = sorted((wait for wait in waits if wait.state is CohortState.OPEN), key=str)
    return waits, draw(st.frozensets(st.sampled_from(opened), max_size=3)) if opened else frozenset()


@given(waits_and_seats())
def test_a_member_is_asked_back_no_later_than_others(both: tuple[frozenset[Wait], frozenset[Wait]]) -> None:
    waits, seats = both
    other = next_check_in(waits, (), busy=False, night=None, now_unix_s=NOW)
    member = next_check_in(waits, seats, busy=False, night=None, now_unix_s=NOW)
    assert member.not_before_s == other.not_before_s
    assert 1 <= member.window_s <= other.window_s <= 4 * IDLE_S
    frozen = any(wait.state is CohortState.FROZEN for wait in waits)  # then everybody comes sooner than for the seat
    if seats and not frozen and _first(seats) == _first(waits):
        assert member.window_s <= IDLE_WINDOW_S


@given(waits_and_seats())
def test_the_next_deadline_decides_when(both: tuple[frozenset[Wait], frozenset[Wait]]) -> None:
    waits, _ = both
    found = next_check_in(waits, (), busy=False, night=None, now_unix_s=NOW)
    if not waits:
        expected_s = IDLE_S
    elif any(wait.state is CohortState.FROZEN for wait in waits):
        # A sum may be opened at any moment; one second, for deadlines are whole ones. One that has passed is due now.
        expected_s = 0 if any(passed(wait) for wait in waits) else 1
    else:
        expected_s = max(0, _first(waits) + 1 - NOW)
    assert found.not_before_s == min(expected_s, DAY_S)


def _first(waits: frozenset[Wait]) -> int:
    return min(wait.upload_deadline_unix_s for wait in waits)


def passed(wait: Wait) -> bool:
    return wait.state is CohortState.OPEN and wait.upload_deadline_unix_s < NOW


@given(waits_and_seats())
def test_a_device_with_work_in_hand_comes_when_it_is_done(both: tuple[frozenset[Wait], frozenset[Wait]]) -> None:
    found = next_check_in(*both, busy=True, night=None, now_unix_s=NOW)
    assert (found.not_before_s, found.window_s) == (0, IDLE_WINDOW_S)
