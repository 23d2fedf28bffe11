"""What an operator's machine needs to call a coordinator: one TOML file, mode 0600.

::

    name = "carol"
    address = "coordinator.example:7445"
    server_name = "coordinator.example"
    root = \"\"\"PEM\"\"\"          what the server's certificate stands below
    certificate = \"\"\"PEM\"\"\"
    key = \"\"\"PEM\"\"\"           private
"""

from __future__ import annotations

import json
import tomllib
from dataclasses import dataclass, field, fields
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from coordinator.enrolment import issuing
from coordinator.enrolment.key_files import key_pem
from nightshift.admin.v1 import admin_pb2
from nightshift.host.files import read_private, write_atomic
from nightshift.protocol.errors import UsageError

MAX_FILE_BYTES = 32 * 1024


@dataclass(frozen=True, slots=True)
class Credentials:
    """As read from the file; the three last are PEM."""

    name: str
    address: str
    server_name: str
    root: str
    certificate: str
    key: str = field(repr=False)

    @classmethod
    def of(cls, reply: admin_pb2.IssueAdminResponse, key: ec.EllipticCurvePrivateKey) -> Credentials:
        """Of a new certificate and the key that it was asked for."""
        return cls(
            name=reply.admin.name,
            address=reply.address,
            server_name=reply.server_name,
            root=reply.root.decode("ascii"),
            certificate=reply.certificate.decode("ascii"),
            key=key_pem(key).decode("ascii"),
        )

    @classmethod
    def read(cls, path: Path) -> Credentials:
        """Read a file that nobody else can read.

        Raises:
            UsageError: absent, readable by others, or not such a file.
        """
        data = read_private(path)
        try:
            found = tomllib.loads(data.decode("utf-8")) if len(data) <= MAX_FILE_BYTES else {}
        except (UnicodeDecodeError, tomllib.TOMLDecodeError):
            found = {}
        names = [each.name for each in fields(cls)]
        if sorted(found) != sorted(names) or not all(isinstance(value, str) for value in found.values()):
            raise UsageError(
                f"{path} does not hold admin credentials; it is a file that `coordinator admin issue` wrote"
            )
        return cls(**found)

    def write(self, path: Path) -> None:
        """Write the file, mode 0600.

        Raises:
            UsageError: it exists.
            ResourceError: the disk is full, read-only or failing.
        """
        if path.exists():
            raise UsageError(f"{path} exists; name a new file")
        lines = ["# Nightshift admin credentials. Whoever has this file can do what its owner may.\n"]
        for each in fields(self):
            value = getattr(self, each.name)
            # A JSON string is a TOML string.
            lines.append(
                f'{each.name} = """\n{value}"""\n' if "\n" in value else f"{each.name} = {json.dumps(value)}\n"
            )
        write_atomic(path, "".join(lines).encode(), mode=0o600)


def new_request() -> tuple[ec.EllipticCurvePrivateKey, bytes]:
    """A fresh key, and a signing request for it (PKCS #10, DER)."""
    key = issuing.new_key()
    request = x509.CertificateSigningRequestBuilder(subject_name=x509.Name([])).sign(key, hashes.SHA256())
    return key, request.public_bytes(serialization.Encoding.DER)
