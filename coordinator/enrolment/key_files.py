"""Keys and certificates as PEM files of the keys directory.

A key and its certificate are one file where they change together: replaced as
a whole, there is no moment at which they do not belong to each other.
"""

from __future__ import annotations

from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from nightshift.host.files import read_private, write_atomic
from nightshift.protocol.errors import UsageError


def key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    """PKCS #8, not encrypted: the file's mode protects it. Never log it."""
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def certificates_pem(*certificates: x509.Certificate) -> bytes:
    """One after the other, a leaf first."""
    return b"".join(each.public_bytes(serialization.Encoding.PEM) for each in certificates)


def read_certificates(path: Path) -> list[x509.Certificate]:
    """All certificates of a file.

    Raises:
        UsageError: absent, or no certificate in it.
    """
    try:
        return x509.load_pem_x509_certificates(path.read_bytes())
    except FileNotFoundError as error:
        raise UsageError(f"{path} is missing; restore the keys directory from a backup") from error
    except ValueError as error:
        raise UsageError(f"{path} is not a PEM certificate; restore the keys directory from a backup") from error


def read_key(path: Path) -> ec.EllipticCurvePrivateKey:
    """The private key of a file that nobody else can read.

    Raises:
        UsageError: absent, readable by others, or no P-256 key.
    """
    pem = read_private(path)
    try:
        key = serialization.load_pem_private_key(pem, password=None)
    except (ValueError, TypeError):
        key = None
    if not isinstance(key, ec.EllipticCurvePrivateKey) or not isinstance(key.curve, ec.SECP256R1):
        raise UsageError(f"{path} is not a P-256 private key; restore the keys directory from a backup")
    return key


def write_pair(path: Path, key: ec.EllipticCurvePrivateKey, *certificates: x509.Certificate) -> None:
    """A key and its certificates in one file, mode 0600."""
    write_atomic(path, key_pem(key) + certificates_pem(*certificates), mode=0o600)


def read_pair(path: Path) -> tuple[ec.EllipticCurvePrivateKey, list[x509.Certificate]]:
    """What `write_pair` wrote.

    Raises:
        UsageError: absent, readable by others, damaged, or a certificate of another key.
    """
    key, certificates = read_key(path), read_certificates(path)
    if certificates[0].public_key() != key.public_key():
        raise UsageError(f"{path} holds a certificate of another key; restore the keys directory from a backup")
    return key, certificates
