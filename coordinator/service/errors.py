"""What leaves a servicer when something fails: the mapped error, and the log's line."""

from __future__ import annotations

from coordinator.diagnostics import log
from nightshift.host.rpc import guarded


def _log_unexpected(method: str, error: BaseException) -> None:
    log.error("call failed inside", method=method, exc_info=error)


guarded_call = guarded(_log_unexpected)
"""Decorates every method of every servicer."""
