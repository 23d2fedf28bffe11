"""When to come again: the coordinator's pace, its RetryInfo, and this device's own patience.

| what happened | the timer's passes connect again after |
|---|---|
| a check-in was answered | its `next_checkin`: not before a moment, then anywhere in a window |
| the coordinator was busy (RetryInfo) | the delay that it named, and up to as much again |
| nobody answered | 15 minutes, doubled each time in a row, two hours at most, times 0.5 to 1.5 |

The random parts keep devices that lost one coordinator from coming back in step.
`run --now` does not wait. An unsent contribution waits for no pace, only for patience, and so does
training that was cut off, by the owner's conditions or by the power, as long as its round takes uploads. A
moment further away than any of these rules can name comes from a clock that was wrong, and is forgotten.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from edge_client.training.errors import TrainingStoppedError
from nightshift.protocol.errors import NightshiftError, OverloadedError, UnreachableError

if TYPE_CHECKING:
    from edge_client.store.database import Database
    from nightshift.v1 import device_pb2

LONGEST_PAUSE_S = 7 * 24 * 3600
LONGEST_RETRY_S = 24 * 3600
FIRST_PATIENCE_S = 15 * 60
LONGEST_PATIENCE_S = 2 * 3600

NEXT_CHECK_IN, RETRY_AFTER, FAILURES = "next_check_in", "retry_after", "unanswered_passes"
CUT_OFF_UNTIL = "training_cut_off_until"
"""Training for a round was begun and not ended; the moment from which it would be too late to go on."""


def note_answer(database: Database, now_unix_s: int, wanted: device_pb2.NextCheckIn, *, draw: float) -> None:
    """The coordinator answered, and said when to come next.

    Args:
        database: keeps it.
        now_unix_s: this device's clock.
        wanted: what it said; bounded here, for it may say anything.
        draw: from 0 to 1, where in the window.
    """
    pause_s = min(wanted.not_before_s, LONGEST_PAUSE_S)
    window_s = min(wanted.window_s, LONGEST_PAUSE_S - pause_s)
    database.put(**{NEXT_CHECK_IN: now_unix_s + pause_s + int(draw * window_s), RETRY_AFTER: 0, FAILURES: 0})


@contextmanager
def going_on_later(database: Database, until_unix_s: int) -> Iterator[None]:
    """Work for a round; where it is cut off, the timer's next pass goes on with it and waits for no pace.

    Noted before it begins, for a power cut gives no notice. What ends by itself, well or badly, is not waiting.

    Args:
        database: keeps it.
        until_unix_s: the round takes no upload after it.
    """
    database.put(**{CUT_OFF_UNTIL: until_unix_s})
    try:
        yield
    except (TrainingStoppedError, UnreachableError, OverloadedError):
        raise
    except Exception:
        nothing_cut_off(database)
        raise
    nothing_cut_off(database)


def nothing_cut_off(database: Database) -> None:
    """The coordinator was asked for a plan: whether there is something to go on with, its answer says."""
    database.put(**{CUT_OFF_UNTIL: 0})


def cut_off_until(database: Database, now_unix_s: int) -> int | None:
    """Until when training that was cut off can go on; None if there is none."""
    until = database.number(CUT_OFF_UNTIL) or 0
    return until if now_unix_s < until <= now_unix_s + LONGEST_PAUSE_S else None


def note_failure(database: Database, now_unix_s: int, error: NightshiftError, *, draw: float) -> None:
    """The coordinator did not answer, or asked for patience; other errors change nothing.

    Args:
        database: keeps it.
        now_unix_s: this device's clock.
        error: how the pass ended.
        draw: from 0 to 1.
    """
    if isinstance(error, OverloadedError):
        delay_s = min(max(1, error.retry_after_s), LONGEST_RETRY_S)
        database.put(**{RETRY_AFTER: now_unix_s + int(delay_s * (1 + draw))})
    elif isinstance(error, UnreachableError):
        failures = (database.number(FAILURES) or 0) + 1
        patience_s = min(FIRST_PATIENCE_S * 2 ** min(failures - 1, 16), LONGEST_PATIENCE_S)
        database.put(**{RETRY_AFTER: now_unix_s + int(patience_s * (0.5 + draw)), FAILURES: failures})


def wait_until(database: Database, now_unix_s: int, *, work_waits: bool) -> int | None:
    """The moment before which a pass of the timer need not connect; None if it may now.

    Args:
        database: of the device.
        now_unix_s: this device's clock.
        work_waits: something is here that the coordinator still has to get.
    """
    moments = [database.number(RETRY_AFTER) or 0]
    if not work_waits and cut_off_until(database, now_unix_s) is None:
        moments.append(database.number(NEXT_CHECK_IN) or 0)
    latest = max(moments)
    return latest if now_unix_s < latest <= now_unix_s + LONGEST_PAUSE_S else None


def draw() -> float:
    """Where in a window: not a secret."""
    return random.random()  # noqa: S311 - spreads load, guards nothing
