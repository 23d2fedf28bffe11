"""What gRPC's C core reads from the environment when it is first loaded."""

from __future__ import annotations

import os

# Forward secrecy and authenticated encryption only (RFC 9325, section 4.2); TLS 1.3 suites are always so.
CIPHER_SUITES = "ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-ECDSA-AES256-GCM-SHA384:ECDHE-ECDSA-CHACHA20-POLY1305"


def prepare_grpc() -> None:
    """Set cipher suites and silence, unless the operator has set them; call it before grpc is imported.

    Left to itself the C core writes a line to stderr for every stranger whose handshake fails.
    """
    os.environ.setdefault("GRPC_SSL_CIPHER_SUITES", CIPHER_SUITES)
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
