"""Backup and restore, from and to every database and object store; while the coordinator works; of damaged copies."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from sqlalchemy import func, select

from coordinator import log_audit, orphans
from coordinator.backups import restoring
from coordinator.backups.key_archive import open_keys, seal_keys
from coordinator.backups.manifest import MANIFEST, Manifest
from coordinator.backups.restoring import REASON, restore
from coordinator.backups.taking import take
from coordinator.configuration import Listen, Storage, configuration_text
from coordinator.deployment import Deployment
from coordinator.doctor.checkup import check_up
from coordinator.home import Home
from coordinator.releases.decisions import newest_decision, served_release
from coordinator.storage.rows import (
    AuditRow,
    Base,
    Cohort,
    CohortState,
    Contribution,
    Device,
    Lease,
    PrekeyRow,
    ReleaseRow,
)
from nightshift.protocol.errors import HashMismatchError, NotFoundError, UsageError, VerificationError
from tests.support.coordinators import TASK, make_token, open_home
from tests.support.fleets import Snapshots
from tests.support.nights import night
from tests.support.stores import PAIRS, StorageOf

pytestmark = pytest.mark.slow


def no_clock(seconds: float) -> None:
    """Time is not moved here."""


def home_with_keys(old: Deployment, directory: Path, storage: Storage) -> Home:
    """A directory as an operator prepares it: the keys from their archive, and where things shall lie."""
    home = Home(directory)
    archive = directory.with_suffix(".sealed")
    seal_keys(old.home.keys_directory, archive, b"correct horse battery")
    open_keys(archive, home.keys_directory, b"correct horse battery")
    listen: Listen = old.configuration.listen
    home.configuration_file.write_text(configuration_text(listen, storage), "utf-8")
    return home


def rows_of(deployment: Deployment, *tables: str) -> dict[str, int]:
    with deployment.database.reading() as session:
        return {
            table.name: session.scalar(select(func.count()).select_from(table)) or 0
            for table in Base.metadata.sorted_tables
            if table.name in tables or not tables
        }


@pytest.mark.parametrize(("before", "after"), list(zip(PAIRS, reversed(PAIRS), strict=True)))
def test_a_planned_move_loses_nothing(
    before: str, after: str, storage_of: StorageOf, tmp_path: Path, snapshots: Snapshots
) -> None:
    """The old one is stopped, then backed up: the new one finishes its night, on whichever stores it is."""
    with night(tmp_path / "old", snapshots.package(), no_clock, devices=3, storage=storage_of(before)) as made:
        prepared = [made.prepare(device) for device in made.devices]
        for device, one in zip(made.devices[:2], prepared[:2], strict=True):
            assert device.upload(one).complete
        made.devices[2].open_upload(prepared[2])
        made.devices[2].send(prepared[2], stop=len(prepared[2].body) // 2)
        moving = made.deployment
        made.stop()
        manifest = take(moving, tmp_path / "backup")
        rows = rows_of(moving)

        home = home_with_keys(moving, tmp_path / "new", storage_of(after))
        restore(tmp_path / "backup", home, nothing_happened_since=True)
        with open_home(home) as deployment:
            now = rows_of(deployment)
            del rows["leases"], now["leases"]
            assert now == rows, "with the audit row of the restore in place of the backup's own, which came after it"
            assert sum(rows.values()) - 1 == manifest.rows
            with deployment.database.reading() as session:
                assert set(orphans.referenced(session)) <= {
                    key for prefix in orphans.PREFIXES for key in deployment.objects.list(prefix)
                }
            with made.moved_to(deployment):
                assert made.devices[2].open_upload(prepared[2]).offset == len(prepared[2].body) // 2
                assert made.devices[2].upload(prepared[2]).complete
                made.answer(*made.members())
                made.require_exact_sum(prepared)


def test_what_may_have_changed_since_is_forgotten(tmp_path: Path, snapshots: Snapshots) -> None:
    """A cohort that was open in the backup may have been frozen since: it must not be frozen a second time."""
    with night(tmp_path / "old", snapshots.package(), no_clock, devices=3) as made:
        prepared = [made.prepare(device) for device in made.devices]
        assert made.devices[0].upload(prepared[0]).complete
        take(made.deployment, tmp_path / "backup")
        home = home_with_keys(made.deployment, tmp_path / "new", Storage())
        done = restore(tmp_path / "backup", home, nothing_happened_since=False)
        assert done.ended == 1
        assert done.prekeys_dropped == rows_of(made.deployment, "prekeys")["prekeys"] - 3, "all but the spent ones"
        with open_home(home) as deployment, deployment.database.reading() as session:
            cohort = session.scalars(select(Cohort)).one()
            assert (cohort.state, cohort.reason) == (CohortState.VOID, REASON)
            assert cohort.void_position is not None, "logged, for all to see"
            assert session.scalars(select(Device).where(Device.nonce.is_not(None))).all() == []
            assert session.scalars(select(PrekeyRow).where(PrekeyRow.spent_on.is_(None))).all() == []
            (row,) = session.scalars(select(AuditRow).where(AuditRow.verb == "restore"))
            assert f'"made_unix_s": {done.manifest.made_unix_s}' in row.detail
            assert session.scalars(select(Lease)).all() == []
            assert done.tasks == (TASK,)
            first, newest = session.scalars(select(ReleaseRow).order_by(ReleaseRow.number)).all()
            assert (newest.restores, served_release(session, TASK).release_id) == (first.release_id, first.release_id)
            decision = newest_decision(session, TASK)
            assert decision is not None
            assert (decision.next_parent, decision.kind) == (newest.release_id, "set aside")
            assert REASON in decision.reason
            log_audit.audit(session, deployment)


def test_a_backup_taken_while_contributions_are_counted_is_whole(tmp_path: Path, snapshots: Snapshots) -> None:
    """Each count replaces the running sum: an object that was named when the rows were read is gone a moment later."""
    with night(tmp_path / "old", snapshots.package(), no_clock, devices=3) as made:
        prepared = [made.prepare(device) for device in made.devices]
        errors: list[BaseException] = []

        def upload() -> None:
            try:
                for device, one in zip(made.devices, prepared, strict=True):
                    assert device.upload(one).complete
            except BaseException as error:  # noqa: BLE001 - shown by the test
                errors.append(error)

        thread = threading.Thread(target=upload)
        thread.start()
        taken = [take(made.deployment, tmp_path / f"backup{number}") for number in range(3)]
        thread.join()
        assert errors == []
        for number, manifest in enumerate(taken):
            home = home_with_keys(made.deployment, tmp_path / f"new{number}", Storage())
            restore(tmp_path / f"backup{number}", home, nothing_happened_since=True)
            with open_home(home) as deployment, deployment.database.reading() as session:
                cohort = session.scalars(select(Cohort)).one()
                counted = session.scalar(
                    select(func.count()).select_from(Contribution).where(Contribution.sealed_key.is_not(None))
                )
                assert cohort.counted == counted
                for key in orphans.referenced(session):
                    deployment.objects.get(key)
            assert manifest.log_size > 0


def test_a_restore_that_is_cut_off_serves_nothing_and_is_finished_by_the_same_one(
    tmp_path: Path, snapshots: Snapshots, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the rows and what must be forgotten: served then, it would freeze a set a second time."""
    with night(tmp_path / "old", snapshots.package(), no_clock, devices=3) as made:
        for number in (1, 2):
            take(made.deployment, tmp_path / f"backup{number}")
            make_token(made.deployment)
        home = home_with_keys(made.deployment, tmp_path / "new", Storage())

    def cut_off(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(restoring, "_forget_what_may_have_changed", cut_off)
        with pytest.raises(KeyboardInterrupt):
            restore(tmp_path / "backup1", home, nothing_happened_since=False)
    with pytest.raises(UsageError, match="the same `coordinator restore` again"), open_home(home):
        """Nothing is served from it."""
    findings = [str(finding) for finding in check_up(home)]
    assert any("problem database" in text and "the same `coordinator restore` again" in text for text in findings)
    with pytest.raises(UsageError, match="already holds a coordinator"):
        restore(tmp_path / "backup2", home, nothing_happened_since=False)
    assert restore(tmp_path / "backup1", home, nothing_happened_since=False).ended == 1
    with open_home(home) as deployment, deployment.database.reading() as session:
        assert session.scalars(select(Cohort.state)).all() == [CohortState.VOID]
    with pytest.raises(UsageError, match="already holds a coordinator"):
        restore(tmp_path / "backup1", home, nothing_happened_since=False)


class TestRefusals:
    @pytest.fixture
    def backup(self, tmp_path: Path, snapshots: Snapshots) -> tuple[Deployment, Path]:
        with night(tmp_path / "old", snapshots.package(), no_clock, devices=3) as made:
            prepared = [made.prepare(device) for device in made.devices]
            assert made.devices[0].upload(prepared[0]).complete
            take(made.deployment, tmp_path / "backup")
            return made.deployment, tmp_path / "backup"

    def refused(self, backup: tuple[Deployment, Path], tmp_path: Path, error: type[Exception], match: str) -> Home:
        home = home_with_keys(backup[0], tmp_path / "new", Storage())
        with pytest.raises(error, match=match):
            restore(backup[1], home, nothing_happened_since=False)
        return home

    def test_a_backup_that_was_cut(self, backup: tuple[Deployment, Path], tmp_path: Path) -> None:
        (backup[1] / MANIFEST).unlink()
        self.refused(backup, tmp_path, UsageError, "no complete backup")

    def test_an_altered_file_of_a_model(self, backup: tuple[Deployment, Path], tmp_path: Path) -> None:
        artefact = max((backup[1] / "objects" / "artefacts").iterdir(), key=lambda path: path.stat().st_size)
        artefact.write_bytes(artefact.read_bytes()[:-1] + b"\0\1"[:1])
        home = self.refused(backup, tmp_path, HashMismatchError, "does not have its hash")
        with pytest.raises(UsageError, match="empty"), open_home(home):
            """Nothing can be served from it."""

    def test_a_missing_object(self, backup: tuple[Deployment, Path], tmp_path: Path) -> None:
        next((backup[1] / "objects" / "cohorts").rglob("*-*")).unlink()
        self.refused(backup, tmp_path, NotFoundError, "lacks 1 of its objects")

    def test_a_log_that_is_not_the_stated_one(self, backup: tuple[Deployment, Path], tmp_path: Path) -> None:
        manifest = Manifest.read(backup[1])
        manifest.model_copy(update={"log_size": manifest.log_size + 1}).write(backup[1])
        self.refused(backup, tmp_path, HashMismatchError, "log")

    def test_keys_of_another_coordinator(self, backup: tuple[Deployment, Path], tmp_path: Path) -> None:
        manifest = Manifest.read(backup[1])
        manifest.model_copy(update={"root_sha256": "00" * 32}).write(backup[1])
        self.refused(backup, tmp_path, UsageError, "another coordinator")

    def test_a_database_that_holds_something(self, backup: tuple[Deployment, Path], tmp_path: Path) -> None:
        home = home_with_keys(backup[0], tmp_path / "new", Storage())
        restore(backup[1], home, nothing_happened_since=False)
        with pytest.raises(UsageError, match="already holds a coordinator"):
            restore(backup[1], home, nothing_happened_since=False)

    def test_a_directory_that_holds_something(self, backup: tuple[Deployment, Path], tmp_path: Path) -> None:
        with pytest.raises(UsageError, match="not empty"):
            take(backup[0], backup[1])

    def test_keys_under_another_passphrase(self, backup: tuple[Deployment, Path], tmp_path: Path) -> None:
        archive = tmp_path / "archive"
        assert seal_keys(backup[0].home.keys_directory, archive, b"correct horse battery") > 4
        sealed = archive.read_bytes()
        for path in backup[0].home.keys_directory.rglob("*.key"):
            assert path.read_bytes().splitlines()[1] not in sealed
        with pytest.raises(VerificationError, match="another passphrase"):
            open_keys(archive, tmp_path / "keys", b"incorrect horse battery")
        archive.write_bytes(sealed[:-1] + bytes([sealed[-1] ^ 1]))
        with pytest.raises(VerificationError, match="altered"):
            open_keys(archive, tmp_path / "keys", b"correct horse battery")
        assert not (tmp_path / "keys").exists()


def test_tables_that_refer_to_themselves_are_copied_in_order() -> None:
    from coordinator.backups.rows import _IN_ORDER

    themselves = {
        table.name
        for table in Base.metadata.sorted_tables
        if any(key.column.table is table for key in table.foreign_keys)
    }
    assert set(_IN_ORDER) == themselves
