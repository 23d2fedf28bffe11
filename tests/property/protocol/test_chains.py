"""Whatever stands behind a leaf, only errors of the tree come out, and nobody else is believed."""

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
from tests.support.authority import DAY_S, NOW_UNIX_S, Authority, der, moment, name, new_key

ROOT = Authority.make()
KEY = new_key()
USAGE = x509.KeyUsage(
    digital_signature=False,
    content_commitment=False,
    key_encipherment=False,
    data_encipherment=False,
    key_agreement=False,
    key_cert_sign=True,
    crl_sign=True,
    encipher_only=False,
    decipher_only=False,
)
INTERMEDIATE = (
    x509.CertificateBuilder(issuer_name=ROOT.root.subject, subject_name=name("Intermediate"))
    .public_key(KEY.public_key())
    .serial_number(x509.random_serial_number())
    .not_valid_before(moment(NOW_UNIX_S - DAY_S))
    .not_valid_after(moment(NOW_UNIX_S + DAY_S))
    .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    .add_extension(USAGE, critical=True)
    .sign(ROOT.root_key, hashes.SHA256())
)
LEAF = Authority(KEY, INTERMEDIATE, KEY).issue(new_key().public_key())
CHAIN = LEAF + der(INTERMEDIATE)
BODY = INTERMEDIATE.tbs_certificate_bytes
ECDSA_WITH_SHA256 = bytes.fromhex("300a06082a8648ce3d040302")


def signed_by_the_root(body: bytes) -> bytes:
    """A certificate around any body: what a hostile operator could make an intermediate of."""
    signature = ROOT.root_key.sign(body, ec.ECDSA(hashes.SHA256()))
    content = body + ECDSA_WITH_SHA256 + b"\x03" + bytes([len(signature) + 1]) + b"\0" + signature
    return b"\x30\x82" + len(content).to_bytes(2, "big") + content


def test_the_builder_of_this_module_is_honest() -> None:
    verify_device_certificate(LEAF + signed_by_the_root(BODY), ROOT.root, NOW_UNIX_S)


@pytest.mark.filterwarnings("ignore:Parsed a serial number:cryptography.utils.CryptographyDeprecationWarning")
@settings(max_examples=300)
@given(
    st.lists(st.tuples(st.integers(0, len(BODY) - 1), st.integers(0, 255)), min_size=1, max_size=4),
    st.sampled_from([NOW_UNIX_S, 0, -(2**63), 2**63 - 1]),
)
def test_an_altered_intermediate_signed_again(changes: list[tuple[int, int]], at_unix_s: int) -> None:
    body = bytearray(BODY)
    for place, value in changes:
        body[place] = value
    with suppress(NightshiftError):
        verify_device_certificate(LEAF + signed_by_the_root(bytes(body)), ROOT.root, at_unix_s)


@pytest.mark.filterwarnings("ignore:Parsed a serial number:cryptography.utils.CryptographyDeprecationWarning")
@settings(max_examples=200)
@given(st.integers(0, len(CHAIN) - 1), st.integers(1, 255))
def test_an_altered_chain_never_passes_as_anothers(place: int, change: int) -> None:
    altered = bytearray(CHAIN)
    altered[place] ^= change
    honest = verify_device_certificate(CHAIN, ROOT.root, NOW_UNIX_S)
    with suppress(NightshiftError):
        assert verify_device_certificate(bytes(altered), ROOT.root, NOW_UNIX_S) == honest


@given(st.binary(max_size=600))
def test_garbage_behind_a_leaf(data: bytes) -> None:
    with suppress(NightshiftError):
        assert not data or verify_device_certificate(LEAF + data, ROOT.root, NOW_UNIX_S) is None


@given(st.integers(0, len(CHAIN)))
def test_a_chain_cut_anywhere(length: int) -> None:
    with suppress(NightshiftError):
        verify_device_certificate(CHAIN[:length], ROOT.root, NOW_UNIX_S)
        assert length == len(CHAIN)
