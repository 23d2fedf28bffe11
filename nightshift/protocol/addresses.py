"""Where a coordinator is called: said at each check-in, so that it may move without anyone joining again.

Signed by the signing key and numbered: TLS alone would let whoever stole the
server's key send devices elsewhere for good, and an old message would send
them back.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from nightshift.protocol.domains import Domain, frame, u64
from nightshift.protocol.errors import MalformedError, VerificationError
from nightshift.protocol.identity import verify
from nightshift.protocol.trust import Trust
from nightshift.v1 import device_pb2

# host:port and nothing that gRPC would take for another kind of target (unix:, dns:, vsock:).
_ADDRESS = re.compile(
    r"(?!(?:dns|ipv4|ipv6|unix|unix-abstract|vsock|xds):)"
    r"(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9](?:[A-Za-z0-9._-]{0,252}[A-Za-z0-9])?\.?):[1-9][0-9]{0,4}"
)


@dataclass(frozen=True, slots=True)
class AddressBook:
    """Both listeners, host:port.

    Attributes:
        number: grows with every change.
        join_address: for devices without a valid certificate.
        device_address: for enrolled devices.
    """

    number: int
    join_address: str
    device_address: str


def is_address(text: str) -> bool:
    """Whether a text is host:port, in plain ASCII."""
    return _ADDRESS.fullmatch(text) is not None


def sign_addresses(book: AddressBook, sign: Callable[[bytes], bytes]) -> device_pb2.Addresses:
    """The message of a check-in."""
    return device_pb2.Addresses(
        number=book.number,
        join_address=book.join_address,
        device_address=book.device_address,
        signature=sign(_message(book)),
    )


def verify_addresses(message: device_pb2.Addresses, *, trust: Trust, last_number: int = 0) -> AddressBook:
    """Check and read them.

    Args:
        message: as received.
        trust: whose key must have signed it.
        last_number: of the newest addresses that this device has seen.

    Raises:
        MalformedError: not host:port.
        SignatureInvalidError: not made by the signing key.
        VerificationError: older than addresses seen before.
    """
    book = AddressBook(message.number, message.join_address, message.device_address)
    if not (is_address(book.join_address) and is_address(book.device_address)):
        raise MalformedError("the coordinator's new addresses are malformed; expected host:port")
    verify(trust.signing_key, message.signature, _message(book), what="the signature of the coordinator's addresses")
    if book.number < last_number:
        raise VerificationError(
            f"the coordinator's addresses {book.number} are older than {last_number} seen before; they were not taken"
        )
    return book


def _message(book: AddressBook) -> bytes:
    return frame(Domain.ADDRESSES, u64(book.number), book.join_address.encode(), book.device_address.encode())
