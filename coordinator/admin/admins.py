"""Operators: certified, recognised at each call, revoked."""

from __future__ import annotations

import re
from collections.abc import Sequence

from cryptography import x509
from sqlalchemy import select
from sqlalchemy.orm import Session

from coordinator.admin.authority import AdminAuthority
from coordinator.enrolment.authority import requested_key
from coordinator.storage.rows import AdminRole, AdminRow
from nightshift.protocol.chains import not_after_unix_s
from nightshift.protocol.errors import NotFoundError, RevokedError, UsageError
from nightshift.protocol.identity import DeviceId, device_id

LONGEST_DAYS = 730
SEEN_EVERY_S = 60
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}")


def issue(
    session: Session,
    authority: AdminAuthority,
    *,
    name: str,
    role: str,
    days: int,
    request_der: bytes,
    now_unix_s: int,
) -> tuple[AdminRow, x509.Certificate]:
    """Certify an operator's key, and remember it.

    Args:
        session: writes.
        authority: signs.
        name: who it is, for the audit.
        role: "operator" or "viewer".
        days: how long it lasts.
        request_der: signed by the operator's key, PKCS #10.
        now_unix_s: when.

    Raises:
        UsageError: no plain name, one that is in use, no such role, or no such time.
        MalformedError: the request is none.
    """
    if not _NAME.fullmatch(name):
        raise UsageError(f"{name[:80]!r} cannot name an operator; use letters, digits, '.', '_', '-' and '@'")
    if role not in set(AdminRole):
        raise UsageError(f"{role[:80]!r} is no role; use {' or '.join(AdminRole)}")
    if not 1 <= days <= LONGEST_DAYS:
        raise UsageError(f"a certificate may last 1 to {LONGEST_DAYS} days, not {days}")
    if any(row.name == name and state_of(row, now_unix_s) == "valid" for row in list_admins(session)):
        raise UsageError(
            f"operator {name!r} has a valid certificate; revoke it first (coordinator admin revoke {name}), "
            "or choose another name"
        )
    key = requested_key(request_der)
    identifier = device_id(key)
    if session.get(AdminRow, identifier) is not None:
        raise UsageError("this key was certified before; make a new one")
    certificate = authority.issue(key, name, now_unix_s, days)
    row = AdminRow(
        admin_id=identifier,
        name=name,
        role=AdminRole(role),
        issued_unix_s=now_unix_s,
        expires_unix_s=not_after_unix_s(certificate),
    )
    session.add(row)
    session.flush()
    return row, certificate


def recognise(session: Session, identifier: DeviceId, now_unix_s: int) -> AdminRow:
    """The operator of a certificate that passed the handshake.

    Raises:
        RevokedError: unknown here, revoked, or expired.
    """
    row = session.get(AdminRow, identifier)
    if row is None:
        raise RevokedError("this coordinator issued no such admin certificate; ask for one: coordinator admin issue")
    state = state_of(row, now_unix_s)
    if state != "valid":
        raise RevokedError(
            f"the admin certificate of {row.name} is {state}; ask for a new one: coordinator admin issue"
        )
    return row


def list_admins(session: Session) -> Sequence[AdminRow]:
    """All that were ever certified, newest first."""
    return session.scalars(select(AdminRow).order_by(AdminRow.issued_unix_s.desc(), AdminRow.admin_id)).all()


def revoke(session: Session, name: str, now_unix_s: int) -> AdminRow:
    """Let a certificate pass no longer.

    Args:
        session: writes.
        name: of the operator, whose valid certificate is meant; or the first digits of the certificate's id.
        now_unix_s: when.

    Raises:
        NotFoundError: none or several are called so.
    """
    rows = list_admins(session)
    found = [row for row in rows if row.name == name and row.revoked_unix_s is None] or [
        row for row in rows if len(name) >= 8 and row.admin_id.hex().startswith(name.lower())
    ]
    if len(found) != 1:
        many = "no admin certificate is" if not found else f"{len(found)} admin certificates are"
        raise NotFoundError(f"{many} called {name!r}; see `coordinator admin list`")
    if found[0].revoked_unix_s is None:
        found[0].revoked_unix_s = now_unix_s
    return found[0]


def state_of(row: AdminRow, now_unix_s: int) -> str:
    """What a certificate is: "valid", "expired" or "revoked"."""
    if row.revoked_unix_s is not None:
        return "revoked"
    return "valid" if now_unix_s < row.expires_unix_s else "expired"
