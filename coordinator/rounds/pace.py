"""Pace steering: when a device is worth hearing from again.

A device with work in hand comes when it is done. Others come after the next deadline that could bring them something,
spread over a window. A member of a cohort that still takes uploads comes soon after these end: members are few, the
sum waits for them, and their owners' hours may be over in the morning. A device that says when its nights are is asked
back into one (`coordinator.rounds.night_hours`).
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from coordinator.rounds.night_hours import NightHours, into_night
from coordinator.storage.rows import Cohort, CohortState
from nightshift.v1 import device_pb2

IDLE_S = 3600
IDLE_WINDOW_S = 1800


@dataclass(frozen=True, slots=True)
class Wait:
    """Until when a cohort that has not ended keeps devices waiting.

    Attributes:
        state: open or frozen.
        upload_deadline_unix_s: of the cohort.
        answer_deadline_unix_s: of the cohort.
    """

    state: CohortState
    upload_deadline_unix_s: int
    answer_deadline_unix_s: int

    @classmethod
    def of(cls, cohort: Cohort) -> Wait:
        """That of a cohort."""
        return cls(cohort.state, cohort.upload_deadline_unix_s, cohort.answer_deadline_unix_s)

    def window(self, now_unix_s: int, longest_s: int | None = None) -> tuple[int, int]:
        """When to come, seconds from now: at the earliest, and spread over how many."""
        end = self.upload_deadline_unix_s if self.state is CohortState.OPEN else now_unix_s
        half_s = (self.answer_deadline_unix_s - end) // 2
        window_s = half_s if longest_s is None else min(half_s, longest_s)
        return max(0, end + 1 - now_unix_s), max(1, window_s)


def next_check_in(
    waits: Collection[Wait], seats: Collection[Wait], *, busy: bool, night: NightHours | None, now_unix_s: int
) -> device_pb2.NextCheckIn:
    """What a device is told.

    Args:
        waits: of all cohorts that have not ended.
        seats: of those that take uploads and on whose committee the device sits.
        busy: it has work in hand.
        night: its hours, if it said any.
        now_unix_s: when.
    """
    wanted = _wanted(waits, seats, busy=busy, now_unix_s=now_unix_s)
    return into_night(wanted, night, now_unix_s, soon=busy or bool(seats))


def _wanted(waits: Collection[Wait], seats: Collection[Wait], *, busy: bool, now_unix_s: int) -> device_pb2.NextCheckIn:
    if busy:
        return device_pb2.NextCheckIn(not_before_s=0, window_s=IDLE_WINDOW_S)
    windows = [wait.window(now_unix_s) for wait in waits] + [wait.window(now_unix_s, IDLE_WINDOW_S) for wait in seats]
    if not windows:
        return device_pb2.NextCheckIn(not_before_s=IDLE_S, window_s=IDLE_WINDOW_S)
    not_before_s, window_s = min(windows)
    return device_pb2.NextCheckIn(not_before_s=min(not_before_s, IDLE_S * 24), window_s=min(window_s, IDLE_S * 4))
