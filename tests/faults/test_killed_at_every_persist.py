"""kill -9 after every single commit, put and deletion of a night, whatever code made it: the same sum each time.

What a coordinator knows after a crash is what its database and its object store hold, and these change at commits,
puts and deletions only. `coordinator.storage` has a failpoint behind each of the three. So killing at the first commit
of a night, then in another night at the second, and so on until a night ends alive, leaves out nothing: no list of
places has to be kept up to date. (A kill between two changes finds what a kill after the first of them finds.)
"""

from __future__ import annotations

import io
import os
import re
import shutil
import signal
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path

import numpy as np
import pytest
from sqlalchemy import select

from coordinator import log_audit, orphans
from coordinator.aggregation import places
from coordinator.home import Home
from coordinator.rounds.plans import open_round
from coordinator.service.server import serving
from coordinator.storage.rows import (
    Cohort,
    CohortState,
    Contribution,
    ContributionState,
    LogEntryRow,
    ReleaseRow,
    Task,
)
from nightshift.host import clock
from nightshift.host.clock import now_unix_s
from nightshift.host.failpoints import ENVIRONMENT_VARIABLE
from nightshift.protocol.errors import UnreachableError
from nightshift.v1 import log_pb2
from tests.support.coordinators import TASK, ServeProcess, make_home, make_task, make_token, open_home
from tests.support.fleets import Snapshots, wait_until
from tests.support.scripted_device import Prepared, ScriptedDevice
from tests.support.store_failpoints import OBJECT_DELETED, OBJECT_PUT, ROWS_COMMITTED

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]

SOURCES = Path(__file__).parents[2] / "coordinator"
DEVICES = 3
WINDOW_S = 600
FEWEST = {ROWS_COMMITTED: 15, OBJECT_PUT: 10, OBJECT_DELETED: 6}
"""A night that has fewer of them was not the night that it should be."""


@dataclass(frozen=True)
class Evening:
    """A coordinator whose round is open, stopped; and what its devices will send.

    Attributes:
        directory: of the coordinator.
        devices: all members, none of which has contributed.
        prepared: their contributions.
    """

    directory: Path
    devices: Sequence[ScriptedDevice]
    prepared: Sequence[Prepared]

    def again(self, directory: Path) -> tuple[Home, list[ScriptedDevice]]:
        """The same evening in another directory, with devices that remember nothing of other nights."""
        shutil.copytree(self.directory, directory)
        return Home(directory), [replace(device, prekeys=dict(device.prekeys)) for device in self.devices]


@pytest.fixture(scope="module")
def evening(tmp_path_factory: pytest.TempPathFactory, snapshots: Snapshots) -> Evening:
    home = make_home(tmp_path_factory.mktemp("evening") / "coordinator")
    with open_home(home) as deployment:
        rounds = {"upload_window_s": WINDOW_S, "upload_extension_s": WINDOW_S, "answer_window_s": WINDOW_S}
        # Values over the whole range have a larger norm than honest devices' changes.
        encoding = {"clip_norm": 0.0, "value_clip": 1.0}
        make_task(
            deployment,
            snapshots.package(),
            cohort={"n_max": DEVICES, "n_min": DEVICES},
            rounds=rounds,
            encoding=encoding,
        )
        token = make_token(deployment)
        devices = [ScriptedDevice(token, name=str(number)) for number in range(DEVICES)]
        with serving(deployment):
            for device in devices:
                device.join()
                device.check_in(new_prekeys=1)
            with deployment.database.transaction() as session:
                open_round(session, deployment, session.get_one(Task, TASK), now_unix_s())
            prepared = []
            for device in devices:
                plan = device.check_in().plan
                assert plan is not None
                length = plan.document.vector.delta_length
                prepared.append(device.prepare(plan, np.random.default_rng().uniform(-1, 1, length).astype(np.float32)))
                device.close()
    return Evening(home.directory, devices, prepared)


class Service:
    """`coordinator serve`, which dies once at a failpoint and is started again then.

    Args:
        home: of the coordinator.
        place: the failpoint.
        nth: which of its passes kills.
    """

    def __init__(self, home: Home, place: str, nth: int) -> None:
        self._home = home
        self.killed = False
        self._process = ServeProcess(home, **{ENVIRONMENT_VARIABLE: f"{place}:{nth}"})
        self._await_readiness()

    def through(self, step: Callable[[], None]) -> None:
        """Do a device's step, and once more if the service died meanwhile."""
        try:
            step()
        except UnreachableError:
            self._revive()
            step()

    def wait_for(self, condition: Callable[[], bool]) -> None:
        """Wait for what it does by itself."""

        def met() -> bool:
            if not self._process.running:
                self._revive()
            return condition()

        wait_until(met)

    def end(self) -> None:
        """Stop it in good order, if it still lives."""
        if self._process.terminate() == -signal.SIGKILL:
            self._revive()
            assert self._process.terminate() == 0

    def _revive(self) -> None:
        assert not self.killed, "it dies once"
        assert self._process.wait_for_death() == -signal.SIGKILL
        self.killed = True
        self._process = ServeProcess(self._home)
        self._process.wait_until_ready()

    def _await_readiness(self) -> None:
        try:
            self._process.wait_until_ready()
        except AssertionError:
            self._revive()


def whole_night(evening: Evening, home: Home, devices: list[ScriptedDevice], service: Service, clock: Path) -> None:
    """Two devices in time, one in the extension; answers; a release; everything of the cohort erased."""

    def uploads(device: ScriptedDevice, prepared: Prepared) -> Callable[[], None]:
        def step() -> None:
            device.close()
            assert device.upload(prepared).complete

        return step

    def answers(device: ScriptedDevice) -> Callable[[], None]:
        def step() -> None:
            device.close()
            for duty in device.check_in(no_plan=True).duties:
                device.send_answer(device.make_answer(duty))

        return step

    def cohort() -> Cohort:
        with open_home(home) as deployment, deployment.database.reading() as session:
            return session.scalars(select(Cohort)).one()

    for device, prepared in zip(devices[:2], evening.prepared[:2], strict=True):
        service.through(uploads(device, prepared))
    clock.write_text(str(WINDOW_S + 1), "ascii")
    latest = cohort().latest_upload_deadline_unix_s
    service.wait_for(lambda: cohort().upload_deadline_unix_s == latest)
    service.through(uploads(devices[2], evening.prepared[2]))
    frozen = cohort()
    assert frozen.set_hash is not None, "n_max is reached"
    for device in devices:
        service.through(answers(device))
    service.wait_for(lambda: cohort().erased)
    assert cohort().set_hash == frozen.set_hash, "a frozen set never changes"


def require_one_of_each(evening: Evening, home: Home) -> None:
    """The exact sum; each device counted once; one release; a log that says each thing once and agrees with rows."""
    with open_home(home) as deployment, deployment.database.reading() as session:
        cohort = session.scalars(select(Cohort)).one()
        assert (cohort.state, cohort.counted) == (CohortState.OPENED, DEVICES), cohort.reason
        opened = np.load(io.BytesIO(deployment.objects.get(places.opened_key(cohort.cohort_id))))
        np.testing.assert_array_equal(opened, np.sum([one.values for one in evening.prepared], axis=0, dtype=np.uint64))
        states = session.scalars(select(Contribution.state)).all()
        assert states == [ContributionState.COUNTED] * DEVICES
        assert session.scalars(select(ReleaseRow.number).order_by(ReleaseRow.number)).all() == [0, 1]
        kinds = [log_pb2.LogEntry.FromString(entry).kind for entry in session.scalars(select(LogEntryRow.entry))]
        assert kinds.count(log_pb2.LOG_ENTRY_KIND_EXTENSION) == 1
        assert kinds.count(log_pb2.LOG_ENTRY_KIND_SET) == 1
        log_audit.audit(session, deployment)
        named = set(orphans.referenced(session))
        present = {key for prefix in orphans.PREFIXES for key in deployment.objects.list(prefix)}
        assert named <= present
        assert not [key for key in present if key.startswith("cohorts/")]


@pytest.fixture
def offset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    file = tmp_path / "offset"
    monkeypatch.setenv(clock.ENVIRONMENT_VARIABLE, str(file))
    yield file
    assert ENVIRONMENT_VARIABLE not in os.environ


@pytest.mark.parametrize("place", FEWEST)
def test_each_in_turn(place: str, evening: Evening, tmp_path: Path, offset: Path) -> None:
    """Tries: kill -9 after the first, the second … and the last of them, a night for each.

    What stops a double count, a lost night or a second set: every step is one transaction that names only objects which
    are there (coordinator/rounds/states.py), and everybody finds out from the rows how far it came.
    """
    for nth in count(1):
        offset.write_text("0", "ascii")
        home, devices = evening.again(tmp_path / f"night{nth}")
        service = Service(home, place, nth)
        try:
            whole_night(evening, home, devices, service, offset)
        finally:
            for device in devices:
                device.close()
        service.end()
        require_one_of_each(evening, home)
        if not service.killed:
            break
        shutil.rmtree(home.directory)
    assert nth > FEWEST[place], "so many were killed"


def test_nothing_persists_beside_them() -> None:
    """Sessions are made, and objects are written, in `coordinator.storage` alone, where the failpoints are.

    A schema is brought up to date, and a backup copied and brought back, whole or not at all (tests/contract).
    """
    pattern = r"\bSession\(|\.commit\(|\.writer\b|obstore\.(put|delete|copy|rename)\("
    elsewhere = {
        path.relative_to(SOURCES).as_posix()
        for path in SOURCES.rglob("*.py")
        if re.search(pattern, path.read_text("utf-8")) and path.parent != SOURCES / "storage"
    }
    assert elsewhere == {"backups/restoring.py", "backups/taking.py"}
