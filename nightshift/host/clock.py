"""The time by which deadlines are judged.

A test moves time for every process at once by writing a number of seconds into
the file that `NIGHTSHIFT_CLOCK_OFFSET_FILE` names. TLS is not moved by it.
"""

from __future__ import annotations

import math
import os
import sys
import time
from enum import Enum
from pathlib import Path

ENVIRONMENT_VARIABLE = "NIGHTSHIFT_CLOCK_OFFSET_FILE"
_TIME_ERROR = 5  # <sys/timex.h>: the clock is not synchronised
_TIMEX_BYTES = 512  # struct timex has 208


class Synchronised(Enum):
    """What the system says of its clock."""

    YES = "yes"
    NO = "no"
    UNKNOWN = "unknown"


def synchronised() -> Synchronised:
    """Whether a time service keeps the clock, as adjtimex(2) says; asking changes nothing.

    A clock that a test moves is nobody's to vouch for.
    """
    if sys.platform != "linux" or os.environ.get(ENVIRONMENT_VARIABLE):
        return Synchronised.UNKNOWN
    import ctypes

    try:
        state = ctypes.CDLL(None, use_errno=True).adjtimex(ctypes.create_string_buffer(_TIMEX_BYTES))
    except (OSError, AttributeError):
        return Synchronised.UNKNOWN
    if state < 0:
        return Synchronised.UNKNOWN
    return Synchronised.NO if state == _TIME_ERROR else Synchronised.YES


def now() -> float:
    """Unix time in seconds, moved by the offset file if one is named."""
    path = os.environ.get(ENVIRONMENT_VARIABLE)
    return time.time() + (_offset_s(Path(path)) if path else 0.0)


def now_unix_s() -> int:
    """Unix time in whole seconds."""
    return int(now())


def _offset_s(path: Path) -> float:
    try:
        offset_s = float(path.read_text("ascii"))
    except (OSError, ValueError):
        return 0.0
    return offset_s if math.isfinite(offset_s) else 0.0
