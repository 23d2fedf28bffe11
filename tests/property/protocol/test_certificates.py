"""Whatever bytes a root signs or a stranger sends, only errors of the tree come out."""

from __future__ import annotations

from contextlib import suppress

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given, settings
from hypothesis import strategies as st

from nightshift.protocol.certificates import verify_device_certificate
from nightshift.protocol.errors import NightshiftError
from tests.support.authority import NOW_UNIX_S, Authority, new_key

AUTHORITY = Authority.make()
CERTIFICATE = AUTHORITY.issue(
    new_key().public_key(), extensions=[(x509.SubjectAlternativeName([x509.DNSName("device.example")]), False)]
)
BODY = x509.load_der_x509_certificate(CERTIFICATE).tbs_certificate_bytes
ECDSA_WITH_SHA256 = bytes.fromhex("300a06082a8648ce3d040302")


def tagged(tag: int, content: bytes) -> bytes:
    """One DER element of up to 64 KiB."""
    size = len(content)
    length = (
        bytes([size]) if size < 128 else b"\x81" + bytes([size]) if size < 256 else b"\x82" + size.to_bytes(2, "big")
    )
    return bytes([tag]) + length + content


def signed_by_the_root(body: bytes) -> bytes:
    """A certificate around any body at all: what a hostile operator could issue."""
    signature = AUTHORITY.root_key.sign(body, ec.ECDSA(hashes.SHA256()))
    return tagged(0x30, body + ECDSA_WITH_SHA256 + tagged(0x03, b"\0" + signature))


def test_the_builder_of_this_module_is_honest() -> None:
    verify_device_certificate(signed_by_the_root(BODY), AUTHORITY.root, NOW_UNIX_S)


# A serial number that is not positive makes the library warn; such a certificate is judged like any other.
@pytest.mark.filterwarnings("ignore:Parsed a serial number:cryptography.utils.CryptographyDeprecationWarning")
@settings(max_examples=400)
@given(
    st.lists(st.tuples(st.integers(0, len(BODY) - 1), st.integers(0, 255)), min_size=1, max_size=4),
    st.integers(-(2**63), 2**63 - 1),
)
def test_an_altered_body_signed_again(changes: list[tuple[int, int]], at_unix_s: int) -> None:
    body = bytearray(BODY)
    for place, value in changes:
        body[place] = value
    with suppress(NightshiftError):
        verify_device_certificate(signed_by_the_root(bytes(body)), AUTHORITY.root, at_unix_s)
    with suppress(NightshiftError):
        verify_device_certificate(signed_by_the_root(bytes(body)), AUTHORITY.root, NOW_UNIX_S)


@pytest.mark.filterwarnings("ignore:Parsed a serial number:cryptography.utils.CryptographyDeprecationWarning")
@settings(max_examples=200)
@given(st.integers(0, len(CERTIFICATE) - 1), st.integers(1, 255))
def test_an_altered_certificate_never_passes_as_another(place: int, change: int) -> None:
    altered = bytearray(CERTIFICATE)
    altered[place] ^= change
    honest = verify_device_certificate(CERTIFICATE, AUTHORITY.root, NOW_UNIX_S)
    with suppress(NightshiftError):
        # ECDSA signatures can be rewritten without the key; what they sign cannot.
        assert verify_device_certificate(bytes(altered), AUTHORITY.root, NOW_UNIX_S) == honest


@given(st.binary(max_size=600))
def test_garbage(data: bytes) -> None:
    with suppress(NightshiftError):
        verify_device_certificate(data, AUTHORITY.root, NOW_UNIX_S)
