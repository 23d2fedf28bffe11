"""The nonces by which a coordinator notices that this device exists twice.

Each check-in presents the nonce that the one before proposed. A proposal is
durable before it is sent, and is repeated until a check-in is answered: a
device that was killed in between says the same again. A copy of this device
would propose another one.
"""

from __future__ import annotations

import os

from edge_client.store.database import Database

NONCE_BYTES = 32
_ANSWERED, _PROPOSED = "nonce_answered", "nonce_proposed"


def presented(database: Database) -> bytes:
    """Of the last check-in that was answered; empty before the first, and after the store was lost."""
    return database.blob(_ANSWERED) or b""


def proposed(database: Database) -> bytes:
    """For the next check-in: 32 random bytes, durable when this returns."""
    nonce = database.blob(_PROPOSED)
    if nonce is None:
        nonce = os.urandom(NONCE_BYTES)
        database.put(**{_PROPOSED: nonce})
    return nonce


def answered(database: Database, nonce: bytes) -> None:
    """The coordinator took a proposal; the next is drawn when it is needed, so that a copy made now draws another."""
    with database.transaction() as connection:
        database.put(**{_ANSWERED: nonce})
        connection.execute("DELETE FROM meta WHERE name = ?", (_PROPOSED,))
