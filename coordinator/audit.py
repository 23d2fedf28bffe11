"""Who changed what: one row for each mutating command, in the transaction of the change."""

from __future__ import annotations

import getpass
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from coordinator.storage.rows import AuditRow
from nightshift.host.clock import now_unix_s

SERVICE = "coordinator"
_acting: ContextVar[str] = ContextVar("acting", default="")
_unnamed = ""


@contextmanager
def acting_as(actor: str) -> Iterator[None]:
    """Let what this thread changes in the block be written down under a name: "admin carol"."""
    before = _acting.get()
    _acting.set(actor)
    try:
        yield
    finally:
        _acting.set(before)  # not by the token: a stream that nobody reads any more is closed by another thread


def act_for_the_service() -> None:
    """Let what this process changes be written down as the coordinator's own, where nobody asked for it."""
    global _unnamed  # noqa: PLW0603 - said once, when the process begins to serve
    _unnamed = SERVICE


def record(session: Session, verb: str, subject: str, **detail: Any) -> None:
    """Write an audit row.

    Args:
        session: transaction of the change itself.
        verb: the command, "token create".
        subject: what it was done to; an id or a name, never a secret.
        detail: what else an auditor asks, as JSON values.
    """
    session.add(
        AuditRow(
            time_unix_s=now_unix_s(),
            actor=_acting.get() or _unnamed or _local_user(),
            verb=verb,
            subject=subject,
            detail=json.dumps(detail, sort_keys=True),
        )
    )


def entries(
    session: Session, *, before: int | None, since_unix_s: int | None, actor: str, verb: str, most: int
) -> Sequence[AuditRow]:
    """Audit rows, newest first.

    Args:
        session: reads.
        before: only rows with a smaller number; None for all.
        since_unix_s: only rows from this moment on; None for all.
        actor: only by this one; "" for all.
        verb: only of this command; "" for all.
        most: so many at most.
    """
    rows = select(AuditRow).order_by(AuditRow.audit_id.desc()).limit(most)
    if before is not None:
        rows = rows.where(AuditRow.audit_id < before)
    if since_unix_s is not None:
        rows = rows.where(AuditRow.time_unix_s >= since_unix_s)
    if actor:
        rows = rows.where(AuditRow.actor == actor)
    if verb:
        rows = rows.where(AuditRow.verb == verb)
    return session.scalars(rows).all()


def _local_user() -> str:
    try:
        return f"local user {getpass.getuser()}"
    except (KeyError, OSError):  # a container may have no name for its user
        return "local user"
