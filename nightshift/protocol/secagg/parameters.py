"""Every number of a cohort's cryptography, derived from three.

The plan states how many devices may contribute, how many bits a value has and
how many members the committee has. All else follows, so that device, member
and opener cannot disagree, and a coordinator cannot ask for weaker numbers.

Security level: ring dimension 4096 with a modulus of at most 64 bits and
errors of standard deviation 3.24 lie inside the 192-bit row (75 bits) of the
HomomorphicEncryption.org standard, table 1 (Albrecht et al. 2018).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

from nightshift.protocol.errors import UsageError
from nightshift.protocol.secagg.words import WordLayout

RING_DIMENSION = 4096
"""N: coefficients of a polynomial in Z_{2^Q}[X]/(X^N + 1)."""

MAX_MODULUS_BITS = 64
FAIR_BITS = 21
"""A centred binomial sample is a sum of 21 fair bits less another: |x| <= 21."""

NOISE_VARIANCE_TIMES_TWO = FAIR_BITS
"""The variance of a sample is 21 / 2: sigma = 3.24."""

FIELD_PRIMES = (65521, 2**31 - 1)
MIN_DEVICES = 3
MAX_DEVICES = 512
MIN_COMMITTEE = 3
MAX_COMMITTEE = 31
MIN_VALUE_BITS = 8
MAX_VALUE_BITS = 16
MAX_LENGTH = 1 << 31
"""Values in one vector; keeps the keystream's block counter inside 32 bits (RFC 8439, section 2.3)."""

HPKE_OVERHEAD_BYTES = 32 + 16
"""An encapsulated X25519 key before, a Poly1305 tag behind (RFC 9180)."""


def corrupt_members(committee_size: int) -> int:
    """f: so many members of a committee may be corrupt."""
    return max(1, (committee_size - 1) // 3)


@dataclass(frozen=True, slots=True)
class CohortParameters:
    """The cryptographic parameters of one cohort. Made by `derive`, which explains each refusal.

    Attributes:
        n_max: most devices whose contributions may be added, 3..512.
        value_bits: b, bits of one encoded value, 8..16.
        committee_size: C, members that hold shares, 3..31.
    """

    n_max: int
    value_bits: int
    committee_size: int

    def __post_init__(self) -> None:
        _require("n_max", self.n_max, MIN_DEVICES, MAX_DEVICES, "a larger round is made of several cohorts")
        _require("value_bits", self.value_bits, MIN_VALUE_BITS, MAX_VALUE_BITS, "16 is finer than any delta needs")
        _require(
            "committee_size",
            self.committee_size,
            MIN_COMMITTEE,
            MAX_COMMITTEE,
            "fewer members could not outvote a corrupt one, more would weigh on every upload",
        )
        if self.values_per_coefficient == 0:
            raise UsageError(
                f"no value fits a coefficient: noise takes {self.noise_bits} of {MAX_MODULUS_BITS} bits and "
                f"a slot needs {self.slot_bits}; lower n_max ({self.n_max}) or value_bits ({self.value_bits})"
            )
        if self.field_prime <= 2 * FAIR_BITS * self.n_max:
            raise UsageError(
                f"a sum of {self.n_max} keys does not fit the largest field; lower n_max to "
                f"{FIELD_PRIMES[-1] // (2 * FAIR_BITS)} or less"
            )

    @classmethod
    def derive(cls, *, n_max: int, value_bits: int, committee_size: int) -> CohortParameters:
        """Derive every parameter, or refuse.

        Raises:
            UsageError: a number is outside its range, or the slots do not fit; the message says which.
        """
        return cls(n_max=n_max, value_bits=value_bits, committee_size=committee_size)

    @property
    def slot_bits(self) -> int:
        """Bits of a slot: n_max values of b bits add up without a carry into the neighbour."""
        return self.value_bits + (self.n_max - 1).bit_length()

    @property
    def noise_bits(self) -> int:
        """Bits below the slots: ceil(log2(2 * 10 * 3.24 * sqrt(n_max))), ten sigma to either side.

        Computed in integers as the least w with 4^w >= (2 * 10 * 3.24)^2 n_max, so
        that no platform's logarithm can disagree.
        """
        return _noise_bits(self.n_max)

    @property
    def values_per_coefficient(self) -> int:
        """k: slots in one coefficient."""
        return (MAX_MODULUS_BITS - self.noise_bits) // self.slot_bits

    @property
    def modulus_bits(self) -> int:
        """Q: bits of a coefficient that travel."""
        return self.noise_bits + self.values_per_coefficient * self.slot_bits

    @property
    def field_prime(self) -> int:
        """p: the smallest listed prime above 42 n_max, so that a sum of keys lifts to (-p/2, p/2)."""
        return next((p for p in FIELD_PRIMES if p > 2 * FAIR_BITS * self.n_max), 0)

    @property
    def share_bytes(self) -> int:
        """Bytes of one field element on the wire: 2 or 4."""
        return 2 if self.field_prime < 1 << 16 else 4

    @property
    def corrupt(self) -> int:
        """f: members that may be corrupt."""
        return corrupt_members(self.committee_size)

    @property
    def threshold(self) -> int:
        """T = floor((2C + f) / 3) + 1 answers open the sum.

        Not the usual (C + f) / 2: members shown different sets answer once each and
        their answers mix linearly (docs/protocol-secagg.md, "Why this threshold").
        """
        return (2 * self.committee_size + self.corrupt) // 3 + 1

    @property
    def degree(self) -> int:
        """The degree t = T - 1 of the sharing polynomials; any t shares say nothing (Shamir 1979)."""
        return self.threshold - 1

    @property
    def erasures_required(self) -> int:
        """C - T + 1 + f erasure statements make it impossible that T members still hold their prekeys."""
        return self.committee_size - self.threshold + 1 + self.corrupt

    def polynomials(self, length: int) -> int:
        """Polynomials that carry `length` values.

        Raises:
            UsageError: `length` is not in 1..2^31.
        """
        _require("length", length, 1, MAX_LENGTH, "split the vector over several tasks")
        return -(-length // (self.values_per_coefficient * RING_DIMENSION))

    def words(self, length: int) -> WordLayout:
        """How the coefficients that carry `length` values travel.

        Raises:
            UsageError: `length` is not in 1..2^31.
        """
        return WordLayout(self.modulus_bits, self.polynomials(length) * RING_DIMENSION)

    def ciphertext_bytes(self, length: int) -> int:
        """Exact size of a ciphertext of `length` values: the low Q bits of every coefficient.

        Raises:
            UsageError: `length` is not in 1..2^31.
        """
        return self.words(length).size_bytes

    @property
    def share_vector_bytes(self) -> int:
        """Exact size of one share, and of one answer: N field elements."""
        return RING_DIMENSION * self.share_bytes

    @property
    def sealed_share_bytes(self) -> int:
        """Exact size of one sealed share."""
        return self.share_vector_bytes + HPKE_OVERHEAD_BYTES


@cache
def _noise_bits(n_max: int) -> int:
    scaled = 64_80**2 * n_max
    bits = 1
    while 4**bits * 100**2 < scaled:
        bits += 1
    return bits


def _require(name: str, value: int, low: int, high: int, why: str) -> None:
    if not low <= value <= high:
        raise UsageError(f"{name} must be an integer from {low} to {high}, got {value!r}; {why}")
