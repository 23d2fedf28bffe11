"""A span of the day, which may go over midnight."""

from __future__ import annotations

import re
from dataclasses import dataclass

_HOURS = re.compile(r"([01][0-9]|2[0-3]):([0-5][0-9])-([01][0-9]|2[0-3]):([0-5][0-9])")


@dataclass(frozen=True, slots=True)
class Hours:
    """From a minute of the day to another, the end excluded; end before begin goes over midnight.

    Attributes:
        begin: minutes after midnight.
        end: minutes after midnight.
    """

    begin: int
    end: int

    @classmethod
    def parse(cls, text: str) -> Hours:
        """Read `22:00-06:30`.

        Raises:
            ValueError: anything else, or a span without length.
        """
        match = _HOURS.fullmatch(text)
        if match is None:
            raise ValueError(f"{text!r} is not a span of the day such as 22:00-06:30")
        begin_hour, begin_minute, end_hour, end_minute = map(int, match.groups())
        begin, end = 60 * begin_hour + begin_minute, 60 * end_hour + end_minute
        if begin == end:
            raise ValueError(f"{text!r} has no length; leave conditions.hours empty for any time")
        return cls(begin, end)

    def hold(self, minute: int) -> bool:
        """Whether a minute of the day is inside."""
        if self.begin < self.end:
            return self.begin <= minute < self.end
        return minute >= self.begin or minute < self.end

    def __str__(self) -> str:
        return f"{self.begin // 60:02}:{self.begin % 60:02}-{self.end // 60:02}:{self.end % 60:02}"
