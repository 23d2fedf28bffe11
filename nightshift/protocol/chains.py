"""A leaf certificate with the intermediate that issued it, as one field of a message.

The root's key can lie in a safe: an intermediate signs from day to day, and
whoever verifies holds the root only. So a certificate travels as a chain, the
leaf's DER followed by its issuer's, and says all that is needed to believe it,
also after the intermediate was replaced. A leaf that the root issued itself
is a chain of one.
"""

from __future__ import annotations

from dataclasses import dataclass

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding

from nightshift.protocol.errors import MalformedError, RevokedError, SignatureInvalidError, VerificationError
from nightshift.protocol.times import readable_time

MAX_CERTIFICATE_BYTES = 4096
LONGEST_CHAIN = 2
EXTENSION_ERRORS = (
    x509.ExtensionNotFound,
    x509.DuplicateExtension,
    x509.UnsupportedGeneralNameType,
    UnsupportedAlgorithm,
    ValueError,
    TypeError,
)
_SEQUENCE = 0x30


@dataclass(frozen=True, slots=True)
class Chain:
    """A leaf, and the intermediate that issued it; None where the root did."""

    leaf: x509.Certificate
    intermediate: x509.Certificate | None

    @property
    def pem(self) -> bytes:
        """As TLS presents it: the leaf first."""
        return b"".join(each.public_bytes(Encoding.PEM) for each in (self.leaf, self.intermediate) if each is not None)

    @property
    def der(self) -> bytes:
        """As it travels in a message."""
        return b"".join(each.public_bytes(Encoding.DER) for each in (self.leaf, self.intermediate) if each is not None)


def load_certificate(der: bytes) -> x509.Certificate:
    """Read one DER certificate.

    Raises:
        MalformedError: too large, or not a certificate.
    """
    if len(der) > MAX_CERTIFICATE_BYTES:
        raise MalformedError(f"a certificate may take {MAX_CERTIFICATE_BYTES} bytes, got {len(der)}")
    try:
        return x509.load_der_x509_certificate(der)
    except (ValueError, x509.InvalidVersion) as error:
        raise _unreadable() from error


def load_chain(der: bytes) -> Chain:
    """Read a leaf and, where there is one, its intermediate. Nothing is believed yet.

    Raises:
        MalformedError: more than two certificates, one too large, or bytes that are none.
    """
    if len(der) > LONGEST_CHAIN * MAX_CERTIFICATE_BYTES:
        # Said of one certificate: nobody sends two that are both so large.
        raise MalformedError(f"a certificate may take {MAX_CERTIFICATE_BYTES} bytes, got {len(der)}")
    certificates: list[x509.Certificate] = []
    while der or not certificates:
        if len(certificates) == LONGEST_CHAIN:
            raise MalformedError(f"a chain has at most {LONGEST_CHAIN} certificates: a leaf and its issuer's")
        size_bytes = _first_size_bytes(der)
        certificates.append(load_certificate(der[:size_bytes]))
        der = der[size_bytes:]
    return Chain(certificates[0], certificates[1] if len(certificates) > 1 else None)


def verified_issuer(chain: Chain, root: x509.Certificate, *, at_unix_s: int | None) -> x509.Certificate:
    """Who must have signed the chain's leaf: the root, or an intermediate that the root made for this.

    Args:
        chain: as read.
        root: the authority that a device learned from its join token.
        at_unix_s: when the intermediate must be valid; None does not ask.

    Raises:
        SignatureInvalidError: the intermediate is not the root's.
        VerificationError: it may not issue certificates.
        RevokedError: it is not yet or no longer valid.
    """
    intermediate = chain.intermediate
    if intermediate is None:
        return root
    try:
        intermediate.verify_directly_issued_by(root)
    except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm) as error:
        raise SignatureInvalidError("the intermediate certificate was not issued by this coordinator's root") from error
    try:
        constraints = intermediate.extensions.get_extension_for_class(x509.BasicConstraints).value
        usage = intermediate.extensions.get_extension_for_class(x509.KeyUsage).value
    except EXTENSION_ERRORS as error:
        raise VerificationError("the intermediate certificate does not say what it is for") from error
    # Length 0: it issues leaves and no further authorities (RFC 5280, section 4.2.1.9).
    if not constraints.ca or constraints.path_length != 0 or not usage.key_cert_sign:
        raise VerificationError("a certificate that may not issue others was offered as an intermediate")
    require_known_extensions(intermediate, "intermediate")
    if at_unix_s is not None and not _valid_at(intermediate, at_unix_s):
        raise RevokedError(
            f"the intermediate certificate is valid from {readable_time(not_before_unix_s(intermediate))} "
            f"to {readable_time(not_after_unix_s(intermediate))}, not at {readable_time(at_unix_s)}"
        )
    return intermediate


def require_known_extensions(certificate: x509.Certificate, kind: str) -> None:
    """Refuse what is critical and not understood (RFC 5280, section 4.2).

    Raises:
        VerificationError: there is such an extension.
    """
    if any(each.critical and isinstance(each.value, x509.UnrecognizedExtension) for each in certificate.extensions):
        raise VerificationError(f"the {kind} certificate carries a critical extension that this build does not know")


def not_before_unix_s(certificate: x509.Certificate) -> int:
    """Start of validity."""
    return int(certificate.not_valid_before_utc.timestamp())


def not_after_unix_s(certificate: x509.Certificate) -> int:
    """End of validity."""
    return int(certificate.not_valid_after_utc.timestamp())


def _valid_at(certificate: x509.Certificate, at_unix_s: int) -> bool:
    return not_before_unix_s(certificate) <= at_unix_s <= not_after_unix_s(certificate)


def _first_size_bytes(data: bytes) -> int:
    """Bytes of the first DER value, its header included (ITU-T X.690, section 8.1)."""
    if len(data) < 2 or data[0] != _SEQUENCE:
        raise _unreadable()
    first = data[1]
    if first < 0x80:
        return 2 + first
    width = first & 0x7F
    # 0x80, the indefinite form, is no DER; more than two bytes of length is past every limit here.
    if width == 0 or len(data) < 2 + width:
        raise _unreadable()
    return 2 + width + int.from_bytes(data[2 : 2 + width], "big")


def _unreadable() -> MalformedError:
    return MalformedError("a certificate could not be read; expected X.509 in DER")
