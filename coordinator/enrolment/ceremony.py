"""The rare acts of the root: going to a safe, and certifying the next intermediate.

With the root's key here one command does it. With the key in a safe the
machine that serves makes a request, the machine that has the key signs it, and
the certificate comes back: the key never meets the network.

::

    here                                      the machine in the safe
    ca offline FILE  -- the root's key -->    FILE
    ca request REQUEST  -- REQUEST -->        ca sign-intermediate --root FILE REQUEST CERTIFICATE
    ca install CERTIFICATE  <-- CERTIFICATE --
"""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization

from coordinator.enrolment import issuing
from coordinator.enrolment.authority import (
    INTERMEDIATE,
    ROOT_CERTIFICATE,
    ROOT_KEY,
    certify_intermediate,
    new_intermediate,
    requested_key,
)
from coordinator.enrolment.issuing import Issuer
from coordinator.enrolment.key_files import (
    certificates_pem,
    key_pem,
    read_certificates,
    read_key,
    read_pair,
    write_pair,
)
from nightshift.host.files import sync_directory, write_atomic
from nightshift.protocol.chains import Chain, verified_issuer
from nightshift.protocol.errors import RevokedError, UsageError, VerificationError

_NEXT_KEY = "intermediate-next.key"
MAX_FILE_BYTES = 16_384


def root_key_is_here(keys: Path) -> bool:
    """Whether the keys directory still holds the root's key."""
    return (keys / ROOT_KEY).exists()


def take_offline(keys: Path, target: Path) -> None:
    """Move the root's key, with its certificate, to a file; it is removed here once the file was read back.

    Raises:
        UsageError: the key is not here, or the file exists.
        ResourceError: the file cannot be written; the key stays.
    """
    if not root_key_is_here(keys):
        raise UsageError("the root's key is not in the keys directory; it was taken offline before")
    if target.exists():
        raise UsageError(f"{target} exists; name a new file")
    key, certificate = read_key(keys / ROOT_KEY), read_certificates(keys / ROOT_CERTIFICATE)[0]
    write_pair(target, key, certificate)
    written, (read_back, *_) = read_pair(target)
    if read_back != certificate or written.private_numbers() != key.private_numbers():
        raise UsageError(f"{target} does not hold what was written to it; the root's key stays here")
    (keys / ROOT_KEY).unlink()
    sync_directory(keys)


def renew_here(keys: Path, now_unix_s: int) -> x509.Certificate:
    """A new intermediate, while the root's key is here.

    Raises:
        UsageError: it is not.
    """
    if not root_key_is_here(keys):
        raise UsageError(
            "the root's key is offline; run `coordinator ca request FILE` here, `coordinator ca sign-intermediate` "
            "where the key is, then `coordinator ca install FILE` here"
        )
    root = Issuer(read_certificates(keys / ROOT_CERTIFICATE)[0], read_key(keys / ROOT_KEY))
    made = new_intermediate(root, issuing.new_key(), now_unix_s)
    write_pair(keys / INTERMEDIATE, made.key, made.certificate)
    return made.certificate


def request(keys: Path) -> bytes:
    """A signing request for the next intermediate, PEM; asked again it is for the same key until it is installed."""
    file = keys / _NEXT_KEY
    key = read_key(file) if file.exists() else issuing.new_key()
    if not file.exists():
        write_atomic(file, key_pem(key), mode=0o600)
    made = x509.CertificateSigningRequestBuilder(subject_name=x509.Name([])).sign(key, hashes.SHA256())
    return made.public_bytes(serialization.Encoding.PEM)


def sign_intermediate(root_file: Path, request_pem: bytes, now_unix_s: int) -> bytes:
    """The intermediate's certificate, PEM, by a root key that was taken offline.

    Raises:
        UsageError: the file does not hold a root, or the request is none.
        MalformedError: the request is not signed by its own key.
    """
    key, (certificate, *_) = read_pair(root_file)
    if certificate.issuer != certificate.subject:
        raise UsageError(f"{root_file} does not hold a root; it is the file that `coordinator ca offline` wrote")
    try:
        request_der = x509.load_pem_x509_csr(request_pem).public_bytes(serialization.Encoding.DER)
    except ValueError as error:
        raise UsageError("the request is not a PEM signing request; make it with `coordinator ca request`") from error
    now = datetime.fromtimestamp(now_unix_s, UTC)
    return certificates_pem(certify_intermediate(Issuer(certificate, key), requested_key(request_der), now))


def install(keys: Path, certificate_file: Path, now_unix_s: int) -> x509.Certificate:
    """Let the requested intermediate take the place of the present one.

    Raises:
        UsageError: not a certificate of this root for the requested key, or not valid now. Nothing changed.
    """
    if not (keys / _NEXT_KEY).exists():
        raise UsageError("no intermediate was requested here; begin with `coordinator ca request`")
    if not certificate_file.exists() or certificate_file.stat().st_size > MAX_FILE_BYTES:
        raise UsageError(f"{certificate_file} is not the certificate that `coordinator ca sign-intermediate` wrote")
    key = read_key(keys / _NEXT_KEY)
    try:
        certificate = x509.load_pem_x509_certificate(certificate_file.read_bytes())
        verified_issuer(
            Chain(certificate, certificate), read_certificates(keys / ROOT_CERTIFICATE)[0], at_unix_s=now_unix_s
        )
    except (ValueError, VerificationError, RevokedError) as error:
        raise UsageError(f"{certificate_file} cannot be installed: {error}") from error
    if certificate.public_key() != key.public_key():
        raise UsageError(f"{certificate_file} is for another key than the one that was requested here")
    write_pair(keys / INTERMEDIATE, key, certificate)
    (keys / _NEXT_KEY).unlink()
    return certificate
