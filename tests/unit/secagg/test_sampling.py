from __future__ import annotations

import os

import numpy as np
import pytest
from secagg_cohort import seeded

from nightshift.protocol.secagg.keystream import Keystream
from nightshift.protocol.secagg.sampling import centred_binomial, draw, uniform_field


def test_centred_binomial_is_forty_two_bits_less_twenty_one() -> None:
    words = np.array([0, 2**42 - 1, 2**64 - 1, 0b1011, 2**63], dtype=np.uint64)
    np.testing.assert_array_equal(centred_binomial(words), [-21, 21, 21, -18, -21])


def test_moments_of_the_sampler() -> None:
    # 2^20 samples of variance 10.5 and fourth moment 3 * 10.5^2 - 42/8 (binomial): five standard errors each.
    count = 1 << 20
    samples = centred_binomial(Keystream(bytes(32)).take(8 * count).view("<u8")).astype(np.float64)
    fourth = 3 * 10.5**2 - 42 / 8
    assert abs(samples.mean()) < 5 * np.sqrt(10.5 / count)
    assert abs(np.mean(samples**2) - 10.5) < 5 * np.sqrt((fourth - 10.5**2) / count)
    assert abs(np.mean(samples**3)) < 5 * np.sqrt(15 * 10.5**3 / count)
    assert abs(np.mean(samples**4) - fourth) < 5 * np.sqrt(105 * 10.5**4 / count)
    # Neighbours are independent.
    assert abs(np.mean(samples[1:] * samples[:-1])) < 5 * 10.5 / np.sqrt(count)


@pytest.mark.parametrize("prime", [65521, 2**31 - 1])
def test_field_elements_are_uniform_and_below_p(prime: int) -> None:
    count = 1 << 18
    elements = uniform_field(seeded(prime), count, prime)
    assert elements.shape == (count,)
    assert int(elements.max()) < prime
    observed, _ = np.histogram(elements.astype(np.float64), bins=64, range=(0, prime))
    chi_square = np.sum((observed - count / 64) ** 2 / (count / 64))
    assert chi_square < 63 + 5 * np.sqrt(2 * 63)


def test_elements_outside_the_field_are_drawn_again() -> None:
    # The source says 65535 first: reduction instead of rejection would return 14.
    source = iter([b"\xff\xff" * 17, b"\x05\x00" * 17])
    assert uniform_field(lambda n: next(source), 1, 65521).tolist() == [5]


def test_a_source_that_runs_short_is_refused() -> None:
    with pytest.raises(ValueError, match="returned 3 bytes instead of 8"):
        draw(lambda n: b"abc", 8)
    assert len(draw(os.urandom, 8)) == 8


# RFC 8439, appendix A.1: test vectors 1, 2 and 3 (nonce 0).
@pytest.mark.parametrize(
    ("key", "block", "expected"),
    [
        (
            bytes(32),
            0,
            "76b8e0ada0f13d90405d6ae55386bd28bdd219b8a08ded1aa836efcc8b770dc7"
            "da41597c5157488d7724e03fb8d84a376a43b8f41518a11cc387b669b2ee6586",
        ),
        (
            bytes(32),
            1,
            "9f07e7be5551387a98ba977c732d080dcb0f29a048e3656912c6533e32ee7aed"
            "29b721769ce64e43d57133b074d839d531ed1f28510afb45ace10a1f4b794d6f",
        ),
        (
            bytes(31) + b"\x01",
            1,
            "3aeb5224ecf849929b9d828db1ced4dd832025e8018b8160b82284f3c949aa5a"
            "8eca00bbb4a73bdad192b5c42f73f2fd4e273644c8b36125a64addeb006c13a0",
        ),
    ],
)
def test_keystream_is_chacha20_of_rfc_8439(key: bytes, block: int, expected: str) -> None:
    assert Keystream(key, first_block=block).take(64).tobytes().hex() == expected


def test_keystream_continues_across_reads() -> None:
    whole = Keystream(b"k" * 32).take(600_000)
    stream = Keystream(b"k" * 32)
    parts = np.concatenate([stream.take(size) for size in (1, 262_145, 337_854)])
    np.testing.assert_array_equal(whole, parts)
