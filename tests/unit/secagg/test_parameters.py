from __future__ import annotations

import math

import pytest

from nightshift.protocol.errors import UsageError
from nightshift.protocol.secagg.parameters import CohortParameters


def derive(n_max: int = 50, value_bits: int = 16, committee_size: int = 10) -> CohortParameters:
    return CohortParameters.derive(n_max=n_max, value_bits=value_bits, committee_size=committee_size)


def test_thresholds_are_those_of_the_design() -> None:
    thresholds = [derive(committee_size=size).threshold for size in range(3, 11)]
    assert thresholds == [3, 4, 4, 5, 6, 7, 7, 8]


@pytest.mark.parametrize("size", range(3, 32))
def test_threshold_keeps_what_the_argument_needs(size: int) -> None:
    parameters = derive(committee_size=size)
    f, honest = parameters.corrupt, size - parameters.corrupt
    # Two sets of contributors would need 2h >= 3(T - f) honest answers.
    assert 2 * honest < 3 * (parameters.threshold - f)
    # f members alone know nothing, and T members exist.
    assert f <= parameters.degree < parameters.threshold <= size
    # After the erasures, even with f liars among them, fewer than T can still answer.
    assert size - (parameters.erasures_required - f) < parameters.threshold


@pytest.mark.parametrize("n_max", [3, 4, 10, 50, 64, 65, 249, 256, 500, 512])
@pytest.mark.parametrize("value_bits", range(8, 17))
def test_derived_numbers_follow_their_formulas(n_max: int, value_bits: int) -> None:
    p = derive(n_max, value_bits)
    assert p.slot_bits == value_bits + math.ceil(math.log2(n_max))
    assert p.noise_bits == math.ceil(math.log2(2 * 10 * 3.24 * math.sqrt(n_max)))
    assert p.values_per_coefficient == (64 - p.noise_bits) // p.slot_bits >= 1
    assert p.modulus_bits == p.noise_bits + p.values_per_coefficient * p.slot_bits <= 64
    assert p.field_prime == 65521 > 42 * n_max
    assert p.share_bytes == 2
    # n_max largest values fit a slot, and so do ten sigma of the summed noise.
    assert n_max * (2**value_bits - 1) < 2**p.slot_bits
    assert 10 * math.sqrt(n_max * 10.5) <= 2 ** (p.noise_bits - 1) * 1.001


def test_sizes_on_the_wire() -> None:
    p = derive(50, 16)
    assert (p.noise_bits, p.slot_bits, p.values_per_coefficient, p.modulus_bits) == (9, 22, 2, 53)
    assert p.polynomials(1) == p.polynomials(2 * 4096) == 1
    assert p.polynomials(2 * 4096 + 1) == 2
    # 11 spare bits in a word: five words carry a sixth coefficient. 8192 = 6 * 1366 - 4.
    assert p.ciphertext_bytes(2 * 4096 + 1) == 8 * 5 * 1366
    assert p.sealed_share_bytes == 32 + 2 * 4096 + 16


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"n_max": 2}, "n_max"),
        ({"n_max": 513}, "n_max"),
        ({"value_bits": 7}, "value_bits"),
        ({"value_bits": 17}, "value_bits"),
        ({"committee_size": 2}, "committee_size"),
        ({"committee_size": 32}, "committee_size"),
    ],
)
def test_refusals_name_the_number_and_the_range(changes: dict[str, int], named: str) -> None:
    with pytest.raises(UsageError, match=rf"{named} must be an integer from \d+ to \d+, got \d+; \w"):
        derive(**changes)


@pytest.mark.parametrize("length", [0, -1, 2**31 + 1])
def test_impossible_lengths_are_refused(length: int) -> None:
    with pytest.raises(UsageError, match="length"):
        derive().ciphertext_bytes(length)
