"""The join token: what an operator gives to a person who adds a device.

A gRPC channel cannot skip verification, so the token brings the root
certificate before the first connection, with both listeners' addresses and a
secret. Everything but the secret is public. Version 1 is the prefix
`nightshift1` and base64url (RFC 4648, section 5) of: u16 length and bytes of
the root certificate (DER), of the join address, of the device address, and of
the secret, then the first four bytes of a SHA-256 over all of it, so that a
token cut short in a mail is told apart from a wrong one.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import struct
from dataclasses import dataclass

from nightshift.protocol.addresses import is_address
from nightshift.protocol.errors import TokenError, UsageError

PREFIX = "nightshift1"
SECRET_BYTES = 32
MAX_ROOT_BYTES = 4096
MAX_TOKEN_CHARACTERS = 8192
_CHECK_BYTES = 4


@dataclass(frozen=True, slots=True)
class JoinToken:
    """What a device needs before it knows anybody.

    Attributes:
        root_der: the coordinator's root certificate, DER.
        join_address: host:port of the listener for devices without a certificate.
        device_address: host:port of the listener for enrolled devices.
        secret: 32 bytes that the coordinator knows by their hash.
    """

    root_der: bytes
    join_address: str
    device_address: str
    secret: bytes

    def __repr__(self) -> str:
        return f"JoinToken(join_address={self.join_address!r}, secret=...)"

    def encode(self) -> str:
        """The token as one word.

        Raises:
            UsageError: an address is not host:port, or the whole is too long for a token.
        """
        for address in (self.join_address, self.device_address):
            if not is_address(address):
                raise UsageError(f"{address!r} cannot go into a join token; expected host:port in plain ASCII")
        if len(self.secret) != SECRET_BYTES:
            raise UsageError(f"a join token's secret has {SECRET_BYTES} bytes, got {len(self.secret)}")
        if len(self.root_der) > MAX_ROOT_BYTES:
            raise UsageError(f"a join token's root certificate may take {MAX_ROOT_BYTES} bytes")
        fields = (self.root_der, self.join_address.encode(), self.device_address.encode(), self.secret)
        body = b"".join(struct.pack(">H", len(field)) + field for field in fields)
        check = hashlib.sha256(body).digest()[:_CHECK_BYTES]
        return PREFIX + base64.urlsafe_b64encode(body + check).decode("ascii").rstrip("=")

    @classmethod
    def decode(cls, text: str) -> JoinToken:
        """Read a token that a person pasted.

        Raises:
            TokenError: not a token, of a newer version, or cut short.
        """
        text = "".join(text.split())
        if not text.startswith(PREFIX) or len(text) > MAX_TOKEN_CHARACTERS:
            raise TokenError(
                f"this is not a join token: it should begin with {PREFIX!r}. "
                "Ask the operator for the output of `coordinator token create`"
            )
        encoded = text[len(PREFIX) :]
        try:
            raw = base64.b64decode(encoded + "=" * (-len(encoded) % 4), altchars=b"-_", validate=True)
        except (binascii.Error, ValueError) as error:
            raise _damaged() from error
        body = raw[:-_CHECK_BYTES]
        fields = []
        offset = 0
        while offset + 2 <= len(body):
            (length,) = struct.unpack_from(">H", body, offset)
            fields.append(body[offset + 2 : offset + 2 + length])
            offset += 2 + length
        if len(fields) != 4:
            raise _damaged()
        try:
            token = cls(fields[0], fields[1].decode("ascii"), fields[2].decode("ascii"), fields[3])
            # One comparison proves the check value, every length, the addresses, and that of
            # the spellings that base64 allows this is the one that was given out.
            intact = token.encode() == text
        except (UnicodeDecodeError, UsageError) as error:
            raise _damaged() from error
        if not intact:
            raise _damaged()
        return token


def _damaged() -> TokenError:
    return TokenError("the join token is incomplete or altered; copy the whole word again, or ask for a new one")
