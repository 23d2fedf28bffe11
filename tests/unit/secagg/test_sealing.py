"""HPKE against RFC 9180: the library seals, a reference written here opens, and the RFC judges the reference."""

from __future__ import annotations

import hashlib
import hmac

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from nightshift.protocol.errors import MalformedError
from nightshift.protocol.identity import DeviceId
from nightshift.protocol.secagg.parameters import CohortParameters
from nightshift.protocol.secagg.sealing import load_prekey, open_sealed, seal, seal_info

PARAMETERS = CohortParameters.derive(n_max=10, value_bits=8, committee_size=3)
SHARE = bytes(range(256)) * 32
INFO = seal_info(b"h" * 32, DeviceId(b"s" * 32), DeviceId(b"m" * 32))
KEM_ID, KDF_ID, AEAD_ID = 0x0020, 0x0001, 0x0003


def reference_open(enc: bytes, ciphertext: bytes, private: bytes, info: bytes, aad: bytes) -> bytes:
    """Base-mode HPKE opening of the first message, from RFC 9180 sections 4 and 5 and RFC 5869."""

    def extract(salt: bytes, suite: bytes, label: bytes, ikm: bytes) -> bytes:
        return hmac.digest(salt or bytes(32), b"HPKE-v1" + suite + label + ikm, "sha256")

    def expand(prk: bytes, suite: bytes, label: bytes, context: bytes, size: int) -> bytes:
        labelled = size.to_bytes(2, "big") + b"HPKE-v1" + suite + label + context
        return hmac.digest(prk, labelled + b"\x01", "sha256")[:size]

    key = X25519PrivateKey.from_private_bytes(private)
    shared = key.exchange(X25519PublicKey.from_public_bytes(enc))
    kem_suite = b"KEM" + KEM_ID.to_bytes(2, "big")
    eae = extract(b"", kem_suite, b"eae_prk", shared)
    secret = expand(eae, kem_suite, b"shared_secret", enc + key.public_key().public_bytes_raw(), 32)
    suite = b"HPKE" + b"".join(number.to_bytes(2, "big") for number in (KEM_ID, KDF_ID, AEAD_ID))
    context = b"\x00" + extract(b"", suite, b"psk_id_hash", b"") + extract(b"", suite, b"info_hash", info)
    scheduled = extract(secret, suite, b"secret", b"")
    return ChaCha20Poly1305(expand(scheduled, suite, b"key", context, 32)).decrypt(
        expand(scheduled, suite, b"base_nonce", context, 12), ciphertext, aad
    )


def test_the_reference_opens_the_rfc_vector() -> None:
    # RFC 9180, appendix A.2.1: DHKEM(X25519, HKDF-SHA256), HKDF-SHA256, ChaCha20Poly1305, base mode, sequence number 0.
    opened = reference_open(
        enc=bytes.fromhex("1afa08d3dec047a643885163f1180476fa7ddb54c6a8029ea33f95796bf2ac4a"),
        ciphertext=bytes.fromhex(
            "1c5250d8034ec2b784ba2cfd69dbdb8af406cfe3ff938e131f0def8c8b60b4db21993c62ce81883d2dd1b51a28"
        ),
        private=bytes.fromhex("8057991eef8f1f1af18f4a9491d16a1ce333f695d4db8e38da75975c4478e0fb"),
        info=bytes.fromhex("4f6465206f6e2061204772656369616e2055726e"),
        aad=b"Count-0",
    )
    assert opened == b"Beauty is truth, truth beauty"


def test_the_reference_opens_what_the_library_sealed() -> None:
    private = X25519PrivateKey.generate()
    sealed = seal(SHARE, private.public_key().public_bytes_raw(), INFO)
    assert len(sealed) == PARAMETERS.sealed_share_bytes
    assert reference_open(sealed[:32], sealed[32:], private.private_bytes_raw(), INFO, b"") == SHARE
    assert open_sealed(sealed, private.private_bytes_raw(), INFO, PARAMETERS) == SHARE


def test_a_share_opens_nowhere_else() -> None:
    private = X25519PrivateKey.generate()
    sealed = seal(SHARE, private.public_key().public_bytes_raw(), INFO)
    key = private.private_bytes_raw()
    others = [
        seal_info(b"g" * 32, DeviceId(b"s" * 32), DeviceId(b"m" * 32)),
        seal_info(b"h" * 32, DeviceId(b"t" * 32), DeviceId(b"m" * 32)),
        seal_info(b"h" * 32, DeviceId(b"s" * 32), DeviceId(b"n" * 32)),
    ]
    for info in others:
        with pytest.raises(MalformedError, match="does not open"):
            open_sealed(sealed, key, info, PARAMETERS)
    with pytest.raises(MalformedError, match="does not open"):
        open_sealed(sealed, X25519PrivateKey.generate().private_bytes_raw(), INFO, PARAMETERS)
    for position in (0, 40, len(sealed) - 1):
        changed = bytearray(sealed)
        changed[position] ^= 1
        with pytest.raises(MalformedError, match="does not open"):
            open_sealed(bytes(changed), key, INFO, PARAMETERS)
    with pytest.raises(MalformedError, match="a sealed share has 8239 bytes, expected 8240"):
        open_sealed(sealed[:-1], key, INFO, PARAMETERS)


LOW_ORDER = [
    # The points of order 1, 2, 4 and 8 on Curve25519 and its twist (RFC 7748, section 7).
    (0).to_bytes(32, "little"),
    (1).to_bytes(32, "little"),
    bytes.fromhex("e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800"),
    bytes.fromhex("5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157"),
    (2**255 - 20).to_bytes(32, "little"),
]


@pytest.mark.parametrize("point", LOW_ORDER, ids=["zero", "one", "order-8-a", "order-8-b", "minus-one"])
def test_low_order_points_are_refused(point: bytes) -> None:
    with pytest.raises(MalformedError, match="low-order"):
        load_prekey(point)


@pytest.mark.parametrize("point", [2**255 - 19, 2**255 - 18, 2**255 + 9, 2**256 - 1])
def test_second_spellings_of_a_key_are_refused(point: int) -> None:
    with pytest.raises(MalformedError, match="canonical"):
        load_prekey(point.to_bytes(32, "little"))


@pytest.mark.parametrize("size", [0, 31, 33])
def test_keys_of_other_sizes_are_refused(size: int) -> None:
    with pytest.raises(MalformedError, match=f"{size} bytes, expected 32"):
        load_prekey(bytes(size))


def test_info_strings_cannot_be_confused() -> None:
    assert (
        hashlib.sha256(INFO).digest()
        != hashlib.sha256(seal_info(b"h" * 32, DeviceId(b"m" * 32), DeviceId(b"s" * 32))).digest()
    )
