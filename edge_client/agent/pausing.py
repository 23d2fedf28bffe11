"""The owner's word to leave the machine alone for a while."""

from __future__ import annotations

import re

from edge_client.agent.eligibility import PAUSED_UNTIL
from edge_client.conditions.moment import FOREVER_UNIX_S
from edge_client.home import Home
from edge_client.store import open_store
from nightshift.host.clock import now_unix_s
from nightshift.protocol.errors import UsageError

_SPAN = re.compile(r"([0-9]{1,5})([mhdw])")
_UNIT_S = {"m": 60, "h": 3600, "d": 86_400, "w": 7 * 86_400}


def parse_span(text: str) -> int:
    """`45m`, `12h`, `3d` or `2w`, in seconds.

    Raises:
        UsageError: anything else, or no time at all.
    """
    match = _SPAN.fullmatch(text.strip())
    seconds = int(match[1]) * _UNIT_S[match[2]] if match else 0
    if not seconds:
        raise UsageError(f"{text!r} is no span of time such as 45m, 12h, 3d or 2w")
    return seconds


def pause(home: Home, span_s: int | None) -> int:
    """Let no timer begin a pass, and training that runs now end at a checkpoint.

    Args:
        home: the device's directories.
        span_s: for how long; None until told otherwise.

    Returns:
        Until when, Unix seconds; `FOREVER_UNIX_S` for no end.
    """
    until = FOREVER_UNIX_S if span_s is None else now_unix_s() + span_s
    # Without the home's lock, which a running pass holds: it reads this while it trains.
    with open_store(home) as store:
        store.database.put(**{PAUSED_UNTIL: until})
    return until


def resume(home: Home) -> bool:
    """End a pause; False if there was none."""
    with open_store(home) as store:
        paused = (store.database.number(PAUSED_UNTIL) or 0) > now_unix_s()
        store.database.put(**{PAUSED_UNTIL: 0})
    return paused
