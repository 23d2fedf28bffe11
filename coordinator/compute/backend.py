"""Where folding and opening are computed; every place returns the same bytes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol

from coordinator.configuration import Compute
from nightshift.protocol.secagg.member import Answer
from nightshift.protocol.secagg.opener import OpenedVector
from nightshift.protocol.secagg.parameters import CohortParameters


class Backend(Protocol):
    """From bytes to bytes, without rows, objects or a clock."""

    def fold(
        self,
        parameters: CohortParameters,
        length: int,
        running: bytes | None,
        ciphertexts: Iterable[bytes | memoryview],
    ) -> bytes:
        """Add ciphertexts to a running sum.

        Args:
            parameters: of the cohort.
            length: values in a vector.
            running: the sum so far, or None for an empty one.
            ciphertexts: verified, each of the plan's size; the next is asked for when the last one has been let go.

        Returns:
            The new sum, as `RunningSum.to_bytes`.
        """

    def open_cohort(
        self, parameters: CohortParameters, plan_hash: bytes, running: bytes, answers: Sequence[Answer]
    ) -> OpenedVector:
        """Open a cohort's sum from at least T answers.

        Raises:
            SumAbsentError: no subset of the answers passes the residual check.
            WorkerLostError: workers kept dying; the same call may be made again.
        """


def backend(settings: Compute) -> Backend:
    """The one that coordinator.toml names."""
    if settings.backend == "threads":
        from coordinator.compute.threads import Threads

        return Threads(settings.workers)
    from coordinator.compute.inline import Inline

    return Inline()
