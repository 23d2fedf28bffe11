"""Whom a device believes, fixed when it joined."""

from __future__ import annotations

from dataclasses import dataclass

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec


@dataclass(frozen=True, slots=True)
class Trust:
    """The coordinator as the join token introduced it.

    Attributes:
        root: certificate authority; issues device, server and signing certificates.
        signing_key: signs plans, checkpoints, releases and revocation lists.
        log_origin: first line of every checkpoint of this coordinator's log.
    """

    root: x509.Certificate
    signing_key: ec.EllipticCurvePublicKey
    log_origin: str
