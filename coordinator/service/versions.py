"""Which protocol versions this coordinator speaks."""

from __future__ import annotations

from nightshift.protocol.errors import IncompatibleError
from nightshift.protocol.plan import PROTOCOL_VERSION

OLDEST = 1
NEWEST = PROTOCOL_VERSION


def negotiate(lowest: int, highest: int) -> int:
    """The highest version that both sides speak.

    Raises:
        IncompatibleError: there is none; says which side must be brought up to date.
    """
    version = min(highest, NEWEST)
    if lowest <= version and version >= OLDEST:
        return version
    if highest < OLDEST:
        advice = "bring the client up to date: run its scripts/install.sh again"
    else:
        advice = "the client is newer than this coordinator; ask its operator to bring it up to date"
    raise IncompatibleError(
        f"the client speaks protocol versions {lowest} to {highest}, this coordinator {OLDEST} to {NEWEST}; {advice}"
    )
