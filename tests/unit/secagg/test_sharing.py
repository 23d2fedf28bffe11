from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations

import numpy as np
import pytest
from secagg_cohort import seeded

from nightshift.protocol.errors import MalformedError
from nightshift.protocol.secagg import sharing
from nightshift.protocol.secagg.parameters import RING_DIMENSION, CohortParameters


@dataclass(frozen=True)
class LargeField(CohortParameters):
    """The larger field, which no cohort of up to 512 devices needs, for the arithmetic's sake."""

    @property
    def field_prime(self) -> int:
        return 2**31 - 1


def both_fields(committee_size: int) -> list[CohortParameters]:
    return [kind(n_max=50, value_bits=16, committee_size=committee_size) for kind in (CohortParameters, LargeField)]


@pytest.mark.parametrize("parameters", [*both_fields(3), *both_fields(7), *both_fields(31)])
def test_any_threshold_of_shares_gives_the_secret(parameters: CohortParameters) -> None:
    secret = np.random.default_rng(1).integers(-21, 22, RING_DIMENSION, dtype=np.int64)
    shares = sharing.split(secret, parameters, seeded(2))
    assert int(shares.max()) < parameters.field_prime
    for subset in list(combinations(range(1, parameters.committee_size + 1), parameters.threshold))[:40]:
        weights = sharing.lagrange(subset, 0, parameters.field_prime)
        opened = sharing.combine(weights, shares[[i - 1 for i in subset]], parameters.field_prime)
        np.testing.assert_array_equal(sharing.lift(opened, parameters.field_prime), secret)


@pytest.mark.parametrize("parameters", both_fields(10))
def test_fewer_shares_fit_every_secret(parameters: CohortParameters) -> None:
    """For t shares and any wanted secret there is a polynomial of degree t through all of them."""
    p, t = parameters.field_prime, parameters.degree
    secret = np.zeros(RING_DIMENSION, dtype=np.int64)
    shares = sharing.split(secret, parameters, seeded(3))
    known = list(range(1, t + 1))
    for wanted in (0, 1, p - 1):
        points = [0, *known]
        rows = np.concatenate([np.full((1, RING_DIMENSION), wanted, dtype=np.uint64), shares[:t]])
        # The polynomial through (0, wanted) and the known shares has degree <= t and gives them back.
        for x, row in zip(points, rows, strict=True):
            np.testing.assert_array_equal(sharing.combine(sharing.lagrange(points, x, p), rows, p), row)


@pytest.mark.parametrize("parameters", both_fields(10))
def test_sharing_polynomials_have_full_degree(parameters: CohortParameters) -> None:
    """T - 1 shares interpolate to something else, for nearly every coefficient."""
    secret = np.zeros(RING_DIMENSION, dtype=np.int64)
    shares = sharing.split(secret, parameters, seeded(4))
    fewer = list(range(1, parameters.threshold))
    opened = sharing.combine(
        sharing.lagrange(fewer, 0, parameters.field_prime), shares[: len(fewer)], parameters.field_prime
    )
    assert np.count_nonzero(opened) > 0.99 * RING_DIMENSION


@pytest.mark.parametrize("parameters", both_fields(5))
def test_bytes_round_trip_and_hostile_bytes_are_refused(parameters: CohortParameters) -> None:
    vector = sharing.split(np.zeros(RING_DIMENSION, dtype=np.int64), parameters, seeded(5))[0]
    data = sharing.to_bytes(vector, parameters)
    np.testing.assert_array_equal(sharing.from_bytes(data, parameters, what="x"), vector)
    with pytest.raises(MalformedError, match=f"x has {len(data) - 1} bytes, expected {len(data)}"):
        sharing.from_bytes(data[:-1], parameters, what="x")
    p_itself = parameters.field_prime.to_bytes(parameters.share_bytes, "little")
    with pytest.raises(MalformedError, match=f"not below {parameters.field_prime}"):
        sharing.from_bytes(p_itself + data[parameters.share_bytes :], parameters, what="x")


def test_lift_takes_the_nearest_representative() -> None:
    p = 65521
    lifted = sharing.lift(np.array([0, 1, p // 2, p // 2 + 1, p - 1], dtype=np.uint64), p)
    assert lifted.tolist() == [0, 1, 32760, -32760, -1]
