"""Shamir's secret sharing of a key's coefficients, modulo p (Shamir 1979).

Every coefficient of the key is the value at 0 of its own random polynomial of
degree t; member i gets the values at x = i. Sums of shares are shares of the
sum, so members add what they hold and never see a key.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from nightshift.protocol.errors import MalformedError
from nightshift.protocol.secagg.parameters import RING_DIMENSION, CohortParameters
from nightshift.protocol.secagg.sampling import Randomness, uniform_field

FieldVector = npt.NDArray[np.uint64]
"""uint64[N], every element below p."""


def split(
    secret: npt.NDArray[np.int64], parameters: CohortParameters, randomness: Randomness
) -> npt.NDArray[np.uint64]:
    """Share int64[N] among C members: uint64[C, N], row i - 1 for x = i."""
    prime = parameters.field_prime
    degree = parameters.degree
    coefficients = uniform_field(randomness, degree * len(secret), prime).reshape(degree, len(secret))
    free = np.mod(secret, prime).astype(np.uint64)
    shares = np.empty((parameters.committee_size, len(secret)), dtype=np.uint64)
    for x in range(1, parameters.committee_size + 1):
        powers = [pow(x, exponent, prime) for exponent in range(1, degree + 1)]
        shares[x - 1] = combine(powers, coefficients, prime)
        shares[x - 1] += free
        shares[x - 1] %= np.uint64(prime)
    return shares


def combine(weights: Sequence[int], vectors: npt.NDArray[np.uint64], prime: int) -> FieldVector:
    """Linear combination modulo p of uint64[r, N] with r weights below p, r < 2^6: uint64[N].

    For p < 2^16 all r products (below 2^38 in sum) are added before one reduction;
    for p < 2^31 each product is below 2^62 and is reduced on its own.
    """
    if prime < 1 << 16:
        return np.asarray((np.array(weights, dtype=np.uint64) @ vectors) % np.uint64(prime))
    total = np.zeros(vectors.shape[1], dtype=np.uint64)
    for weight, vector in zip(weights, vectors, strict=True):
        total += np.uint64(weight) * vector % np.uint64(prime)
    return np.asarray(total % np.uint64(prime))


def lagrange(indexes: Sequence[int], x: int, prime: int) -> list[int]:
    """Weights w with P(x) = sum w_i P(indexes_i) for every P of degree below len(indexes).

    Args:
        indexes: distinct, 1..C.
        x: where to evaluate; 0 gives the secret.
        prime: p.
    """
    weights: list[int] = []
    for here in indexes:
        numerator, denominator = 1, 1
        for other in indexes:
            if other != here:
                numerator = numerator * (x - other) % prime
                denominator = denominator * (here - other) % prime
        weights.append(numerator * pow(denominator, -1, prime) % prime)
    return weights


def lift(vector: FieldVector, prime: int) -> npt.NDArray[np.int64]:
    """The representatives in (-p/2, p/2): int64[N]."""
    signed = vector.astype(np.int64)
    signed[signed > prime // 2] -= prime
    return signed


def to_bytes(vector: FieldVector, parameters: CohortParameters) -> bytes:
    """N field elements, little endian, 2 or 4 bytes each."""
    return vector.astype(f"<u{parameters.share_bytes}").tobytes()


def from_bytes(data: bytes, parameters: CohortParameters, *, what: str) -> FieldVector:
    """Read what `to_bytes` wrote.

    Args:
        data: bytes from the other side.
        parameters: of the cohort.
        what: names the vector in the error.

    Raises:
        MalformedError: wrong size, or an element that is not below p.
    """
    if len(data) != parameters.share_vector_bytes:
        raise MalformedError(
            f"{what} has {len(data)} bytes, expected {parameters.share_vector_bytes} ({RING_DIMENSION} field elements)"
        )
    vector = np.frombuffer(data, dtype=f"<u{parameters.share_bytes}").astype(np.uint64)
    if int(vector.max()) >= parameters.field_prime:
        raise MalformedError(f"{what} holds an element that is not below {parameters.field_prime}")
    return vector
