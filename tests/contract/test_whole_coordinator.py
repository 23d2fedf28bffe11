"""The whole coordinator on {SQLite, PostgreSQL} x {directory, S3}, with two replicas on each pair.

Both replicas serve from this process, so that a test can look into rows and objects; all they
know of each other is what they read there. Moving from pair to pair by backup is in test_backups.py.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from sqlalchemy import func, select

from coordinator import log_audit, orphans
from coordinator.aggregation import places
from coordinator.deployment import Deployment
from coordinator.enrolment.devices import revoke
from coordinator.releases.publication import newest_release
from coordinator.rounds.advance import abort
from coordinator.service.server import serving
from coordinator.storage.rows import (
    Cohort,
    CohortState,
    Contribution,
    Device,
    LogEntryRow,
    Round,
    RoundState,
    UploadPart,
)
from nightshift.host.clock import now_unix_s
from nightshift.protocol.errors import NotFoundError, RevokedError, StateConflictError
from nightshift.v1 import log_pb2
from tests.support.coordinators import TASK, make_replica, make_token, open_home
from tests.support.fleets import Snapshots, wait_until
from tests.support.nights import WINDOW_S, Night, night
from tests.support.scripted_device import ScriptedDevice
from tests.support.stores import PAIRS, StorageOf

pytestmark = pytest.mark.slow

DAY_S = 86_400


@dataclass(frozen=True)
class Replicas:
    """A night of six devices at one coordinator, and a second process's worth of it on the same stores.

    Attributes:
        night: as the first one serves it; its round is open.
        second: the other.
    """

    night: Night
    second: Deployment

    @property
    def devices(self) -> list[ScriptedDevice]:
        return self.night.devices

    def at_second(self, *devices: ScriptedDevice) -> None:
        """Let devices speak to the second from now on."""
        for device in devices:
            device.call_at(self.second.configuration.device_address())

    def at_first(self, *devices: ScriptedDevice) -> None:
        """Let devices speak to the first from now on."""
        for device in devices:
            device.call_at(self.night.deployment.configuration.device_address())

    def wait_for(self, state: RoundState) -> None:
        """Wait until whichever of the two leads has ended the round so."""

        def ended() -> bool:
            with self.second.database.reading() as session:
                return session.get_one(Round, (TASK, 1)).state is state

        wait_until(ended)

    def below(self, prefix: str) -> list[str]:
        """Keys of objects, as the second sees them."""
        return list(self.second.objects.list(prefix))

    def logged(self, kind: int) -> int:
        """How many entries of a kind the log has."""
        with self.second.database.reading() as session:
            entries = session.scalars(select(LogEntryRow.entry)).all()
        return sum(log_pb2.LogEntry.FromString(entry).kind == kind for entry in entries)


@pytest.fixture(params=PAIRS)
def replicas(
    request: pytest.FixtureRequest,
    storage_of: StorageOf,
    tmp_path: Path,
    snapshots: Snapshots,
    move_clock: Callable[[float], None],
) -> Iterator[Replicas]:
    storage = storage_of(request.param)
    if not storage.database:
        storage = storage.model_copy(update={"database": f"sqlite:///{tmp_path / 'rows.sqlite3'}"})
    with night(tmp_path / "first", snapshots.package(), move_clock, devices=6, storage=storage) as made:
        home = make_replica(made.deployment.home, tmp_path / "second")
        if not storage.objects:
            # As a directory that both machines mount.
            home.objects_directory.symlink_to(made.deployment.home.objects_directory)
        with open_home(home) as second, serving(second):
            yield Replicas(made, second)


def test_a_night_that_two_replicas_serve(replicas: Replicas) -> None:
    """Enrolled here and checked in there; half an upload to each; answers to both; one sum, one release."""
    made = replicas.night
    joined = ScriptedDevice(make_token(replicas.second), name="late")
    joined.join()
    replicas.at_first(joined)
    assert joined.check_in(new_prekeys=1).plan is not None, "what one enrolled the other knows"
    joined.close()

    prepared = [made.prepare(device) for device in replicas.devices]
    half = len(prepared[0].body) // 2
    for device, one in zip(replicas.devices, prepared, strict=True):
        device.open_upload(one)
        assert not device.send(one, stop=half).complete
    parts = f"cohorts/{made.plan.document.cohort_id.hex()}/uploads"
    assert len(replicas.below(parts)) == len(prepared), "each half is an object of its own"
    assert all(f"/{0:012d}-" in key for key in replicas.below(parts)), "keyed by its offset"
    for device, one in zip(replicas.devices, prepared, strict=True):
        replicas.at_second(device)
        assert device.open_upload(one).offset == half
        assert device.send(one, offset=half).complete
        assert device.upload(one).complete, "the same again is acknowledged and not counted again"
    assert replicas.below(parts) == []
    cohort = made.cohort()
    assert (cohort.state, cohort.counted) == (CohortState.FROZEN, len(prepared))
    assert made.counted() == {device.device_id for device in replicas.devices}
    with replicas.second.database.reading() as session:
        assert session.scalar(select(func.count()).select_from(UploadPart)) == 0

    replicas.at_first(*made.members()[::2])
    made.answer(*made.members()[:5])  # five of six open it
    replicas.wait_for(RoundState.PUBLISHED)
    made.require_exact_sum(prepared)
    assert made.cohort().set_hash == cohort.set_hash, "a frozen set never changes"
    wait_until(lambda: replicas.below("cohorts") == [])
    for kind in (log_pb2.LOG_ENTRY_KIND_SET, log_pb2.LOG_ENTRY_KIND_PLAN):
        assert replicas.logged(kind) == 1

    with replicas.second.database.reading() as session:
        release = newest_release(session, TASK)
        found = log_audit.audit(session, replicas.second)
    assert release.number == 1
    assert found.objects >= 4, "plan, pool, set and releases agree with their entries"
    for device in made.members()[:2]:  # one at each
        greeting = device.check_in()
        offered = max(greeting.releases, key=lambda each: each.document.number)
        assert offered.release_id == release.release_id
        _, adapter = device.fetch(offered.document.adapter_sha256)
        assert hashlib.sha256(adapter).digest() == offered.document.adapter_sha256


def test_a_night_that_ends_without_a_sum(replicas: Replicas) -> None:
    """The operator ends it at one while the other holds half an upload: void, logged, and nothing is left."""
    made = replicas.night
    prepared = made.prepare(replicas.devices[0])
    made.contribute(*replicas.devices[1:3])
    replicas.at_second(replicas.devices[0])
    replicas.devices[0].open_upload(prepared)
    replicas.devices[0].send(prepared, stop=1000)
    with made.deployment.database.transaction() as session:
        abort(session, made.deployment, [session.get_one(Cohort, made.plan.document.cohort_id)], "a wrong task")
    replicas.wait_for(RoundState.VOID)
    assert (made.cohort().state, made.cohort().reason) == (CohortState.VOID, "a wrong task")
    assert replicas.logged(log_pb2.LOG_ENTRY_KIND_VOID) == 1
    wait_until(lambda: replicas.below("cohorts") == [])
    with pytest.raises(StateConflictError, match="uploads of this cohort have ended"):
        replicas.devices[0].send(prepared, offset=1000)
    made.require_no_sum()


def test_a_deadline_that_passes(replicas: Replicas) -> None:
    """Of six devices three came, and none answers: frozen by the one that leads, void by the later deadline."""
    made = replicas.night
    made.contribute(*replicas.devices[:3])
    made.move_clock(WINDOW_S + 1)
    wait_until(lambda: made.cohort().state is CohortState.FROZEN)
    assert made.cohort().counted == 3
    made.move_clock(2 * WINDOW_S + 2)
    replicas.wait_for(RoundState.VOID)
    assert made.cohort().reason == "0 committee members answered before the deadline, 5 are needed"


def test_a_revocation_counts_at_the_other_with_the_next_call(replicas: Replicas) -> None:
    device = replicas.devices[0]
    replicas.at_second(device)
    device.check_in()
    first = replicas.night.deployment
    with first.database.transaction() as session:
        row = session.get_one(Device, device.device_id)
        revoke(session, first.log, row, reason="lost", now_unix_s=now_unix_s())
    with pytest.raises(RevokedError):
        device.check_in()


def test_orphans_are_collected_and_nothing_else(replicas: Replicas) -> None:
    """What a killed process put and never recorded goes after a day; what rows name stays, whoever put it."""
    made = replicas.night
    prepared = made.contribute(*replicas.devices[:2])
    replicas.devices[2].open_upload(made.prepare(replicas.devices[2]))
    stray = [places.running_key(made.plan.document.cohort_id, 9), places.opened_key(bytes(32)), f"artefacts/{'0' * 64}"]
    for key in stray:
        made.deployment.objects.put(key, b"never recorded")
    assert orphans.collect(replicas.second, time.time() + DAY_S / 2) == 0, "they may yet be recorded"
    assert orphans.collect(replicas.second, time.time() + 2 * DAY_S) == len(stray)
    for key in stray:
        with pytest.raises(NotFoundError):
            made.deployment.objects.get(key)
    prepared += made.contribute(*replicas.devices[3:])
    made.end_uploads()
    made.answer(*made.members()[:5])
    replicas.wait_for(RoundState.PUBLISHED)
    made.require_exact_sum(prepared)
    with replicas.second.database.reading() as session:
        assert session.scalar(select(func.count()).select_from(Contribution)) == 6
