"""Opening on several processors: the vector's parts are spread over threads.

numpy and ChaCha20 let go of the interpreter's lock while they work. A part
whose worker died (it ran out of memory, say) is done again by another; parts
write only their own rows, so done twice they leave the same bytes. Folding
moves memory and little else, and stays in the thread that asks.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

from coordinator.compute.inline import Inline
from coordinator.diagnostics import log
from nightshift.protocol.errors import NightshiftError
from nightshift.protocol.secagg.member import Answer
from nightshift.protocol.secagg.opener import OpenedVector, open_sum
from nightshift.protocol.secagg.parameters import CohortParameters
from nightshift.protocol.secagg.running_sum import RunningSum

ATTEMPTS = 3


class WorkerLostError(NightshiftError):  # its reason is its parent's: no device ever hears of it
    """A part of an opening failed whoever did it; the opening is tried again with the next step."""


class Threads(Inline):
    """See `coordinator.compute.backend.Backend`.

    Args:
        workers: threads of one opening; 0 for as many as there are processors.
    """

    def __init__(self, workers: int = 0) -> None:
        self.workers = workers or os.cpu_count() or 1

    def open_cohort(
        self, parameters: CohortParameters, plan_hash: bytes, running: bytes, answers: Sequence[Answer]
    ) -> OpenedVector:
        """See `Backend.open_cohort`."""
        total = RunningSum.from_bytes(running)
        del running
        with ThreadPoolExecutor(self.workers, thread_name_prefix="opening") as pool:

            def each(function: Callable[[int], bool], items: Iterable[int], /) -> Iterator[bool]:
                return _in_order(pool, function, items)

            return open_sum(parameters=parameters, plan_hash=plan_hash, running=total, answers=answers, each=each)


def _in_order(pool: ThreadPoolExecutor, function: Callable[[int], bool], items: Iterable[int]) -> Iterator[bool]:
    """Like `map`, at the same time; an item whose worker died is given to another."""
    under_way = [(item, pool.submit(function, item)) for item in items]
    try:
        for item, future in under_way:
            yield _persistent(pool, function, item, future)
    finally:
        # A subset of answers that fails its first parts needs no more of them.
        for _, future in under_way:
            future.cancel()


def _persistent(pool: ThreadPoolExecutor, function: Callable[[int], bool], item: int, future: Future[bool]) -> bool:
    for attempt in range(1, ATTEMPTS + 1):
        try:
            return future.result()
        except NightshiftError:
            raise  # what the computation has to say, not the end of its worker
        except Exception as error:
            log.warning("a worker died while opening", part=item, attempt=attempt, kind=type(error).__name__)
            if attempt == ATTEMPTS:
                raise WorkerLostError(
                    f"part {item} of an opening failed {ATTEMPTS} times: {type(error).__name__}: {error}"
                ) from error
            future = pool.submit(function, item)
    raise AssertionError("the last attempt returns or raises")
