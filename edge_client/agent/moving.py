"""Following a coordinator to another address, without joining again.

The addresses come with each check-in, signed. They are taken once a call to
the new one has worked: a slip of the operator's pen strands nobody.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from edge_client.agent.renewal import ask_for_certificate
from edge_client.agent.session import Session
from edge_client.connection import connect
from edge_client.identity import update_membership
from nightshift.protocol.errors import UnreachableError, VerificationError

if TYPE_CHECKING:
    from nightshift.v1 import device_pb2

_NUMBER = "addresses_number"


def follow(session: Session, message: device_pb2.Addresses) -> None:
    """Take the addresses that a check-in announced, if they are new and work.

    Raises:
        MalformedError: not host:port.
        VerificationError: not signed by the signing key, or older than addresses seen before.
    """
    from nightshift.protocol.addresses import verify_addresses

    database, membership = session.store.database, session.membership
    book = verify_addresses(message, trust=session.trust, last_number=database.number(_NUMBER) or 0)
    if (book.device_address, book.join_address) != (membership.device_address, membership.join_address):
        if book.device_address != membership.device_address and not _answers(session, book.device_address):
            return
        update_membership(session.home, device_address=book.device_address, join_address=book.join_address)
        session.notes.append(f"the coordinator has moved; from now on it is called at {book.device_address}")
    if book.number != database.number(_NUMBER):
        database.put(**{_NUMBER: book.number})


def _answers(session: Session, address: str) -> bool:
    trial = replace(session.membership, device_address=address)
    try:
        with connect(session.identity, trial) as connection:
            ask_for_certificate(session, connection)
    except (UnreachableError, VerificationError) as error:
        session.notes.append(
            f"the coordinator says that it moves to {address}, which does not work yet; "
            f"it is called at {session.membership.device_address} until it does ({error})"
        )
        return False
    return True
