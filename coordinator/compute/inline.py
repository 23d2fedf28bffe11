"""Folding and opening in the thread that asks."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from nightshift.protocol.secagg.member import Answer
from nightshift.protocol.secagg.opener import OpenedVector, open_sum
from nightshift.protocol.secagg.parameters import CohortParameters
from nightshift.protocol.secagg.running_sum import RunningSum


class Inline:
    """See `coordinator.compute.backend.Backend`."""

    def fold(
        self,
        parameters: CohortParameters,
        length: int,
        running: bytes | None,
        ciphertexts: Iterable[bytes | memoryview],
    ) -> bytes:
        """See `Backend.fold`."""
        total = RunningSum.from_bytes(running) if running is not None else RunningSum.new(parameters, length)
        del running  # as large as the sum, and so is each of these
        for ciphertext in ciphertexts:
            total.add(ciphertext)
            del ciphertext
        return total.to_bytes()

    def open_cohort(
        self, parameters: CohortParameters, plan_hash: bytes, running: bytes, answers: Sequence[Answer]
    ) -> OpenedVector:
        """See `Backend.open_cohort`."""
        total = RunningSum.from_bytes(running)
        del running
        return open_sum(parameters=parameters, plan_hash=plan_hash, running=total, answers=answers)
