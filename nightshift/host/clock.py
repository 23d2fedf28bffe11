"""The time by which deadlines are judged.

A test moves time for every process at once by writing a number of seconds into
the file that `NIGHTSHIFT_CLOCK_OFFSET_FILE` names. TLS is not moved by it.
"""

from __future__ import annotations

import math
import os
import time
from pathlib import Path

ENVIRONMENT_VARIABLE = "NIGHTSHIFT_CLOCK_OFFSET_FILE"


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
