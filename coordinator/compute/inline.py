"""Folding and opening in the calling thread: pure functions from bytes to bytes.

Another place to run them (threads, a cluster) takes the same arguments and
must return the same bytes.
"""

from __future__ import annotations

from collections.abc import Sequence

from nightshift.protocol.secagg.member import Answer
from nightshift.protocol.secagg.opener import OpenedVector, open_sum
from nightshift.protocol.secagg.parameters import CohortParameters
from nightshift.protocol.secagg.running_sum import RunningSum


def fold(
    parameters: CohortParameters, length: int, running: bytes | None, ciphertexts: Sequence[bytes | memoryview]
) -> bytes:
    """Add ciphertexts to a running sum.

    Args:
        parameters: of the cohort.
        length: values in a vector.
        running: the sum so far, or None for an empty one.
        ciphertexts: verified, each of the plan's size.

    Returns:
        The new sum, as `RunningSum.to_bytes`.
    """
    total = RunningSum.from_bytes(running) if running is not None else RunningSum.new(parameters, length)
    total.add(*ciphertexts)
    return total.to_bytes()


def open_cohort(
    parameters: CohortParameters, plan_hash: bytes, running: bytes, answers: Sequence[Answer]
) -> OpenedVector:
    """Open a cohort's sum from at least T answers.

    Raises:
        SumAbsentError: no subset of the answers passes the residual check.
    """
    return open_sum(parameters=parameters, plan_hash=plan_hash, running=RunningSum.from_bytes(running), answers=answers)
