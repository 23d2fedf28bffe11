from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from coordinator.together import Outcome, Together

KEY = b"cohort"
LIMIT_S = 20


class Held:
    """Work that waits for a sign, and notes what it was given."""

    def __init__(self, outcome_of: Callable[[int], Outcome] = lambda _item: None) -> None:
        self.groups: list[list[int]] = []
        self.begun, self.go = threading.Event(), threading.Event()
        self._outcome_of = outcome_of

    def __call__(self, items: Sequence[int]) -> list[Outcome]:
        self.groups.append(list(items))
        self.begun.set()
        assert self.go.wait(LIMIT_S), "nobody gave the sign"
        return [self._outcome_of(item) for item in items]


def asked(pool: ThreadPoolExecutor, together: Together[int], work: Held, count: int) -> list[Future[None]]:
    """The first is being worked on, the others wait behind it in the order of their numbers."""
    futures = [pool.submit(together.ask, KEY, 0, work)]
    assert work.begun.wait(LIMIT_S), "the first was not begun with"
    for item in range(1, count):
        futures.append(pool.submit(together.ask, KEY, item, work))
        while together.waiting(KEY) < item:
            pass
    return futures


def test_those_that_wait_are_done_in_one_go_and_in_their_order() -> None:
    together, work = Together[int](most=3), Held()
    with ThreadPoolExecutor(6) as pool:
        futures = asked(pool, together, work, 6)
        assert work.groups == [[0]]
        work.go.set()
        for future in futures:
            future.result(LIMIT_S)
    assert work.groups == [[0], [1, 2, 3], [4, 5]]
    assert together.waiting(KEY) == 0


def test_each_thread_hears_its_own_outcome() -> None:
    together = Together[int](most=8)
    work = Held(lambda item: ValueError(str(item)) if item == 2 else None)
    with ThreadPoolExecutor(4) as pool:
        futures = asked(pool, together, work, 4)
        work.go.set()
        failed = {number: future.exception(LIMIT_S) for number, future in enumerate(futures)}
    assert isinstance(failed.pop(2), ValueError)
    assert set(failed.values()) == {None}


def test_what_the_work_raises_everyone_of_the_group_hears_and_nobody_after() -> None:
    together, work = Together[int](most=8), Held()

    def fails(items: Sequence[int]) -> list[Outcome]:
        if 1 in items:
            raise OSError("the disk is gone")
        return [None for _ in items]

    with ThreadPoolExecutor(3) as pool:
        futures = asked(pool, together, work, 1)
        for item in (1, 2):
            futures.append(pool.submit(together.ask, KEY, item, fails))
            while together.waiting(KEY) < item:
                pass
        work.go.set()
        futures[0].result(LIMIT_S)
        for future in futures[1:]:
            with pytest.raises(OSError, match="the disk is gone"):
                future.result(LIMIT_S)
    together.ask(KEY, 3, fails)


def test_keys_do_not_wait_for_each_other() -> None:
    together, work = Together[int](most=8), Held()
    with ThreadPoolExecutor(1) as pool:
        (first,) = asked(pool, together, work, 1)
        together.ask(b"another cohort", 1, lambda items: [None for _ in items])
        assert not first.done()
        work.go.set()
        first.result(LIMIT_S)
