"""What a coordinator is told of the owner's hours: whole hours that lie inside them, whatever the clocks do."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from edge_client.conditions.hours import Hours
from edge_client.conditions.hours_in_utc import NIGHTS, HoursInUtc, in_utc

InZone = Callable[[str], None]


@pytest.fixture
def in_zone(monkeypatch: pytest.MonkeyPatch) -> Iterator[InZone]:
    """Puts this process into a time zone."""

    def put(name: str) -> None:
        monkeypatch.setenv("TZ", name)
        time.tzset()

    yield put
    monkeypatch.undo()
    time.tzset()


def told(zone: str, hours: str, moment: str) -> HoursInUtc | None:
    """Of a moment in local time."""
    local = datetime.fromisoformat(moment).replace(tzinfo=ZoneInfo(zone))
    return in_utc(Hours.parse(hours), int(local.timestamp()))


@pytest.mark.parametrize(
    ("zone", "hours", "moment", "begin_hour", "length_h"),
    [
        ("UTC", "22:00-06:30", "2027-01-15 12:00", 22, 8),
        ("UTC", "22:00-06:30", "2027-01-15 23:00", 22, 8),
        ("UTC", "22:00-06:30", "2027-01-16 06:29", 22, 8),
        ("UTC", "22:10-06:30", "2027-01-15 12:00", 23, 7),
        ("UTC", "01:00-05:00", "2027-01-15 12:00", 1, 4),
        ("Europe/Berlin", "22:00-06:00", "2027-01-15 12:00", 21, 8),
        ("Europe/Berlin", "22:00-06:00", "2027-07-15 12:00", 20, 8),
        ("America/Los_Angeles", "22:00-06:00", "2027-01-15 12:00", 6, 8),
        ("Asia/Kolkata", "22:00-06:00", "2027-01-15 12:00", 17, 7),  # 16:30 to 00:30 UTC
        ("Pacific/Kiritimati", "00:30-23:30", "2027-01-15 12:00", 11, 22),
        ("UTC", "10:00-09:59", "2027-01-15 12:00", 10, 23),
    ],
)
def test_whole_hours_that_lie_inside(
    zone: str, hours: str, moment: str, begin_hour: int, length_h: int, in_zone: InZone
) -> None:
    in_zone(zone)
    assert told(zone, hours, moment) == HoursInUtc(begin_hour, length_h)


@pytest.mark.parametrize(
    ("moment", "begin_hour", "length_h"),
    [
        # Summer time ends on 25 October 2026 at 01:00 UTC: 22:00 is 20:00 UTC before and 21:00 UTC after.
        ("2026-10-21 12:00", 20, 8),  # three nights of summer
        ("2026-10-22 12:00", 20, 8),  # the third night begins in summer, and ends an hour later
        ("2026-10-23 12:00", 21, 7),  # the third night begins in winter
        ("2026-10-25 12:00", 21, 8),
        # It begins on 28 March 2027 at 01:00 UTC.
        ("2027-03-25 12:00", 21, 7),  # the third night, over the change, ends an hour earlier by UTC
        ("2027-03-27 12:00", 21, 7),
        ("2027-03-28 12:00", 20, 8),
    ],
)
def test_where_clocks_are_changed_what_holds_on_all_three_nights(
    moment: str, begin_hour: int, length_h: int, in_zone: InZone
) -> None:
    in_zone("Europe/Berlin")
    assert told("Europe/Berlin", "22:00-06:00", moment) == HoursInUtc(begin_hour, length_h)


def test_a_span_that_holds_no_whole_hour_is_not_told(in_zone: InZone) -> None:
    in_zone("UTC")
    assert told("UTC", "03:10-04:50", "2027-01-15 12:00") is None
    in_zone("Asia/Kolkata")
    assert told("Asia/Kolkata", "03:00-04:00", "2027-01-15 12:00") is None


@pytest.mark.parametrize("zone", ["Europe/Berlin", "America/St_Johns", "Australia/Lord_Howe", "Asia/Kolkata"])
@pytest.mark.parametrize("hours", ["22:00-06:30", "01:15-04:45", "12:00-23:00"])
def test_every_minute_that_is_told_is_one_of_the_owners_on_each_day_of_a_year(
    zone: str, hours: str, in_zone: InZone
) -> None:
    in_zone(zone)
    span = Hours.parse(hours)
    for day in range(366):
        now = datetime(2026, 6, 1, 10, tzinfo=UTC) + timedelta(days=day)
        said = in_utc(span, int(now.timestamp()))
        assert said is not None
        begin = now.replace(hour=said.begin_hour) + timedelta(days=said.begin_hour <= now.hour)
        for night in range(NIGHTS - 1):  # of one that is under way now the rest
            for minute in (0, 60 * said.length_h // 2, 60 * said.length_h - 1):
                local = (begin + timedelta(days=night, minutes=minute)).astimezone(ZoneInfo(zone))
                assert span.hold(60 * local.hour + local.minute), (said, local)
