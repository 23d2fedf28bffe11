"""What leaves a servicer when something fails: the mapped error, and the log's line."""

from __future__ import annotations

from coordinator.diagnostics import log
from nightshift.host.rpc import guarded
from nightshift.protocol.errors import NightshiftError, ResourceError, UnavailableError


def _log_unexpected(method: str, error: BaseException) -> None:
    log.error("call failed inside", method=method, exc_info=error)


def _as_devices_hear_it(error: NightshiftError) -> NightshiftError:
    """A full disk here is no full disk there, and where it is concerns operators only."""
    if not isinstance(error, ResourceError):
        return error
    log.error("no room", message=str(error))
    return UnavailableError(
        "the coordinator has no room to keep anything; nothing was acknowledged that is not kept, try again later"
    )


guarded_call = guarded(_log_unexpected, as_told=_as_devices_hear_it)
"""Decorates every method that devices call."""
operators_call = guarded(_log_unexpected)
"""Decorates every method that operators call: they are told what is wrong, and where."""
