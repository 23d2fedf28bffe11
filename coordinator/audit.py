"""Who changed what: one row for each mutating command, in the transaction of the change."""

from __future__ import annotations

import getpass
import json
from typing import Any

from sqlalchemy.orm import Session

from coordinator.storage.rows import AuditRow
from nightshift.host.clock import now_unix_s


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
            actor=_actor(),
            verb=verb,
            subject=subject,
            detail=json.dumps(detail, sort_keys=True),
        )
    )


def _actor() -> str:
    try:
        return f"local user {getpass.getuser()}"
    except (KeyError, OSError):  # a container may have no name for its user
        return "local user"
