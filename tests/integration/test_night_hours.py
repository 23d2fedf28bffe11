"""Device and coordinator agree on the device's night, also where clocks are changed: it is called when it may come."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from coordinator.rounds.night_hours import NightHours, into_night
from edge_client.conditions.hours import Hours
from edge_client.conditions.hours_in_utc import in_utc
from nightshift.v1 import device_pb2

ZONE = "Europe/Berlin"
HOUR_S = 3600


@pytest.fixture
def in_berlin(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", ZONE)
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.usefixtures("in_berlin")
@pytest.mark.parametrize("first", ["2026-10-22 00:00", "2027-03-25 00:00"], ids=["summer time ends", "it begins"])
@pytest.mark.parametrize("span", ["22:00-06:30", "01:00-05:00"])
@pytest.mark.parametrize("not_before_s", [0, 5 * HOUR_S, 24 * HOUR_S])
def test_every_moment_that_a_device_is_called_for_is_in_its_owners_hours(
    first: str, span: str, not_before_s: int
) -> None:
    hours = Hours.parse(span)
    now = datetime.fromisoformat(first).replace(tzinfo=ZoneInfo(ZONE))
    for _ in range(6 * 24):  # each hour of the days around the change
        now_unix_s = int(now.timestamp())
        said = in_utc(hours, now_unix_s)
        assert said is not None
        request = device_pb2.CheckInRequest(
            night_hours=device_pb2.NightHours(begin_hour_utc=said.begin_hour, length_h=said.length_h)
        )
        wanted = device_pb2.NextCheckIn(not_before_s=not_before_s, window_s=HOUR_S)
        told = into_night(wanted, NightHours.of(request), now_unix_s, soon=False)
        for moment_s in (told.not_before_s, told.not_before_s + told.window_s):
            local = datetime.fromtimestamp(now_unix_s + moment_s, ZoneInfo(ZONE))
            assert hours.hold(60 * local.hour + local.minute), (str(now), str(local), said)
        now += timedelta(hours=1)
