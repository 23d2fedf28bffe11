"""The clock, the owner's hours and the owner's pause."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge_client.conditions import Verdict, moment
from edge_client.conditions.hours import Hours
from edge_client.conditions.moment import (
    AHEAD_S,
    FOREVER_UNIX_S,
    Clock,
    NotPaused,
    WithinHours,
)
from nightshift.host import clock
from nightshift.host.clock import Synchronised, synchronised

NOW = clock.now_unix_s()
DAY_S = 86_400


@pytest.fixture
def kept(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Synchronised:
    state: Synchronised = request.param
    monkeypatch.setattr(moment, "synchronised", lambda: state)
    return state


everyone = pytest.mark.parametrize("kept", list(Synchronised), indirect=True)


@everyone
def test_a_clock_before_what_is_past_is_wrong_whoever_vouches_for_it(kept: Synchronised) -> None:
    reading = Clock(NOW + DAY_S, NOW + 2 * DAY_S).read()
    assert reading.verdict is Verdict.NO
    assert "set the clock" in reading.reason


@everyone
def test_a_clock_within_the_certificate(kept: Synchronised) -> None:
    expected = Verdict.OK if kept is Synchronised.YES else Verdict.UNKNOWN
    assert Clock(NOW - DAY_S, NOW + DAY_S).read().verdict is expected


@everyone
def test_a_clock_years_ahead_is_believed_only_if_it_is_synchronised(kept: Synchronised) -> None:
    """Synchronised, the device slept for two years; nobody can know where the system does not say."""
    reading = Clock(NOW - 760 * DAY_S, NOW - 730 * DAY_S).read()
    expected = {
        Synchronised.YES: Verdict.OK,
        Synchronised.NO: Verdict.NO,
        Synchronised.UNKNOWN: Verdict.UNKNOWN,
    }
    assert reading.verdict is expected[kept]


@everyone
def test_a_device_that_was_off_for_a_while_may_renew_late(kept: Synchronised) -> None:
    assert Clock(NOW - AHEAD_S, NOW - AHEAD_S + DAY_S).read().verdict is not Verdict.NO


def test_an_owner_who_knows_better() -> None:
    assert Clock(NOW + DAY_S, NOW, required=False).read().verdict is Verdict.UNKNOWN


def test_the_system_says_whether_its_clock_is_kept(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv(clock.ENVIRONMENT_VARIABLE, raising=False)
    assert synchronised() in set(Synchronised)
    monkeypatch.setenv(clock.ENVIRONMENT_VARIABLE, str(tmp_path / "offset"))
    assert synchronised() is Synchronised.UNKNOWN


@pytest.mark.parametrize(
    ("span", "inside", "outside"),
    [("22:00-06:30", "22:00 23:59 00:00 06:29", "06:30 12:00 21:59"), ("01:00-05:00", "01:00 04:59", "00:59 05:00")],
)
def test_hours_may_go_over_midnight(span: str, inside: str, outside: str) -> None:
    hours = Hours.parse(span)
    assert str(hours) == span
    for text, expected in [(text, True) for text in inside.split()] + [(text, False) for text in outside.split()]:
        hour, minute = map(int, text.split(":"))
        assert hours.hold(60 * hour + minute) is expected, text


@pytest.mark.parametrize("text", ["22-6", "22:00", "24:00-06:00", "10:00-10:00", "22:60-23:00", "22:00-06:00 ", "x"])
def test_what_is_no_span_of_the_day(text: str) -> None:
    with pytest.raises(ValueError, match=r"conditions\.hours|22:00-06:30"):
        Hours.parse(text)


@pytest.fixture
def in_berlin(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "Europe/Berlin")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.usefixtures("in_berlin")
def test_the_hours_are_local_and_summer_time_moves_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """At 00:30 UTC it is 02:30 in Berlin in summer and 01:30 in winter."""
    night = WithinHours(Hours.parse("02:00-05:00"))
    for day, expected in (("2026-07-01", Verdict.OK), ("2026-12-01", Verdict.NO)):
        at = time.mktime(time.strptime(f"{day} 12:00", "%Y-%m-%d %H:%M"))
        half_past_midnight_utc = (int(at) // DAY_S) * DAY_S + 1800
        monkeypatch.setattr(clock, "now", lambda moment=half_past_midnight_utc: float(moment))
        assert night.read().verdict is expected, night.read()


def test_a_pause_ends_by_itself() -> None:
    assert NotPaused(lambda: 0).read().verdict is Verdict.OK
    assert NotPaused(lambda: NOW - 1).read().verdict is Verdict.OK
    paused = NotPaused(lambda: NOW + 3600).read()
    assert paused.verdict is Verdict.NO
    assert "edge-client resume" in paused.reason
    assert "told otherwise" in NotPaused(lambda: FOREVER_UNIX_S).read().reason
