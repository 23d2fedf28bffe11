"""Where a sum is opened makes no difference to what is opened, and a worker that dies none but to how long it takes."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from secagg_cohort import Cohort, total

from coordinator.compute.backend import Backend, backend
from coordinator.compute.inline import Inline
from coordinator.compute.threads import ATTEMPTS, Threads, WorkerLostError
from coordinator.configuration import Compute
from nightshift.protocol.secagg import opener
from nightshift.protocol.secagg.errors import NoSubsetPassesError
from nightshift.protocol.secagg.member import Answer
from nightshift.protocol.secagg.parameters import CohortParameters

LENGTH = 50_000
Part = Callable[..., bool]


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that a small vector has many."""
    monkeypatch.setattr(opener, "_PART", 2)


@pytest.fixture(scope="module")
def frozen() -> tuple[Cohort, list[Any], list[Answer]]:
    """Five contributions, answered by all of a committee of five."""
    cohort = Cohort(CohortParameters.derive(n_max=8, value_bits=16, committee_size=5), length=LENGTH)
    uploads = [cohort.upload(number) for number in range(5)]
    return cohort, uploads, [cohort.answer(index, uploads) for index in range(1, 6)]


def opened(place: Backend, cohort: Cohort, uploads: list[Any], answers: list[Answer]) -> opener.OpenedVector:
    """Folded one by one, and opened, by a backend."""
    running = None
    for upload in uploads:
        running = place.fold(cohort.parameters, LENGTH, running, [upload.contribution.ciphertext])
    assert running is not None
    return place.open_cohort(cohort.parameters, cohort.plan_hash, running, answers)


def dying(monkeypatch: pytest.MonkeyPatch, times: int, error: BaseException) -> list[int]:
    """Let the workers of the second part die so many times; returns where each attempt is noted."""
    real: Part = opener._decrypt_part
    attempts: list[int] = []
    guard = threading.Lock()

    def part(*words: Any, begin: int, **named: Any) -> bool:
        if begin == opener._PART:
            with guard:
                attempts.append(begin)
                die = len(attempts) <= times
            if die:
                named["values"][begin] = 4711  # a worker may die when it has written half of its rows
                raise error
        return real(*words, begin=begin, **named)

    monkeypatch.setattr(opener, "_decrypt_part", part)
    return attempts


@pytest.mark.parametrize("workers", [1, 2, 7])
def test_the_same_bytes_as_inline(frozen: tuple[Cohort, list[Any], list[Answer]], workers: int) -> None:
    here, there = opened(Inline(), *frozen), opened(Threads(workers), *frozen)
    assert here.values.tobytes() == there.values.tobytes()
    assert replace(here, values=there.values) == there
    np.testing.assert_array_equal(there.values, total(frozen[1]))


@pytest.mark.parametrize("times", range(1, ATTEMPTS))
def test_a_part_whose_worker_died_is_done_by_another(
    frozen: tuple[Cohort, list[Any], list[Answer]], monkeypatch: pytest.MonkeyPatch, times: int
) -> None:
    attempts = dying(monkeypatch, times, MemoryError("no room"))
    found = opened(Threads(2), *frozen)
    assert len(attempts) == times + 1
    np.testing.assert_array_equal(found.values, total(frozen[1]))


def test_a_part_that_kills_every_worker_ends_the_attempt_and_not_the_next(
    frozen: tuple[Cohort, list[Any], list[Answer]], monkeypatch: pytest.MonkeyPatch
) -> None:
    attempts = dying(monkeypatch, ATTEMPTS, MemoryError("no room"))
    with pytest.raises(WorkerLostError, match=f"failed {ATTEMPTS} times: MemoryError: no room"):
        opened(Threads(2), *frozen)
    assert len(attempts) == ATTEMPTS
    np.testing.assert_array_equal(opened(Threads(2), *frozen).values, total(frozen[1]))


@pytest.mark.parametrize("place", [Inline(), Threads(3)], ids=["inline", "threads"])
def test_answers_that_do_not_fit_leave_the_sum_absent_everywhere(
    frozen: tuple[Cohort, list[Any], list[Answer]], place: Backend
) -> None:
    cohort, uploads, answers = frozen
    lies = [replace(answer, vector=bytes(reversed(answer.vector))) for answer in answers]
    vectors = [np.frombuffer(lie.vector, dtype="<u2") % 65521 for lie in lies]
    given = [replace(lie, vector=vector.astype("<u2").tobytes()) for lie, vector in zip(lies, vectors, strict=True)]
    with pytest.raises(NoSubsetPassesError):
        opened(place, cohort, uploads, given)


def test_a_ciphertext_that_was_not_meant_is_seen_by_every_backend(
    frozen: tuple[Cohort, list[Any], list[Answer]],
) -> None:
    """The residual of one polynomial fails: no part's yes outvotes another's no."""
    cohort, uploads, answers = frozen
    running = Inline().fold(cohort.parameters, LENGTH, None, [u.contribution.ciphertext for u in uploads])
    spoilt = bytearray(running)
    middle = slice(len(spoilt) // 3, len(spoilt) // 3 + 16 * 1024)  # the words of one whole polynomial
    spoilt[middle] = random.Random(38).randbytes(16 * 1024)
    for place in (Inline(), Threads(2)):
        with pytest.raises(NoSubsetPassesError):
            place.open_cohort(cohort.parameters, cohort.plan_hash, bytes(spoilt), answers)


def test_the_configuration_names_one() -> None:
    assert type(backend(Compute())) is Inline
    threads = backend(Compute(backend="threads", workers=3))
    assert isinstance(threads, Threads)
    assert threads.workers == 3
