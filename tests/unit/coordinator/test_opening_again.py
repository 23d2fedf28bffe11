"""Opening when a worker dies: the same sum, a moment later (fault 38)."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import pytest

from coordinator.storage.rows import CohortState
from nightshift.protocol.errors import NightshiftError
from nightshift.protocol.secagg import opener
from tests.support.nights import night


@pytest.mark.parametrize(("place", "deaths"), [("inline", 1), ("threads", 1), ("threads", 4)])
def test_the_sum_is_exact_though_workers_died(
    tmp_path: Path,
    package: Path,
    clock: Callable[[float], None],
    monkeypatch: pytest.MonkeyPatch,
    place: str,
    deaths: int,
) -> None:
    monkeypatch.setenv("NIGHTSHIFT_COORDINATOR_COMPUTE_BACKEND", place)
    real = opener._decrypt_part
    died: list[int] = []

    def part(*words: Any, **named: Any) -> bool:
        if len(died) < deaths:
            died.append(1)
            raise MemoryError("no room")
        return real(*words, **named)

    monkeypatch.setattr(opener, "_decrypt_part", part)
    with night(tmp_path / "coordinator", package, clock, devices=3) as tonight:
        prepared = tonight.contribute(*tonight.devices)
        for member in tonight.members():
            try:
                tonight.answer(member)
            except (NightshiftError, grpc.RpcError):
                # The opening that its answer set off failed; the answer itself is kept.
                continue
        deadline = time.monotonic() + 20
        while tonight.cohort().state is not CohortState.OPENED and time.monotonic() < deadline:
            time.sleep(0.1)
        assert len(died) == deaths
        tonight.require_exact_sum(prepared)
        assert tonight.answers_kept() == [1, 2, 3]
