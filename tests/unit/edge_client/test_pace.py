"""When a device comes again: the coordinator's word, bounded; its own patience, growing; jitter in both."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_client.agent import pace
from edge_client.store.database import Database
from edge_client.training.errors import TrainingStoppedError
from nightshift.protocol.errors import (
    DeclinedError,
    OverloadedError,
    ResourceError,
    UnreachableError,
    VerificationError,
)
from nightshift.v1 import device_pb2

NOW = 1_800_000_000


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    opened = Database.open(tmp_path / "store", now_unix_s=NOW, expected=False)
    yield opened
    opened.close()


def wait_s(database: Database, *, work_waits: bool = False, now: int = NOW) -> int | None:
    until = pace.wait_until(database, now, work_waits=work_waits)
    return None if until is None else until - now


def busy(retry_after_s: int) -> OverloadedError:
    error = OverloadedError("busy")
    error.retry_after_s = retry_after_s
    return error


def test_a_new_device_need_not_wait(database: Database) -> None:
    assert wait_s(database) is None


@pytest.mark.parametrize(("draw", "expected"), [(0.0, 3600), (0.5, 3660), (0.999, 3719)])
def test_the_coordinators_window_is_honoured_and_spread(database: Database, draw: float, expected: int) -> None:
    pace.note_answer(database, NOW, device_pb2.NextCheckIn(not_before_s=3600, window_s=120), draw=draw)
    assert wait_s(database) == expected
    assert wait_s(database, now=NOW + expected) is None


def test_an_unsent_contribution_does_not_wait_for_the_window(database: Database) -> None:
    pace.note_answer(database, NOW, device_pb2.NextCheckIn(not_before_s=3600), draw=0)
    assert wait_s(database, work_waits=True) is None


def cut_off(database: Database, error: BaseException, *, deadline_s: int = 7200) -> None:
    """A pass that was told to come again in an hour begins to train, and ends with an error."""
    pace.note_answer(database, NOW, device_pb2.NextCheckIn(not_before_s=3600), draw=0)
    with pytest.raises(type(error)), pace.going_on_later(database, NOW + deadline_s):
        raise error


@pytest.mark.parametrize(
    "error", [TrainingStoppedError("unplugged"), UnreachableError("gone"), KeyboardInterrupt(), SystemExit()]
)
def test_training_that_was_cut_off_does_not_wait_for_the_window(database: Database, error: BaseException) -> None:
    cut_off(database, error)
    assert wait_s(database) is None
    assert pace.cut_off_until(database, NOW) == NOW + 7200


@pytest.mark.parametrize("error", [DeclinedError("nothing learnt"), ResourceError("memory"), ValueError("a defect")])
def test_training_that_failed_by_itself_is_not_tried_again_every_hour(database: Database, error: Exception) -> None:
    cut_off(database, error)
    assert wait_s(database) == 3600
    assert pace.cut_off_until(database, NOW) is None


def test_training_that_was_cut_off_waits_where_its_round_is_over(database: Database) -> None:
    cut_off(database, TrainingStoppedError("unplugged"), deadline_s=600)
    assert wait_s(database, now=NOW + 599) is None
    assert wait_s(database, now=NOW + 600) == 3000


def test_the_next_plan_and_a_good_end_leave_nothing_to_go_on_with(database: Database) -> None:
    cut_off(database, TrainingStoppedError("unplugged"))
    pace.note_answer(database, NOW, device_pb2.NextCheckIn(not_before_s=3600), draw=0)
    assert wait_s(database) is None, "a check-in that asked for no plan says nothing of it"
    pace.nothing_cut_off(database)
    assert wait_s(database) == 3600
    with pace.going_on_later(database, NOW + 7200):
        assert wait_s(database) is None, "a power cut gives no notice"
    assert wait_s(database) == 3600


def test_training_that_was_cut_off_is_patient_with_a_coordinator_that_is_away(database: Database) -> None:
    cut_off(database, TrainingStoppedError("unplugged"))
    pace.note_failure(database, NOW, UnreachableError("gone"), draw=0.5)
    assert wait_s(database) == 900


@given(not_before_s=st.integers(0, 2**32 - 1), window_s=st.integers(0, 2**32 - 1), draw=st.floats(0, 1))
def test_a_coordinator_cannot_silence_a_device_for_longer_than_a_week(
    tmp_path_factory: pytest.TempPathFactory, not_before_s: int, window_s: int, draw: float
) -> None:
    database = Database.open(tmp_path_factory.mktemp("pace") / "store", now_unix_s=NOW, expected=False)
    pace.note_answer(database, NOW, device_pb2.NextCheckIn(not_before_s=not_before_s, window_s=window_s), draw=draw)
    assert (wait_s(database) or 0) <= pace.LONGEST_PAUSE_S
    database.close()


@pytest.mark.parametrize(
    ("asked_s", "draw", "expected_s"),
    [(60, 0.0, 60), (60, 1.0, 120), (0, 0.0, 1), (10**9, 0.0, pace.LONGEST_RETRY_S)],
)
def test_retry_info_is_honoured_never_undercut_and_bounded(
    database: Database, asked_s: int, draw: float, expected_s: int
) -> None:
    pace.note_failure(database, NOW, busy(asked_s), draw=draw)
    assert wait_s(database) == expected_s
    assert wait_s(database, work_waits=True) == expected_s, "a busy coordinator is left alone with uploads too"


def test_patience_grows_up_to_two_hours_and_ends_with_an_answer(database: Database) -> None:
    waits = []
    for _ in range(6):
        pace.note_failure(database, NOW, UnreachableError("gone"), draw=0.5)
        waits.append(wait_s(database))
    assert waits == [900, 1800, 3600, 7200, 7200, 7200]
    pace.note_answer(database, NOW, device_pb2.NextCheckIn(), draw=0)
    assert wait_s(database) is None
    pace.note_failure(database, NOW, UnreachableError("gone"), draw=0.5)
    assert wait_s(database) == 900


def test_patience_has_jitter(database: Database) -> None:
    waits = set()
    for draw in (0.0, 0.25, 0.99):
        pace.note_failure(database, NOW, UnreachableError("gone"), draw=draw)
        waits.add(wait_s(database))
        pace.note_answer(database, NOW, device_pb2.NextCheckIn(), draw=0)
    assert len(waits) == 3
    assert waits >= {450}


@pytest.mark.parametrize("error", [DeclinedError("no"), VerificationError("wrong")])
def test_other_errors_ask_for_no_patience(database: Database, error: Exception) -> None:
    pace.note_failure(database, NOW, error, draw=0.5)  # type: ignore[arg-type]  # both are of the project's tree
    assert wait_s(database) is None


def test_a_moment_from_a_clock_that_ran_ahead_is_forgotten(database: Database) -> None:
    pace.note_answer(database, NOW + 400 * 86_400, device_pb2.NextCheckIn(not_before_s=60), draw=0)
    assert wait_s(database) is None
