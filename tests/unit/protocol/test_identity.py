"""Signatures and device ids against RFC 6979 and RFC 5280."""

from __future__ import annotations

import hashlib

import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from nightshift.protocol.errors import MalformedError, SignatureInvalidError
from nightshift.protocol.identity import device_id, load_public_key, sign, spki, verify
from tests.support.authority import new_key

ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
"""n of P-256 (FIPS 186-4, D.1.2.3)."""

# RFC 6979, A.2.5: ECDSA, 256 bits (prime field), with SHA-256.
KEY = ec.derive_private_key(0xC9AFA9D845BA75166B5C215767B1D6934E50C3DB36E89B127B8A622B120F6721, ec.SECP256R1())
PUBLIC_X = 0x60FED4BA255A9D31C961EB74C6356D68C049B8923B61FA6CE669622E60F29FB6
PUBLIC_Y = 0x7903FE1008B8BC99A41AE9E95628BC64F2F1B20C2D7E9F5177A3C294D4462299
VECTORS = [
    (
        b"sample",
        0xEFD48B2AACB6A8FD1140DD9CD45E81D69D2C877B56AAF991C34D0EA84EAF3716,
        0xF7CB1C942D657C41D436C7A1B6E29F65F3E900DBB9AFF4064DC4AB2F843ACDA8,
    ),
    (
        b"test",
        0xF1ABB023518351CD71D881567B1EA663ED3EFCF6C5132B354F28D3B0B7D38367,
        0x019F4113742A2B14BD25926B49C649155F267E60D3814B4C0CC84250E46F0083,
    ),
]


def joined(r: int, s: int) -> bytes:
    return r.to_bytes(32, "big") + s.to_bytes(32, "big")


@pytest.mark.parametrize(("message", "r", "s"), VECTORS)
def test_the_vectors_of_rfc_6979(message: bytes, r: int, s: int) -> None:
    # The RFC does not normalise; "sample" has a high s, "test" a low one.
    low = s if s <= ORDER // 2 else ORDER - s
    assert sign(KEY, message) == joined(r, low)
    verify(KEY.public_key(), joined(r, low), message, what="the vector")


def test_the_public_key_of_rfc_6979() -> None:
    numbers = KEY.public_key().public_numbers()
    assert (numbers.x, numbers.y) == (PUBLIC_X, PUBLIC_Y)
    # RFC 5480: SEQUENCE { SEQUENCE { id-ecPublicKey, prime256v1 }, BIT STRING 04 ‖ X ‖ Y }.
    prefix = bytes.fromhex("3059301306072a8648ce3d020106082a8648ce3d030107034200" + "04")
    expected = prefix + joined(PUBLIC_X, PUBLIC_Y)
    assert spki(KEY.public_key()) == expected
    assert device_id(KEY.public_key()) == hashlib.sha256(expected).digest()
    assert load_public_key(expected) == KEY.public_key()


def test_the_high_s_twin_of_a_good_signature_is_refused() -> None:
    message, r, s = VECTORS[0]
    assert s > ORDER // 2
    # The twin is a valid ECDSA signature: only the canonical form refuses it.
    KEY.public_key().verify(encode_dss_signature(r, s), message, ec.ECDSA(hashes.SHA256()))
    with pytest.raises(SignatureInvalidError, match="low-s"):
        verify(KEY.public_key(), joined(r, s), message, what="the vector")


def test_signing_twice_gives_the_same_bytes() -> None:
    key = new_key()
    assert sign(key, b"message") == sign(key, b"message")
    assert sign(key, b"message") != sign(key, b"massage")


@pytest.mark.parametrize("length", [0, 1, 63, 65, 128])
def test_a_signature_of_another_length_is_refused(length: int) -> None:
    good = sign(KEY, b"m")
    with pytest.raises(SignatureInvalidError, match=f"has {length} bytes, expected 64"):
        verify(KEY.public_key(), (good + good)[:length], b"m", what="the plan's signature")


@pytest.mark.parametrize(("r", "s"), [(0, 1), (1, 0), (0, 0), (ORDER, 1), (2**256 - 1, 1), (1, ORDER), (1, 2**256 - 1)])
def test_numbers_outside_the_group_are_refused(r: int, s: int) -> None:
    with pytest.raises(SignatureInvalidError):
        verify(KEY.public_key(), joined(r, s), b"m", what="a signature")


def test_another_key_or_message_is_refused() -> None:
    signature = sign(KEY, b"m")
    verify(KEY.public_key(), signature, b"m", what="a signature")
    with pytest.raises(SignatureInvalidError, match="the plan's signature"):
        verify(new_key().public_key(), signature, b"m", what="the plan's signature")
    with pytest.raises(SignatureInvalidError):
        verify(KEY.public_key(), signature, b"n", what="a signature")


def test_every_flipped_bit_of_a_signature_is_refused() -> None:
    good = sign(KEY, b"m")
    for bit in range(8 * len(good)):
        bad = bytearray(good)
        bad[bit // 8] ^= 1 << bit % 8
        with pytest.raises(SignatureInvalidError):
            verify(KEY.public_key(), bytes(bad), b"m", what="a signature")


def public_der(key: ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey | rsa.RSAPublicKey) -> bytes:
    return key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)


# An AlgorithmIdentifier that nobody registered: SEQUENCE { OID 1.2.3.4 }, BIT STRING.
UNKNOWN_ALGORITHM = bytes.fromhex("300c30050603" + "2a0304" + "0303" + "000102")


@pytest.mark.parametrize(
    "der",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"garbage", id="garbage"),
        pytest.param(bytes(513), id="too long"),
        pytest.param(bytes(1 << 20), id="a megabyte"),
        pytest.param(spki(KEY.public_key())[:-1], id="cut"),
        pytest.param(spki(KEY.public_key()) + b"\0", id="trailing byte"),
        pytest.param(spki(KEY.public_key())[:-1] + b"\0", id="not on the curve"),
        pytest.param(public_der(ec.generate_private_key(ec.SECP384R1()).public_key()), id="P-384"),
        pytest.param(public_der(ec.generate_private_key(ec.SECP256K1()).public_key()), id="secp256k1"),
        pytest.param(public_der(ed25519.Ed25519PrivateKey.generate().public_key()), id="Ed25519"),
        pytest.param(public_der(rsa.generate_private_key(65537, 2048).public_key()), id="RSA"),
        pytest.param(UNKNOWN_ALGORITHM, id="unknown algorithm"),
    ],
)
def test_whatever_is_no_p256_key_is_refused(der: bytes) -> None:
    with pytest.raises(MalformedError):
        load_public_key(der)


def test_an_oversized_key_is_refused_by_its_size_alone() -> None:
    with pytest.raises(MalformedError, match="takes fewer than 512 bytes, got 513"):
        load_public_key(bytes(513))
