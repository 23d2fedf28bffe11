"""Opening: from T answers and the running sum to the sum of the vectors, right or absent.

S = sum of the keys is interpolated from T answers. sum(C) - A S is then the sum of
the messages above the sum of the errors. A wrong S makes that residual uniform,
so every polynomial is checked, and a subset of answers that passes is right.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from math import comb
from typing import Protocol

import numpy as np
import numpy.typing as npt

from nightshift.protocol.errors import UsageError
from nightshift.protocol.secagg import sharing
from nightshift.protocol.secagg.errors import NoSubsetPassesError, TooFewAnswersError, WorkBoundError
from nightshift.protocol.secagg.member import Answer
from nightshift.protocol.secagg.parameters import (
    FAIR_BITS,
    NOISE_VARIANCE_TIMES_TWO,
    RING_DIMENSION,
    CohortParameters,
)
from nightshift.protocol.secagg.public_matrix import PublicMatrix
from nightshift.protocol.secagg.ring import Multiplier
from nightshift.protocol.secagg.running_sum import RunningSum

__all__ = ["MAX_SUBSETS", "Each", "OpenedVector", "RunningSum", "open_sum"]

MAX_SUBSETS = 20_000
"""Subsets of T answers that are tried; a wrong one is usually refused by its first 64 coefficients."""

_BATCH = 4
_PART = 64
"""Polynomials of a part: 131,072 coefficients, some 12 ms of work."""
_QUICK_COEFFICIENTS = 64


class Each(Protocol):
    """Applies a function to all items, as `map` does."""

    def __call__(self, function: Callable[[int], bool], items: Iterable[int], /) -> Iterable[bool]:
        """The results, in the order of the items."""


@dataclass(frozen=True, slots=True)
class OpenedVector:
    """The opened sum of a cohort.

    Attributes:
        values: uint64[D], sums of the encoded values.
        members_used: indexes of the members whose answers lie on one polynomial with the opened
            sum, ascending.
        members_outside: indexes of the members whose answers are provably none of the honest
            polynomials, ascending: at least T + f - 1 others agree (see `_judge`). Each lied, or a
            contributor gave it a share that opens and does not fit its others, which it cannot see.
        members_disputed: indexes of the members that disagree with `members_used` where that is no
            proof: either they lied, or at least two of `members_used` did. Blame nobody.
    """

    values: npt.NDArray[np.uint64]
    members_used: tuple[int, ...]
    members_outside: tuple[int, ...]
    members_disputed: tuple[int, ...]


def open_sum(
    *,
    parameters: CohortParameters,
    plan_hash: bytes,
    running: RunningSum,
    answers: Sequence[Answer],
    max_subsets: int = MAX_SUBSETS,
    each: Each = map,
) -> OpenedVector:
    """Open a cohort's sum.

    Args:
        parameters: of the cohort.
        plan_hash: H, 32 bytes.
        running: the sum of the ciphertexts of exactly U.
        answers: each passed `verify_answer` for hash(U); distinct members.
        max_subsets: work bound on tried subsets.
        each: applies a function to all parts of the vector, as `map` does; parts do not depend on each other, may be
            done in any order and at the same time, and done twice give the same.

    Raises:
        UsageError: two answers of one member, no contributors, or `running` is of other parameters.
        TooFewAnswersError: fewer than T answers.
        NoSubsetPassesError: no subset of T answers passes; nobody is blamed.
        WorkBoundError: the same, but not all subsets could be tried.
        MalformedError: an answer is not N field elements.
    """
    if running.parameters != parameters:
        raise UsageError("the running sum was made with other parameters than the plan's")
    if running.contributors < 1:
        raise UsageError("no contribution was folded, there is nothing to open")
    indexes = sorted({answer.index for answer in answers})
    if len(indexes) != len(answers):
        raise UsageError("two answers of one member; an answer counts once")
    if len(answers) < parameters.threshold:
        raise TooFewAnswersError(
            f"{len(answers)} members answered, {parameters.threshold} of {parameters.committee_size} must"
        )
    vectors = {
        answer.index: sharing.from_bytes(answer.vector, parameters, what=f"the answer of member {answer.index}")
        for answer in answers
    }
    for subset, key_sum in _candidate_keys(parameters, running.contributors, vectors, max_subsets):
        values = _decrypt(parameters, plan_hash, running, key_sum, each)
        if values is not None:
            used, outside, disputed = _judge(parameters, vectors, subset)
            return OpenedVector(values=values, members_used=used, members_outside=outside, members_disputed=disputed)
    subsets = comb(len(answers), parameters.threshold)
    if subsets > max_subsets:
        raise WorkBoundError(
            f"none of the first {max_subsets} of {subsets} subsets of the answers passes; "
            "the sum is absent and nobody is blamed"
        )
    raise NoSubsetPassesError(
        f"none of {subsets} subsets of {parameters.threshold} answers passes the residual check; "
        "the sum is absent and nobody is blamed"
    )


def _candidate_keys(
    parameters: CohortParameters,
    contributors: int,
    vectors: dict[int, sharing.FieldVector],
    max_subsets: int,
) -> Iterator[tuple[tuple[int, ...], npt.NDArray[np.int64]]]:
    """Yield (subset, S) for the subsets whose S is short: max|S| <= 21 |U|."""
    prime = parameters.field_prime
    limit = FAIR_BITS * contributors
    for tried, subset in enumerate(combinations(sorted(vectors), parameters.threshold)):
        if tried == max_subsets:
            return
        weights = sharing.lagrange(subset, 0, prime)
        # A wrong S is all but uniform modulo p: its first coefficients give most of them away.
        head = np.stack([vectors[index][:_QUICK_COEFFICIENTS] for index in subset])
        if np.abs(sharing.lift(sharing.combine(weights, head, prime), prime)).max() > limit:
            continue
        rows = np.stack([vectors[index] for index in subset])
        key_sum = sharing.lift(sharing.combine(weights, rows, prime), prime)
        if np.abs(key_sum).max() <= limit:
            yield subset, key_sum


def _decrypt(
    parameters: CohortParameters,
    plan_hash: bytes,
    running: RunningSum,
    key_sum: npt.NDArray[np.int64],
    each: Each = map,
) -> npt.NDArray[np.uint64] | None:
    """The sums of the values, uint64[D], or None as soon as one polynomial fails the residual check."""
    values = np.empty((running.polynomials, RING_DIMENSION, parameters.values_per_coefficient), dtype=np.uint64)

    def part(first: int) -> bool:
        return _decrypt_part(parameters, plan_hash, running, key_sum, values=values, begin=first)

    if not all(each(part, range(0, running.polynomials, _PART))):
        return None
    return values.reshape(-1)[: running.length]


def _decrypt_part(
    parameters: CohortParameters,
    plan_hash: bytes,
    running: RunningSum,
    key_sum: npt.NDArray[np.int64],
    *,
    values: npt.NDArray[np.uint64],
    begin: int,
) -> bool:
    """Fill the rows of `values` from `begin` on; False as soon as one fails the residual check."""
    matrix = PublicMatrix(plan_hash, first=begin)
    product = Multiplier(key_sum, parameters.modulus_bits)
    half = np.uint64(1 << (parameters.noise_bits - 1))
    noise_mask = np.uint64((1 << parameters.noise_bits) - 1)
    slot_mask = np.uint64((1 << parameters.slot_bits) - 1)
    end = min(begin + _PART, running.polynomials)
    for first in range(begin, end, _BATCH):
        plain = running.rows(first, min(_BATCH, end - first))
        plain -= product.times(matrix.take(len(plain)))
        plain += half
        residual = (plain & noise_mask).astype(np.float64)
        residual -= float(half)
        if not _residual_passes(residual, running.contributors):
            return False
        plain >>= np.uint64(parameters.noise_bits)
        for slot in range(parameters.values_per_coefficient):
            np.bitwise_and(plain, slot_mask, out=values[first : first + len(plain), :, slot])
            plain >>= np.uint64(parameters.slot_bits)
    return True


def _residual_passes(residual: npt.NDArray[np.float64], contributors: int) -> bool:
    """Whether every polynomial float64[rows, N] has residual rms at most 2 * 3.24 sqrt(|U|).

    The errors of honest contributors have rms 3.24 sqrt(|U|). A uniform residual
    of w noise bits has 2^w / sqrt(12), at least 18.7 sqrt(n_max).
    """
    mean_square = np.einsum("ij,ij->i", residual, residual) / RING_DIMENSION
    return bool(mean_square.max() <= 4 * contributors * NOISE_VARIANCE_TIMES_TWO / 2)


def _judge(
    parameters: CohortParameters, vectors: dict[int, sharing.FieldVector], subset: tuple[int, ...]
) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
    """Who agrees with `subset`, who is provably beside the honest polynomials, and who merely disagrees.

    The opened S is right, but the polynomials through it and `subset` may not be the honest
    ones: two liars can add a polynomial that is zero at 0 and at the points of the other T - 2,
    which leaves S as it is and frames everyone else. Of A agreeing members at least A - f are
    honest; with the point 0 that is T points, and so the honest polynomials, once A >= T + f - 1.
    """
    rows = np.stack([vectors[index] for index in subset])
    used = list(subset)
    against: list[int] = []
    for index in sorted(set(vectors) - set(subset)):
        weights = sharing.lagrange(subset, index, parameters.field_prime)
        agrees = np.array_equal(sharing.combine(weights, rows, parameters.field_prime), vectors[index])
        (used if agrees else against).append(index)
    if len(used) >= parameters.threshold + parameters.corrupt - 1:
        return tuple(sorted(used)), tuple(against), ()
    return tuple(sorted(used)), (), tuple(against)
