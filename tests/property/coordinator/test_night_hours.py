"""Whatever a device says of its night, it is asked for inside it, never before it is wanted, and soon enough."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coordinator.rounds.night_hours import LAST_S, NightHours, into_night
from nightshift.protocol.errors import MalformedError
from nightshift.v1 import device_pb2

HOUR_S, DAY_S = 3600, 86_400
NOON = 1_800_014_400 - 1_800_014_400 % DAY_S + 12 * HOUR_S

nights = st.builds(NightHours, st.integers(0, 23).map(HOUR_S.__mul__), st.integers(1, 23).map(HOUR_S.__mul__))
wanted = st.builds(device_pb2.NextCheckIn, not_before_s=st.integers(0, DAY_S), window_s=st.integers(1, 4 * HOUR_S))


@given(wanted, nights, st.integers(NOON, NOON + 2 * DAY_S), st.booleans())
def test_the_whole_window_lies_in_one_night(
    asked: device_pb2.NextCheckIn, night: NightHours, now: int, soon: bool
) -> None:
    told = into_night(asked, night, now, soon=soon)
    first, last = now + told.not_before_s, now + told.not_before_s + told.window_s
    begun_s = (first - night.begin_s) % DAY_S
    assert begun_s + told.window_s <= night.length_s
    assert told.window_s >= 1
    assert first >= now + asked.not_before_s, "not before it is wanted"
    assert first <= now + asked.not_before_s + DAY_S, "in the first night that comes"
    if night.length_s > LAST_S:
        assert begun_s + last - first <= night.length_s - LAST_S, "not in the night's last hour"
    if soon:
        assert told.window_s <= asked.window_s


@given(wanted, st.integers(NOON, NOON + DAY_S), st.booleans())
def test_who_says_nothing_is_asked_as_ever(asked: device_pb2.NextCheckIn, now: int, soon: bool) -> None:
    assert into_night(asked, None, now, soon=soon) == asked


NIGHT = NightHours(22 * HOUR_S, 8 * HOUR_S)


@pytest.mark.parametrize(
    ("now", "asked", "soon", "told"),
    [
        # (hours after noon, (not before, window), something waits, (not before, window)), all in hours
        (0, (1, 1), False, (10, 7)),  # by day: spread over the night but its last hour
        (0, (1, 1), True, (10, 1)),  # a member: as soon as its night begins
        (0, (12, 2), False, (12, 2)),  # in the night anyhow
        (0, (15, 4), False, (15, 2)),  # the window is cut at the night's last hour
        (0, (17, 1), False, (34, 7)),  # in its last hour: the next night
        (14, (0, 1), False, (0, 1)),  # now, in the night
    ],
)
def test_by_day_and_by_night(now: int, asked: tuple[int, int], soon: bool, told: tuple[int, int]) -> None:
    question = device_pb2.NextCheckIn(not_before_s=asked[0] * HOUR_S, window_s=asked[1] * HOUR_S)
    answer = into_night(question, NIGHT, NOON + now * HOUR_S, soon=soon)
    assert (answer.not_before_s, answer.window_s) == (told[0] * HOUR_S, told[1] * HOUR_S)


@pytest.mark.parametrize(("begin", "length"), [(24, 8), (0, 0), (0, 24), (2**32 - 1, 2**32 - 1)])
def test_hours_that_no_day_has_are_refused(begin: int, length: int) -> None:
    request = device_pb2.CheckInRequest(night_hours=device_pb2.NightHours(begin_hour_utc=begin, length_h=length))
    with pytest.raises(MalformedError, match="night hours"):
        NightHours.of(request)


def test_hours_are_read_as_they_are_said() -> None:
    said = device_pb2.NightHours(begin_hour_utc=22, length_h=8)
    assert NightHours.of(device_pb2.CheckInRequest(night_hours=said)) == NIGHT
    assert NightHours.of(device_pb2.CheckInRequest()) is None
