"""What tests of whole fleets share in one session of pytest."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.fleets import Fleet, Snapshots, copy_fleet


@pytest.fixture(scope="session")
def snapshots(tmp_path_factory: pytest.TempPathFactory) -> Snapshots:
    """Fleets at several moments of a night; see tests/support/fleets.py."""
    return Snapshots(tmp_path_factory.mktemp("fleets"))


@pytest.fixture
def fleet_from(tmp_path: Path) -> Iterator[Callable[[Path], Fleet]]:
    """Copy a snapshot; whatever process of its coordinator is left is ended with the test."""
    fleets: list[Fleet] = []

    def copy(snapshot: Path) -> Fleet:
        fleets.append(copy_fleet(snapshot, tmp_path / f"fleet{len(fleets) + 1}"))
        return fleets[-1]

    yield copy
    for fleet in fleets:
        fleet.coordinator.kill()
