"""A clock that can be right, the owner's hours, and the owner's word to wait."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

from edge_client.conditions.hours import Hours
from edge_client.conditions.reading import Reading
from nightshift.host import clock
from nightshift.host.clock import Synchronised, synchronised

FOREVER_UNIX_S = 253_402_300_799  # 9999-12-31: paused until told otherwise
AHEAD_S = 180 * 86_400
"""So long after its certificate's end an unsynchronised clock is rather wrong than this device asleep."""


@dataclass(frozen=True, slots=True)
class Clock:
    """A clock that can be right: a board without a battery begins in 1970, or where it was switched off.

    Before a moment that is past for certain it is wrong. Long after this device's
    certificate ended it is wrong too, unless a time service vouches for it:
    then the device slept, and renews late. This holds for `run --now` too.

    Attributes:
        past_unix_s: a moment that is past for certain.
        certificate_end_unix_s: of the certificate in use.
        required: the owner wants it judged.
    """

    past_unix_s: int
    certificate_end_unix_s: int
    required: bool = True

    def read(self) -> Reading:
        """The clock against what must be past, and what is hardly past."""
        now, kept = clock.now_unix_s(), synchronised()
        value = datetime.fromtimestamp(now, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        source = {
            Synchronised.YES: "system clock, synchronised",
            Synchronised.NO: "system clock, not synchronised",
            Synchronised.UNKNOWN: "system clock",
        }[kept]
        if not self.required:
            return Reading.unknown("clock", f"{source}; conditions.judge_clock = false", value=value)
        if now < self.past_unix_s:
            reason = "the clock shows a time before this device joined; set the clock, or wait until it is in step"
            return Reading.judged("clock", value, source, reason=reason)
        if kept is Synchronised.NO and now > self.certificate_end_unix_s + AHEAD_S:
            reason = (
                "the clock is far ahead of this device's certificate and no time service vouches for it; set the "
                "clock, or let it be synchronised (timedatectl set-ntp true)"
            )
            return Reading.judged("clock", value, source, reason=reason)
        if kept is Synchronised.YES:
            return Reading.judged("clock", value, source, reason="")
        return Reading.unknown("clock", source, value=value)


@dataclass(frozen=True, slots=True)
class WithinHours:
    """Inside the hours that the owner gave, in the machine's time zone."""

    hours: Hours | None

    def read(self) -> Reading:
        """The local time against the hours."""
        local = time.localtime(clock.now())
        value = time.strftime("%H:%M", local)
        if self.hours is None:
            return Reading.judged("hours", f"{value}, any hour will do", "conditions.hours", reason="")
        reason = (
            "" if self.hours.hold(60 * local.tm_hour + local.tm_min) else f"outside {self.hours} (conditions.hours)"
        )
        return Reading.judged("hours", f"{value} of {self.hours}", "local time", reason=reason)


@dataclass(frozen=True, slots=True)
class NotPaused:
    """The owner did not say `edge-client pause`."""

    until_unix_s: Callable[[], int]

    def read(self) -> Reading:
        """Whether the pause is over."""
        end = self.until_unix_s()
        if clock.now_unix_s() >= end:
            return Reading.judged("pause", "none", "edge-client pause", reason="")
        until = (
            "told otherwise"
            if end >= FOREVER_UNIX_S
            else datetime.fromtimestamp(end, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        )
        reason = f"paused by its owner until {until}; to go on: edge-client resume"
        return Reading.judged("pause", f"until {until}", "edge-client pause", reason=reason)
