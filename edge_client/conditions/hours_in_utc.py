"""An owner's hours as a coordinator is told them: whole hours of the day, UTC, and no more.

What is told lies inside the real hours on this night and on the next two, also when clocks
are changed in between: nobody calls a device back at a time at which it will not come. A coordinator learns little
that the times of a device's calls do not show; `conditions.tell_hours = false` keeps even that here.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from edge_client.conditions.hours import Hours

NIGHTS = 3
_HOUR_S, _DAY_S = 3600, 86_400


@dataclass(frozen=True, slots=True)
class HoursInUtc:
    """Whole hours.

    Attributes:
        begin_hour: of the day, UTC, 0 to 23.
        length_h: 1 to 23.
    """

    begin_hour: int
    length_h: int


def in_utc(hours: Hours, now_unix_s: int) -> HoursInUtc | None:
    """What to tell of a span of the day in this machine's time zone; None where no whole hour lies inside.

    Args:
        hours: of the owner.
        now_unix_s: tonight is the span that has not ended at this moment.
    """
    begin_unix_s, end_unix_s = -float("inf"), float("inf")
    for day, (begin, end) in enumerate(_nights(hours, now_unix_s)):
        begin_unix_s = max(begin_unix_s, begin - _DAY_S * day)
        end_unix_s = min(end_unix_s, end - _DAY_S * day)
    begin_h, end_h = -int(-begin_unix_s // _HOUR_S), int(end_unix_s // _HOUR_S)
    if end_h <= begin_h:
        return None
    return HoursInUtc(begin_h % 24, min(end_h - begin_h, 23))


def _nights(hours: Hours, now_unix_s: int) -> list[tuple[float, float]]:
    """Begin and end, Unix seconds, of the night that has not ended and of those that follow it."""
    midnight = datetime.fromtimestamp(now_unix_s, UTC).astimezone().replace(tzinfo=None, hour=0, minute=0, second=0)
    spans = []
    for day in range(-1, NIGHTS + 1):
        begin = midnight + timedelta(days=day, minutes=hours.begin)
        end = midnight + timedelta(days=day + (hours.end <= hours.begin), minutes=hours.end)
        # A time of day without a zone is this machine's local time, with the offset that holds on that day.
        spans.append((begin.timestamp(), end.timestamp()))
    return [span for span in spans if span[1] > now_unix_s][:NIGHTS]
