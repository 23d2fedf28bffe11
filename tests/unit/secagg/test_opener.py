from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from secagg_cohort import Cohort, Upload, total

from nightshift.protocol.errors import MalformedError, StateConflictError, UsageError
from nightshift.protocol.secagg import opener, sharing
from nightshift.protocol.secagg.errors import NoSubsetPassesError, TooFewAnswersError, WorkBoundError
from nightshift.protocol.secagg.member import Answer
from nightshift.protocol.secagg.opener import RunningSum, open_sum
from nightshift.protocol.secagg.parameters import CohortParameters


def make(committee_size: int, devices: int = 4, length: int = 9_000) -> tuple[Cohort, list[Upload]]:
    cohort = Cohort(
        CohortParameters.derive(n_max=max(3, devices), value_bits=16, committee_size=committee_size), length=length
    )
    return cohort, [cohort.upload(number) for number in range(devices)]


@pytest.fixture(scope="module")
def ten() -> tuple[Cohort, list[Upload], list[Answer]]:
    cohort, uploads = make(10)
    return cohort, uploads, [cohort.answer(index, uploads) for index in range(1, 11)]


def wrong(answer: Answer, coefficient: int = 0, by: int | None = None) -> Answer:
    """The answer with one coefficient changed: the smallest lie there is. Liars do not agree on `by` unless told."""
    vector = np.frombuffer(answer.vector, dtype="<u2").copy()
    vector[coefficient] = (int(vector[coefficient]) + (by or 1000 + 7**answer.index)) % 65521
    return replace(answer, vector=vector.tobytes())


@pytest.mark.parametrize("committee_size", [3, 4, 5, 31])
def test_the_sum_is_exact(committee_size: int) -> None:
    cohort, uploads = make(committee_size)
    answers = [cohort.answer(index, uploads) for index in range(1, committee_size + 1)]
    opened = cohort.open(uploads, answers[-cohort.parameters.threshold :])
    np.testing.assert_array_equal(opened.values, total(uploads))
    assert opened.members_outside == ()
    assert len(opened.members_used) == cohort.parameters.threshold


def test_fewer_than_the_threshold_open_nothing(ten: tuple[Cohort, list[Upload], list[Answer]]) -> None:
    cohort, uploads, answers = ten
    with pytest.raises(TooFewAnswersError, match="7 members answered, 8 of 10 must"):
        cohort.open(uploads, answers[:7])


@pytest.mark.parametrize("coefficient", [0, 63, 64, 4095])
@pytest.mark.parametrize("liars", [{1}, {10}, {2, 9}])
def test_wrong_answers_do_not_hurt_while_others_suffice(
    ten: tuple[Cohort, list[Upload], list[Answer]], liars: set[int], coefficient: int
) -> None:
    cohort, uploads, answers = ten
    given = [wrong(answer, coefficient) if answer.index in liars else answer for answer in answers]
    opened = cohort.open(uploads, given)
    np.testing.assert_array_equal(opened.values, total(uploads))
    # Ten members with f = 3: three liars could frame one honest member, so this is no proof yet.
    assert opened.members_outside == ()
    assert opened.members_disputed == tuple(sorted(liars))
    assert opened.members_used == tuple(sorted(set(range(1, 11)) - liars))


@pytest.mark.parametrize(("committee_size", "liar"), [(5, 1), (6, 4), (9, 9), (31, 30)])
def test_a_liar_is_named_when_enough_others_agree(committee_size: int, liar: int) -> None:
    cohort, uploads = make(committee_size)
    answers = [cohort.answer(index, uploads) for index in range(1, committee_size + 1)]
    given = [wrong(answer) if answer.index == liar else answer for answer in answers]
    if committee_size == 31:
        # f = 10 and T = 25 ask for 34 agreeing members: with a committee of 31 nobody can be named.
        opened = cohort.open(uploads, given)
        assert (opened.members_outside, opened.members_disputed) == ((), (liar,))
        return
    opened = cohort.open(uploads, given)
    np.testing.assert_array_equal(opened.values, total(uploads))
    assert (opened.members_outside, opened.members_disputed) == ((liar,), ())


def test_two_liars_cannot_frame_the_honest(ten: tuple[Cohort, list[Upload], list[Answer]]) -> None:
    """Members 1 and 2 add a polynomial that is zero at 0 and at 3..8: the sum stays right, 9 and 10 seem to lie."""
    cohort, uploads, answers = ten
    lies = {}
    for liar in (1, 2):
        lies[liar] = liar
        for root in range(3, 9):
            lies[liar] = lies[liar] * (liar - root) % 65521
    given = [wrong(answer, by=lies[answer.index]) if answer.index in lies else answer for answer in answers]
    opened = cohort.open(uploads, given)
    np.testing.assert_array_equal(opened.values, total(uploads))
    assert opened.members_used == tuple(range(1, 9))
    assert opened.members_outside == ()
    assert opened.members_disputed == (9, 10)


@pytest.mark.parametrize("liars", [{1, 2, 3}, {1, 5, 10}, set(range(1, 11))])
def test_too_many_wrong_answers_leave_the_sum_absent_and_nobody_blamed(
    ten: tuple[Cohort, list[Upload], list[Answer]], liars: set[int]
) -> None:
    cohort, uploads, answers = ten
    given = [wrong(answer, 4095) if answer.index in liars else answer for answer in answers]
    with pytest.raises(NoSubsetPassesError, match=r"none of 45 subsets of 8 answers .* nobody is blamed"):
        cohort.open(uploads, given)


def test_exactly_the_threshold_with_one_wrong_names_nobody(ten: tuple[Cohort, list[Upload], list[Answer]]) -> None:
    cohort, uploads, answers = ten
    with pytest.raises(NoSubsetPassesError):
        cohort.open(uploads, [wrong(answers[0]), *answers[1:8]])


def test_the_work_is_bounded(ten: tuple[Cohort, list[Upload], list[Answer]]) -> None:
    cohort, uploads, answers = ten
    given = [wrong(answers[0]), *answers[1:]]
    with pytest.raises(WorkBoundError, match="the first 3 of 45 subsets"):
        cohort.open(uploads, given, max_subsets=3)


def test_shares_of_another_key_leave_the_sum_absent(ten: tuple[Cohort, list[Upload], list[Answer]]) -> None:
    """A device whose shares are consistent but of another key than its ciphertext's."""
    cohort, uploads, answers = ten
    other = cohort.upload(77)
    foreign = [*uploads[:3], replace(uploads[3], contribution=replace(other.contribution, sealed=()))]
    with pytest.raises(NoSubsetPassesError):
        cohort.open(foreign, answers)


def test_a_ciphertext_that_was_not_meant_leaves_the_sum_absent(ten: tuple[Cohort, list[Upload], list[Answer]]) -> None:
    cohort, uploads, answers = ten
    with pytest.raises(NoSubsetPassesError):
        cohort.open(uploads[:3], answers)
    with pytest.raises(NoSubsetPassesError):
        cohort.open([*uploads[:3], uploads[0]], answers)
    # The last words only: some coefficients, and pieces of others.
    last = bytearray(uploads[0].contribution.ciphertext)
    last[-8000:] = bytes(8000)
    changed = replace(uploads[0], contribution=replace(uploads[0].contribution, ciphertext=bytes(last)))
    with pytest.raises(NoSubsetPassesError):
        cohort.open([changed, *uploads[1:]], answers)


def test_another_plan_opens_nothing(ten: tuple[Cohort, list[Upload], list[Answer]]) -> None:
    cohort, uploads, answers = ten
    with pytest.raises(NoSubsetPassesError):
        open_sum(parameters=cohort.parameters, plan_hash=bytes(32), running=cohort.fold(uploads), answers=answers)


def test_misuse_is_refused(ten: tuple[Cohort, list[Upload], list[Answer]]) -> None:
    cohort, uploads, answers = ten
    with pytest.raises(UsageError, match="an answer counts once"):
        cohort.open(uploads, [*answers, answers[0]])
    with pytest.raises(UsageError, match="nothing to open"):
        cohort.open([], answers)
    with pytest.raises(MalformedError, match="the answer of member 1 has"):
        cohort.open(uploads, [replace(answers[0], vector=b""), *answers[1:]])
    other = CohortParameters.derive(n_max=5, value_bits=16, committee_size=10)
    with pytest.raises(UsageError, match="other parameters"):
        open_sum(parameters=other, plan_hash=cohort.plan_hash, running=cohort.fold(uploads), answers=answers)


def test_the_residual_of_a_wrong_key_would_be_uniform_and_fails(
    ten: tuple[Cohort, list[Upload], list[Answer]],
) -> None:
    """A key off by one in one coefficient, within the length bound: only the residual can tell."""
    cohort, uploads, answers = ten
    p = cohort.parameters
    subset = tuple(range(1, p.threshold + 1))
    rows = np.stack([sharing.from_bytes(answers[i - 1].vector, p, what="x") for i in subset])
    key = sharing.lift(sharing.combine(sharing.lagrange(subset, 0, p.field_prime), rows, p.field_prime), p.field_prime)
    running = cohort.fold(uploads)
    assert opener._decrypt(p, cohort.plan_hash, running, key) is not None
    key[17] += 1
    assert opener._decrypt(p, cohort.plan_hash, running, key) is None


def test_running_sums_restart_and_merge_to_the_same_bytes() -> None:
    cohort, uploads = make(4, devices=6)
    whole = cohort.fold(uploads)
    left, right = cohort.fold(uploads[:2]), cohort.fold(uploads[2:])
    left.merge(right)
    assert left.to_bytes() == whole.to_bytes()
    resumed = RunningSum.new(cohort.parameters, cohort.length)
    for upload in uploads:
        resumed = RunningSum.from_bytes(memoryview(resumed.to_bytes()))
        resumed.add(memoryview(upload.contribution.ciphertext))
    assert resumed.contributors == 6
    together = RunningSum.new(cohort.parameters, cohort.length)
    together.add(*[upload.contribution.ciphertext for upload in uploads])
    assert together.to_bytes() == whole.to_bytes()
    assert resumed.to_bytes() == whole.to_bytes()
    answers = [cohort.answer(index, uploads) for index in range(1, 5)]
    opened = open_sum(parameters=cohort.parameters, plan_hash=cohort.plan_hash, running=resumed, answers=answers)
    np.testing.assert_array_equal(opened.values, total(uploads))


def test_running_sums_refuse_what_does_not_belong() -> None:
    cohort, uploads = make(3, devices=3)
    running = cohort.fold(uploads)
    before = running.to_bytes()
    with pytest.raises(StateConflictError, match="the cohort is full"):
        running.add(uploads[0].contribution.ciphertext)
    with pytest.raises(MalformedError, match="a ciphertext has"):
        running.add(uploads[0].contribution.ciphertext[:-1])
    with pytest.raises(StateConflictError, match="0 of 3 contributions are in its sum"):
        RunningSum.new(cohort.parameters, cohort.length).add(*[uploads[0].contribution.ciphertext] * 4)
    with pytest.raises(StateConflictError, match="together"):
        running.merge(cohort.fold(uploads[:1]))
    with pytest.raises(UsageError, match="different parameters or lengths"):
        running.merge(RunningSum.new(cohort.parameters, cohort.length + 1))
    assert running.to_bytes() == before


@pytest.mark.parametrize("value_bits", [8, 11, 16])
def test_512_largest_ciphertexts_do_not_overflow_the_accumulators(value_bits: int) -> None:
    parameters = CohortParameters.derive(n_max=512, value_bits=value_bits, committee_size=3)
    running = RunningSum.new(parameters, 10)
    ones = b"\xff" * parameters.ciphertext_bytes(10)
    running.add(*[ones] * 512)
    modulus = 1 << parameters.modulus_bits
    np.testing.assert_array_equal(running.rows(0, 1), np.uint64(512 * (modulus - 1) % modulus))


def test_torn_or_foreign_running_sums_are_refused() -> None:
    parameters = CohortParameters.derive(n_max=3, value_bits=16, committee_size=3)
    good = RunningSum.new(parameters, 10).to_bytes()
    for bad, message in (
        (b"", "at least"),
        (good[:20], "at least"),
        (b"X" + good[1:], "no running sum"),
        (good[:-1], "bytes, got"),
        (good + b"\0", "bytes, got"),
        (good[:8] + b"\x00\x00" + good[10:], "impossible parameters"),
        (good[:12] + (2**63).to_bytes(8, "little") + good[20:], "impossible parameters"),
        (good[:20] + (4).to_bytes(4, "little") + good[24:], "claims 4 contributors"),
    ):
        with pytest.raises(MalformedError, match=message):
            RunningSum.from_bytes(bad)
