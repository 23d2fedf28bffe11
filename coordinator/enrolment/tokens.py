"""Join tokens: made by the operator, used by devices, known by the hash of their secret."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Sequence

from sqlalchemy import select
from sqlalchemy.orm import Session

from coordinator.storage.rows import Token, TokenUse
from nightshift.host.tokens import SECRET_BYTES
from nightshift.protocol.errors import MalformedError, NotFoundError, TokenError
from nightshift.protocol.identity import DeviceId


def create_token(session: Session, *, uses: int, ttl_s: int, now_unix_s: int) -> tuple[Token, bytes]:
    """Make a token; the 32-byte secret is returned here and never again."""
    secret = secrets.token_bytes(SECRET_BYTES)
    token = Token(
        token_id=secrets.token_hex(4),
        secret_sha256=_digest(secret),
        uses_allowed=uses,
        created_unix_s=now_unix_s,
        expires_unix_s=now_unix_s + ttl_s,
    )
    session.add(token)
    return token, secret


def list_tokens(session: Session) -> Sequence[Token]:
    """All tokens, newest first."""
    return session.scalars(select(Token).order_by(Token.created_unix_s.desc(), Token.token_id)).all()


def revoke_token(session: Session, token_id: str, now_unix_s: int) -> Token:
    """No further device may use the token; those that joined stay.

    Raises:
        NotFoundError: no such token.
    """
    token = session.get(Token, token_id)
    if token is None:
        raise NotFoundError(f"there is no token {token_id!r}; `coordinator token list` shows them")
    if token.revoked_unix_s is None:
        token.revoked_unix_s = now_unix_s
    return token


def find_token(session: Session, secret: bytes) -> Token:
    """The token of a secret, whatever its state.

    Raises:
        MalformedError: the secret is not 32 bytes.
        TokenError: no token has this secret.
    """
    if len(secret) != SECRET_BYTES:
        raise MalformedError(f"a token's secret takes {SECRET_BYTES} bytes, got {len(secret)}")
    # Looked up by the hash of 256 random bits: the time of the look-up says nothing about any secret.
    token = session.scalar(select(Token).where(Token.secret_sha256 == _digest(secret)))
    if token is None:
        raise TokenError("this coordinator does not know the join token; ask its operator for a new one")
    return token


def has_used(session: Session, token: Token, device_id: DeviceId) -> bool:
    """Whether a device already joined with a token."""
    return session.get(TokenUse, (token.token_id, device_id)) is not None


def redeem(session: Session, token: Token, device_id: DeviceId, now_unix_s: int) -> None:
    """Count one use of a token for a device whose row exists.

    Raises:
        TokenError: revoked, expired or used up; the message says which.
    """
    if token.revoked_unix_s is not None:
        raise TokenError("the join token was revoked by the operator; ask for a new one")
    if now_unix_s >= token.expires_unix_s:
        raise TokenError("the join token has expired; ask the operator for a new one")
    if token.uses >= token.uses_allowed:
        raise TokenError("the join token is used up; ask the operator for a new one")
    token.uses += 1
    session.add(TokenUse(token_id=token.token_id, device_id=device_id, time_unix_s=now_unix_s))


def _digest(secret: bytes) -> bytes:
    return hashlib.sha256(secret).digest()
