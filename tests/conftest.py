"""What tests of whole fleets share in one session of pytest."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from nightshift.host import clock
from tests.support.coordinators import ServeProcess
from tests.support.fleets import Fleet, Snapshots, copy_fleet
from tests.support.stores import S3, S3_CREDENTIALS, PostgreSql, postgresql, s3


@pytest.fixture(autouse=True)
def no_process_is_left() -> Iterator[None]:
    """End the coordinators that a test started and did not end, for it failed."""
    yield
    for process in tuple(ServeProcess.started):
        process.kill()


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


@pytest.fixture
def move_clock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Sets by how many seconds protocol time is ahead of the real one, for the devices and the coordinator alike."""
    file = tmp_path / "clock"
    monkeypatch.setenv(clock.ENVIRONMENT_VARIABLE, str(file))

    def move(seconds: float) -> None:
        file.write_text(f"{seconds}", "ascii")

    move(0)
    return move


@pytest.fixture(scope="session")
def postgresql_server() -> Iterator[PostgreSql]:
    """A PostgreSQL server of this run; see tests/support/stores.py."""
    with postgresql() as server:
        yield server


@pytest.fixture(scope="session")
def s3_session() -> Iterator[S3]:
    """An S3 server of this run."""
    with s3() as server:
        yield server


@pytest.fixture
def s3_server(s3_session: S3, monkeypatch: pytest.MonkeyPatch) -> S3:
    """The same, with the credentials that it takes in the environment."""
    for name, value in S3_CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    return s3_session
