"""Pace steering into a device's night: when it is wanted, moved to when its owner lets it work.

A device may say at each check-in, in whole hours of UTC, between which hours it may work
(`NightHours` in device.proto). What is said is used for the reply and kept nowhere. It binds nobody: the device itself
keeps to its owner's hours, to the minute and in its own time zone.

The moment from which a device is wanted stays the earliest. Where it falls into the day, all whose nights
begin together would come together, so they are spread over the night; unless something waits for
the device (`soon`): then over as short a window as was wanted. Nobody is asked for in the last hour of a
night: a pass that begins then does not get far, and timers fire once an hour.
"""

from __future__ import annotations

from dataclasses import dataclass

from nightshift.protocol.errors import MalformedError
from nightshift.v1 import device_pb2

LAST_S = 3600
_HOUR_S, _DAY_S = 3600, 86_400


@dataclass(frozen=True, slots=True)
class NightHours:
    """When a device may work.

    Attributes:
        begin_s: seconds after midnight, UTC.
        length_s: from there, at most 23 hours.
    """

    begin_s: int
    length_s: int

    @classmethod
    def of(cls, request: device_pb2.CheckInRequest) -> NightHours | None:
        """What a device said; None if it said nothing.

        Raises:
            MalformedError: no hours of a day.
        """
        if not request.HasField("night_hours"):
            return None
        said = request.night_hours
        if said.begin_hour_utc > 23 or not 1 <= said.length_h <= 23:
            raise MalformedError(
                f"night hours begin at 0 to 23 and last 1 to 23 hours, got {said.begin_hour_utc} and {said.length_h}"
            )
        return cls(said.begin_hour_utc * _HOUR_S, said.length_h * _HOUR_S)


def into_night(
    wanted: device_pb2.NextCheckIn, night: NightHours | None, now_unix_s: int, *, soon: bool
) -> device_pb2.NextCheckIn:
    """When to ask a device back, so that its window lies in its night.

    Args:
        wanted: when it is worth hearing from it, whatever its hours are.
        night: its hours; None leaves `wanted` as it is.
        now_unix_s: by the coordinator's clock.
        soon: something waits for this device.
    """
    if night is None:
        return wanted
    earliest = now_unix_s + wanted.not_before_s
    usable_s = night.length_s - LAST_S if night.length_s > LAST_S else night.length_s
    begin = earliest - (earliest - night.begin_s) % _DAY_S  # of the night that began last
    if begin + usable_s <= earliest:
        begin += _DAY_S
    start = max(begin, earliest)
    rest_s = begin + usable_s - start
    spread = start > earliest and not soon
    window_s = rest_s if spread else min(wanted.window_s, rest_s)
    return device_pb2.NextCheckIn(not_before_s=start - now_unix_s, window_s=window_s)
