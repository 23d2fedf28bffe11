"""Any subset of devices, any T or more answers, any order, any lies: the sum is exact or absent."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from secagg_cohort import Cohort, Upload, total

from nightshift.protocol.secagg import sharing
from nightshift.protocol.secagg.errors import SumAbsentError, TooFewAnswersError
from nightshift.protocol.secagg.member import Answer
from nightshift.protocol.secagg.opener import RunningSum, open_sum
from nightshift.protocol.secagg.parameters import CohortParameters

DEVICES = 7
COMMITTEES = st.sampled_from([3, 4, 5, 7, 9, 10, 13])


@cache
def pool(committee_size: int) -> tuple[Cohort, list[Upload]]:
    value_bits = 8 + committee_size % 9
    parameters = CohortParameters.derive(n_max=DEVICES, value_bits=value_bits, committee_size=committee_size)
    cohort = Cohort(parameters, length=5000, seed=committee_size)
    return cohort, [cohort.upload(number) for number in range(DEVICES)]


@cache
def answer(committee_size: int, index: int, devices: frozenset[int]) -> Answer:
    cohort, uploads = pool(committee_size)
    return cohort.answer(index, [uploads[number] for number in sorted(devices)])


@st.composite
def gatherings(draw: st.DrawFn) -> tuple[int, list[int], list[int]]:
    """(committee size, contributing devices in any order, answering members in any order)."""
    size = draw(COMMITTEES)
    devices = draw(st.lists(st.integers(0, DEVICES - 1), unique=True, min_size=3))
    members = draw(st.lists(st.integers(1, size), unique=True))
    return size, devices, members


@settings(max_examples=60, deadline=None)
@given(gatherings())
def test_threshold_or_more_answers_open_the_exact_sum_and_fewer_nothing(
    gathering: tuple[int, list[int], list[int]],
) -> None:
    size, devices, members = gathering
    cohort, uploads = pool(size)
    chosen = [uploads[number] for number in devices]
    answers = [answer(size, index, frozenset(devices)) for index in members]
    if len(members) < cohort.parameters.threshold:
        with pytest.raises(TooFewAnswersError):
            cohort.open(chosen, answers)
        return
    opened = cohort.open(chosen, answers)
    np.testing.assert_array_equal(opened.values, total(chosen))
    assert opened.members_used == tuple(sorted(members))
    assert opened.members_outside == opened.members_disputed == ()


@st.composite
def lies(draw: st.DrawFn) -> tuple[int, dict[int, int], int, bool]:
    """(committee size, liar -> error, coefficient, whether they collude on a polynomial that is zero at 0)."""
    size = draw(COMMITTEES)
    liars = draw(st.lists(st.integers(1, size), unique=True, min_size=1))
    colluding = draw(st.booleans())
    if colluding:
        roots = draw(st.lists(st.integers(1, size), unique=True, max_size=size))
        scale = draw(st.integers(1, 65520))
        errors = {}
        for liar in liars:
            errors[liar] = scale * liar
            for root in roots:
                errors[liar] = errors[liar] * (liar - root) % 65521
    else:
        errors = {liar: draw(st.integers(1, 65520)) for liar in liars}
    coefficient = draw(st.sampled_from([0, 1, 63, 64, 2048, 4095]))
    return size, errors, coefficient, colluding


@settings(max_examples=60, deadline=None)
@given(lies())
def test_lies_leave_the_sum_right_or_absent_and_frame_nobody(lie: tuple[int, dict[int, int], int, bool]) -> None:
    size, errors, coefficient, _ = lie
    cohort, uploads = pool(size)
    devices = frozenset({0, 2, 3, 5})
    chosen = [uploads[number] for number in sorted(devices)]
    answers = []
    for index in range(1, size + 1):
        honest = answer(size, index, devices)
        vector = np.frombuffer(honest.vector, dtype="<u2").copy()
        vector[coefficient] = (int(vector[coefficient]) + errors.get(index, 0)) % 65521
        answers.append(replace(honest, vector=vector.tobytes()))
    really = {index for index, error in errors.items() if error}
    try:
        opened = cohort.open(chosen, answers)
    except SumAbsentError:
        assert size - len(really) < cohort.parameters.threshold
        return
    np.testing.assert_array_equal(opened.values, total(chosen))
    # The promise about names presumes at most f liars.
    if len(really) <= cohort.parameters.corrupt:
        assert set(opened.members_outside) <= really
    everyone = {*opened.members_used, *opened.members_outside, *opened.members_disputed}
    assert everyone == set(range(1, size + 1))


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(0, 2), min_size=DEVICES, max_size=DEVICES), st.integers(0, DEVICES))
def test_partial_sums_can_be_split_restarted_and_merged_in_any_way(shards: list[int], restart_at: int) -> None:
    cohort, uploads = pool(4)
    parts = [RunningSum.new(cohort.parameters, cohort.length) for _ in range(3)]
    for number, shard in enumerate(shards):
        parts[shard].add(uploads[number].contribution.ciphertext)
        if number == restart_at:
            parts = [RunningSum.from_bytes(part.to_bytes()) for part in parts]
    running = parts[0]
    running.merge(parts[1])
    running.merge(parts[2])
    assert running.to_bytes() == cohort.fold(uploads).to_bytes()
    answers = [answer(4, index, frozenset(range(DEVICES))) for index in (1, 2, 3, 4)]
    opened = open_sum(parameters=cohort.parameters, plan_hash=cohort.plan_hash, running=running, answers=answers)
    np.testing.assert_array_equal(opened.values, total(uploads))


@settings(max_examples=40, deadline=None)
@given(
    st.integers(3, 31),
    st.sampled_from([65521, 2**31 - 1]),
    st.data(),
)
def test_interpolation_is_linear_and_exact(size: int, prime: int, data: st.DataObject) -> None:
    """Random polynomials of degree < r, evaluated with Python integers, come back from any r points."""
    degree = data.draw(st.integers(0, size - 1))
    coefficients = data.draw(st.lists(st.integers(0, prime - 1), min_size=degree + 1, max_size=degree + 1))
    points = data.draw(st.permutations(range(1, size + 1)))[: degree + 1]
    x = data.draw(st.integers(0, size))

    def value(at: int) -> int:
        return sum(c * at**e for e, c in enumerate(coefficients)) % prime

    rows = np.array([[value(point)] for point in points], dtype=np.uint64)
    combined = sharing.combine(sharing.lagrange(points, x, prime), rows, prime)
    assert combined.tolist() == [value(x)]
