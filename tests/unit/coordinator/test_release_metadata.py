"""The coordinator's repository of release metadata, judged by python-tuf's own client; and the keys' ceremonies."""

from __future__ import annotations

import itertools
import json
import shutil
import sqlite3
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from sqlalchemy import func, select
from tuf.api.exceptions import DownloadHTTPError, UnsignedMetadataError
from tuf.api.metadata import Root, Snapshot, Targets, Timestamp
from tuf.ngclient import FetcherInterface, Updater

from coordinator.deployment import Deployment
from coordinator.doctor.checkup import check_up
from coordinator.home import Home
from coordinator.releases import repository
from coordinator.releases.freshness import Freshness
from coordinator.releases.publication import newest_release
from coordinator.releases.release_keys import ReleaseKeys
from coordinator.releases.repository import latest, refresh_metadata, serve_release
from coordinator.storage.rows import AuditRow, ReleaseMetadataRow, ReleaseRow
from nightshift.host.clock import now_unix_s
from nightshift.host.findings import Finding, Grade
from nightshift.protocol.errors import MalformedError, NotFoundError, UsageError
from nightshift.protocol.targets import MAX_METADATA_BYTES, Role, ServedRelease, adapter_target, package_target
from tests.support.coordinators import TASK, make_task, open_home
from tests.support.operator_commands import Operate

DAY_S = 86_400
OK, USAGE = 0, 2
ONLINE = ("adapters", "packages", "snapshot", "timestamp")

Run = Callable[..., Any]


class LocalFetcher(FetcherInterface):
    """The repository's files, without a wire."""

    def __init__(self, deployment: Deployment) -> None:
        self._deployment = deployment

    def _fetch(self, url: str) -> Iterator[bytes]:
        *version, role, _ = url.removeprefix("x/").split(".")
        try:
            with self._deployment.database.reading() as session:
                yield repository.document(session, role, int(version[0]) if version else 0)
        except NotFoundError as error:
            raise DownloadHTTPError(str(error), 404) from error


def client(deployment: Deployment, directory: Path, root: bytes) -> Updater:
    """A device of python-tuf's, refreshed, by the coordinator's clock."""
    directory.mkdir(exist_ok=True)
    updater = Updater(str(directory), "x/", fetcher=LocalFetcher(deployment), bootstrap=root)
    updater._trusted_set.reference_time = datetime.fromtimestamp(now_unix_s(), UTC)
    updater.refresh()
    return updater


def first_root(deployment: Deployment) -> bytes:
    with deployment.database.reading() as session:
        return repository.document(session, "root", 1)


def versions(deployment: Deployment) -> dict[str, int]:
    with deployment.database.reading() as session:
        return {row.role: row.version for row in repository.newest_versions(session)}


@pytest.fixture
def run(home: Home, operate: Operate) -> Run:
    """Runs `coordinator ... --json` in this process: the object on stdout, or what went to stderr."""

    def command(*words: str, code: int = OK, data: Path = home.directory) -> Any:
        ran = operate(*words, "--json", data=data)
        assert ran.code == code
        return ran.json if code == OK else ran.err

    return command


# What devices are told.


def test_a_published_release_and_its_package_are_targets(deployment: Deployment, package: Path, tmp_path: Path) -> None:
    task = make_task(deployment, package)
    updater = client(deployment, tmp_path / "device", first_root(deployment))
    with deployment.database.reading() as session:
        row = newest_release(session, TASK)
    info = updater.get_targetinfo(adapter_target(TASK))
    assert info is not None
    served = ServedRelease.parse(TASK, info.custom, sha256=info.hashes["sha256"], size_bytes=info.length)
    assert (served.release_id, served.number, served.adapter_sha256) == (row.release_id, 0, row.adapter_sha256)
    assert updater.get_targetinfo(adapter_target("other")) is None
    manifest = updater.get_targetinfo(package_target(task.package_id))
    assert manifest is not None
    assert manifest.length == (package / "manifest.json").stat().st_size


def test_serving_the_same_release_again_signs_nothing(deployment: Deployment, package: Path) -> None:
    make_task(deployment, package)
    before = versions(deployment)
    with deployment.database.transaction() as session:
        serve_release(session, deployment, newest_release(session, TASK), now_unix_s())
    assert versions(deployment) == before


def test_what_is_served_comes_and_goes_with_its_transaction(deployment: Deployment, package: Path) -> None:
    make_task(deployment, package)
    before = versions(deployment)
    with deployment.database.transaction() as session:
        row = session.scalars(select(ReleaseRow)).one()
        other = ReleaseRow(**{c.key: getattr(row, c.key) for c in ReleaseRow.__table__.columns} | {"number": 7})
        serve_release(session, deployment, other, now_unix_s())
        session.rollback()
    assert versions(deployment) == before


def test_files_are_asked_for_by_role_and_version(deployment: Deployment) -> None:
    with deployment.database.reading() as session:
        newest = repository.document(session, "timestamp", 0)
        assert repository.document(session, "timestamp", versions(deployment)["timestamp"]) == newest
        with pytest.raises(MalformedError, match="asked for by version"):
            repository.document(session, "snapshot", 0)
        with pytest.raises(MalformedError, match="no release metadata called"):
            repository.document(session, "../root", 1)
        with pytest.raises(NotFoundError, match="no version 2 of the release metadata root"):
            repository.document(session, "root", 2)


def test_old_versions_are_dropped_but_every_root_stays(deployment: Deployment, run: Run) -> None:
    run("keys", "rotate", "--yes")
    for days in range(3, 123, 3):
        assert refresh_metadata(deployment, now_unix_s() + days * DAY_S)
    with deployment.database.reading() as session:
        counts = dict(
            session.execute(select(ReleaseMetadataRow.role, func.count()).group_by(ReleaseMetadataRow.role)).all()
        )
    assert counts["root"] == counts["targets"] == 2
    assert counts["timestamp"] == repository.KEPT_VERSIONS
    assert counts["snapshot"] <= repository.KEPT_VERSIONS


def test_more_than_a_device_reads_is_never_signed(deployment: Deployment, monkeypatch: pytest.MonkeyPatch) -> None:
    before = versions(deployment)
    small = dict(MAX_METADATA_BYTES) | {Role.PACKAGES: 400}
    monkeypatch.setattr(repository, "MAX_METADATA_BYTES", small)
    with (
        pytest.raises(UsageError, match=r"packages metadata would have .* devices read at most 400"),
        deployment.database.transaction() as session,
    ):
        repository.add_package(session, deployment, bytes(32), 100, now_unix_s())
    assert versions(deployment) == before


# It is signed again by itself.


def test_half_a_life_before_its_end_metadata_is_signed_again(
    deployment: Deployment, package: Path, tmp_path: Path, clock: Callable[[float], None]
) -> None:
    make_task(deployment, package)
    freshness, root = Freshness(deployment), first_root(deployment)
    freshness.keep(now_unix_s())
    seen = [versions(deployment)]
    for days in (1.9, 2.1, 16, 46, 100):
        clock(days * DAY_S)
        freshness.keep(now_unix_s())
        seen.append(versions(deployment))
        assert client(deployment, tmp_path / "device", root).get_targetinfo(adapter_target(TASK)) is not None
    changed = [{role for role in now if now[role] != before[role]} for before, now in itertools.pairwise(seen)]
    assert changed == [
        set(),
        {"timestamp"},
        {"timestamp", "snapshot"},
        {"timestamp", "snapshot", "adapters", "packages"},
        {"timestamp", "snapshot", "adapters", "packages"},
    ]


def test_a_serving_coordinator_signs_again_after_its_clock_moved(
    served: Deployment, clock: Callable[[float], None]
) -> None:
    clock(3 * DAY_S)
    deadline = time.monotonic() + 30
    # A version is the moment of its signature: one that the start made is days older.
    while versions(served)["timestamp"] < time.time() + 2 * DAY_S:
        assert time.monotonic() < deadline, "the ticker did not sign"
        time.sleep(0.1)


def test_versions_grow_also_over_a_restored_backup(deployment: Deployment, tmp_path: Path) -> None:
    """Devices have seen what the backup has not; smaller versions would be rollbacks to them."""
    copy = tmp_path / "backup.sqlite3"
    with sqlite3.connect(deployment.home.database_file) as source, sqlite3.connect(copy) as target:
        source.backup(target)
    for connection in (source, target):
        connection.close()
    later = now_unix_s() + 30 * DAY_S
    for days in (0, 3, 6):
        refresh_metadata(deployment, later + days * DAY_S, everything=True)
    seen = versions(deployment)
    home = Home(tmp_path / "restored")
    shutil.copytree(deployment.home.directory, home.directory)
    for suffix in ("-wal", "-shm"):
        home.database_file.with_name(home.database_file.name + suffix).unlink(missing_ok=True)
    shutil.copy(copy, home.database_file)
    with open_home(home) as restored:
        Freshness(restored).keep(later + 10 * DAY_S)
        now = versions(restored)
    assert all(now[role] > seen[role] for role in ONLINE)


def test_without_a_key_the_service_goes_on_and_says_so(
    deployment: Deployment, capsys: pytest.CaptureFixture[str]
) -> None:
    (key,) = ReleaseKeys(deployment.home.keys_directory).files(Role.TIMESTAMP)
    key.unlink()
    before = versions(deployment)
    Freshness(deployment).keep(now_unix_s() + 3 * DAY_S)
    said = "".join(capsys.readouterr())
    assert "the key that signs timestamp metadata is not in" in said
    assert "coordinator keys rotate timestamp" in said
    assert versions(deployment) == before


def test_a_root_that_ends_soon_is_told_once_a_day(deployment: Deployment, capsys: pytest.CaptureFixture[str]) -> None:
    freshness, now = Freshness(deployment), now_unix_s()
    told = []
    for days in (600, 675, 675.5, 676.5):
        capsys.readouterr()
        freshness.keep(int(now + days * DAY_S))
        told.append("the root of the release metadata ends soon" in "".join(capsys.readouterr()))
    assert told == [False, True, False, True]


# Keys.


def test_keys_are_files_of_their_owner_and_the_roots_have_a_place_of_their_own(home: Home) -> None:
    root_keys = sorted((home.keys_directory / "release-root").iterdir())
    online = sorted((home.keys_directory / "releases").iterdir())
    assert [path.name.partition("-")[0] for path in root_keys] == ["root"] * 3
    assert [path.name.partition("-")[0] for path in online] == sorted(ONLINE)
    for path in (*root_keys, *online):
        assert path.stat().st_mode & 0o777 == 0o600
        key = serialization.load_pem_private_key(path.read_bytes(), None)
        scalar = key.private_numbers().private_value.to_bytes(32, "big")  # type: ignore[union-attr]  # P-256
        assert scalar not in home.database_file.read_bytes()
    root_keys[0].chmod(0o640)
    with open_home(home) as deployment, deployment.database.reading() as session:
        keys = ReleaseKeys(home.keys_directory)
        with pytest.raises(UsageError, match="expected 0600"):
            keys.signers(Role.ROOT, repository.current_keys(session).root_ids)


def test_the_root_takes_two_of_three_and_no_online_key_counts_for_it(deployment: Deployment) -> None:
    with deployment.database.reading() as session:
        root, targets = latest(session, Role.ROOT, Root), latest(session, Role.TARGETS, Targets)
        assert latest(session, Role.TIMESTAMP, Timestamp).snapshot_meta.length is not None
        assert set(latest(session, Role.SNAPSHOT, Snapshot).meta) == {"targets.json", "adapters.json", "packages.json"}
    assert (root.roles["root"].threshold, len(root.roles["root"].keyids)) == (2, 3)
    assert root.roles["targets"].keyids == root.roles["root"].keyids
    assert root.consistent_snapshot
    assert targets.delegations is not None
    assert targets.delegations.roles is not None
    online = [key for role in ("snapshot", "timestamp") for key in root.roles[role].keyids]
    online += [key for role in targets.delegations.roles.values() for key in role.keyids]
    assert len({*online, *root.roles["root"].keyids}) == 7


@pytest.mark.parametrize("role", [*ONLINE, "root"])
def test_a_rotated_key_is_followed_from_the_first_root_and_the_old_one_is_gone(
    role: str, deployment: Deployment, package: Path, run: Run, tmp_path: Path
) -> None:
    make_task(deployment, package)
    root = first_root(deployment)
    client(deployment, tmp_path / "device", root)
    keys = ReleaseKeys(deployment.home.keys_directory)
    before = set(keys.files(Role(role)))
    done = run("keys", "rotate", role, "--yes")
    assert (done["version"], done["installed"]) == (2, True)
    after = set(keys.files(Role(role)))
    assert len(after) == len(before)
    assert not after & before
    for directory in ("device", "another"):
        assert client(deployment, tmp_path / directory, root).get_targetinfo(adapter_target(TASK)) is not None
    with deployment.database.reading() as session:
        assert session.scalars(select(AuditRow.subject).where(AuditRow.verb == "keys rotate")).all() == [role]


def test_a_rotation_that_is_cut_off_after_its_commit_is_whole(
    deployment: Deployment, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The former keys are removed last: until then they lie about and count no more."""
    from coordinator.releases import root_ceremony

    keys, root = ReleaseKeys(deployment.home.keys_directory), first_root(deployment)
    with monkeypatch.context() as cut:
        cut.setattr(root_ceremony, "forget_former", lambda *_: None)
        run("keys", "rotate", "timestamp", "--yes")
    assert len(keys.files(Role.TIMESTAMP)) == 2
    assert refresh_metadata(deployment, now_unix_s(), everything=True)
    client(deployment, tmp_path / "device", root)
    run("keys", "rotate", "--yes")
    assert len(keys.files(Role.TIMESTAMP)) == 1
    client(deployment, tmp_path / "device", root)


def test_a_key_that_was_rotated_away_cannot_sign_for_devices(deployment: Deployment, run: Run, tmp_path: Path) -> None:
    keys, root = ReleaseKeys(deployment.home.keys_directory), first_root(deployment)
    (former,) = keys.files(Role.TIMESTAMP)
    stolen = former.read_bytes()
    run("keys", "rotate", "timestamp", "--yes")
    with deployment.database.reading() as session:
        document = latest(session, Role.TIMESTAMP, Timestamp)
    from tuf.api.metadata import Metadata

    from coordinator.releases.release_keys import read_signer

    (tmp_path / "stolen.pem").write_bytes(stolen)
    (tmp_path / "stolen.pem").chmod(0o600)
    document.version += 100
    forged = Metadata(document)
    forged.sign(read_signer(tmp_path / "stolen.pem"))
    with deployment.database.transaction() as session:
        session.add(
            ReleaseMetadataRow(role="timestamp", version=document.version, document=forged.to_bytes(), expires_unix_s=0)
        )
    with pytest.raises(UnsignedMetadataError):
        client(deployment, tmp_path / "device", root)


@pytest.fixture
def safes(run: Run, home: Home, tmp_path: Path) -> list[Path]:
    """The root's keys, offline."""
    place = tmp_path / "safes"
    place.mkdir()
    moved = run("keys", "offline", str(place), "--yes")["files"]
    assert list((home.keys_directory / "release-root").iterdir()) == []
    return [Path(path) for path in moved]


def test_the_next_root_goes_round_and_comes_back_with_enough_signatures(
    run: Run, safes: list[Path], deployment: Deployment, tmp_path: Path
) -> None:
    root, file = first_root(deployment), tmp_path / "next.json"
    assert "0 of its keys are here" in run("keys", "rotate", "snapshot", "--yes", code=USAGE)
    written = run("keys", "rotate", "snapshot", "timestamp", "--to", str(file))
    assert (written["installed"], written["signatures_missing"]) == (False, 2)
    assert b"PRIVATE" not in file.read_bytes()
    assert "lacks 2 signatures" in run("keys", "install-root", str(file), code=USAGE)
    assert run("keys", "sign-root", "--yes", "--key", str(safes[0]), str(file))["signatures_missing"] == 1
    # The same key twice is one signature.
    assert run("keys", "sign-root", "--yes", "--key", str(safes[0]), str(file))["signatures_missing"] == 1
    assert "lacks 1 signatures" in run("keys", "install-root", str(file), code=USAGE)
    assert versions(deployment)["root"] == 1
    assert run("keys", "sign-root", "--yes", "--key", str(safes[2]), str(file))["signatures_missing"] == 0
    assert run("keys", "install-root", str(file))["version"] == 2
    with deployment.database.reading() as session:
        assert session.scalars(select(AuditRow.subject).where(AuditRow.verb == "keys install-root")).all() == ["2"]
    client(deployment, tmp_path / "device", root)
    assert "does not follow the present root 2" in run("keys", "install-root", str(file), code=USAGE)


def test_a_lost_key_of_the_root_is_replaced_by_one_made_elsewhere(
    run: Run, safes: list[Path], deployment: Deployment, tmp_path: Path
) -> None:
    root, file, fresh = first_root(deployment), tmp_path / "next.json", tmp_path / "fresh.pem"
    made = run("keys", "make", str(fresh), data=tmp_path / "nowhere")
    assert fresh.stat().st_mode & 0o777 == 0o600
    assert b"PRIVATE" not in Path(made["public"]).read_bytes()
    lost = safes[0].name.removeprefix("root-").removesuffix(".pem")
    written = run("keys", "rotate", "root", "--to", str(file), code=USAGE)
    assert "no key of the root is here to be replaced" in written
    assert "no single key of the root begins with" in run(
        "keys", "rotate", "--drop", "nothing", "--to", str(file), code=USAGE
    )
    run("keys", "rotate", "--add", made["public"], "--drop", lost, "--to", str(file))
    for key in (safes[1], safes[2]):
        run("keys", "sign-root", "--yes", "--key", str(key), str(file))
    installed = run("keys", "install-root", str(file))
    assert made["key"] in installed["root_keys"]
    assert not any(key.startswith(lost) for key in installed["root_keys"])
    client(deployment, tmp_path / "device", root)
    # From now on the new key counts, and the lost one does not.
    file.unlink()
    run("keys", "rotate", "--to", str(file))
    assert "would not count" in run("keys", "sign-root", "--yes", "--key", str(safes[0]), str(file), code=USAGE)
    for key in (fresh, safes[1]):
        run("keys", "sign-root", "--yes", "--key", str(key), str(file))
    assert run("keys", "install-root", str(file))["version"] == 3
    client(deployment, tmp_path / "device", root)


def test_a_higher_threshold_needs_more_of_the_new_keys(
    run: Run, safes: list[Path], deployment: Deployment, tmp_path: Path
) -> None:
    file = tmp_path / "next.json"
    assert "cannot want 4 signatures of 3 keys" in run(
        "keys", "rotate", "--threshold", "4", "--to", str(file), code=USAGE
    )
    run("keys", "rotate", "--threshold", "3", "--to", str(file))
    missing = [run("keys", "sign-root", "--yes", "--key", str(key), str(file))["signatures_missing"] for key in safes]
    assert missing == [2, 1, 0]
    assert run("keys", "install-root", str(file))["threshold"] == 3


def edited(file: Path, edit: Callable[[dict[str, Any]], object]) -> None:
    content = json.loads(file.read_bytes())
    edit(content)
    file.write_text(json.dumps(content), "utf-8")


@pytest.mark.parametrize(
    ("edit", "why"),
    [
        (lambda c: c["root"]["signed"].update(version=3), "does not follow"),
        (lambda c: c["previous"]["signed"].update(version=0), "is not a root to sign"),
        (lambda c: c["previous"]["signed"]["roles"]["root"].update(threshold=1), "does not follow"),
        (lambda c: c["root"]["signed"].update(consistent_snapshot=False), "says more than which keys count"),
        (lambda c: c["root"]["signed"].update(surplus="x"), "says more than which keys count"),
        (lambda c: c["targets"]["signed"].update(version=9), "targets of the file do not follow"),
        (
            lambda c: c["targets"]["signed"]["targets"].update({"x": {"length": 1, "hashes": {"sha256": "00"}}}),
            "says more than which keys count",
        ),
        (lambda c: c["targets"]["signed"]["delegations"]["roles"].pop(), "does not name the keys|says more"),
        (lambda c: c["root"]["signed"].update(expires="2000-01-01T00:00:00Z"), "lacks"),
        (lambda c: c.pop("targets"), "is not a root to sign"),
        (lambda c: c["root"]["signed"]["roles"]["snapshot"].update(keyids=[]), "does not name the keys"),
    ],
)
def test_a_root_that_was_altered_on_its_way_is_not_installed(
    edit: Callable[[dict[str, Any]], object],
    why: str,
    run: Run,
    safes: list[Path],
    deployment: Deployment,
    tmp_path: Path,
) -> None:
    import re

    file, before = tmp_path / "next.json", versions(deployment)
    run("keys", "rotate", "--to", str(file))
    for key in safes[:2]:
        run("keys", "sign-root", "--yes", "--key", str(key), str(file))
    edited(file, edit)
    said = run("keys", "install-root", str(file), code=USAGE)
    assert re.search(why, said), said
    assert versions(deployment) == before


def test_a_root_for_keys_that_are_elsewhere_is_not_installed(
    run: Run, safes: list[Path], deployment: Deployment, tmp_path: Path
) -> None:
    file = tmp_path / "next.json"
    run("keys", "rotate", "adapters", "--to", str(file))
    for key in safes[:2]:
        run("keys", "sign-root", "--yes", "--key", str(key), str(file))
    present = ReleaseKeys(deployment.home.keys_directory).files(Role.ADAPTERS)
    with deployment.database.reading() as session:
        counting = repository.current_keys(session).online[Role.ADAPTERS].keyid
    for path in present:
        if counting[:16] not in path.name:
            path.unlink()
    assert "the new key for adapters is not in" in run("keys", "install-root", str(file), code=USAGE)


def test_the_keys_are_shown_with_what_ends_when(run: Run, safes: list[Path]) -> None:
    shown = run("keys", "show")
    assert {row["role"]: row["here"] for row in shown["keys"]} == {"root": False} | dict.fromkeys(ONLINE, True)
    days = {row["role"]: row["days"] for row in shown["roles"]}
    expected = {"root": 730, "targets": 730, "adapters": 90, "packages": 90, "snapshot": 30, "timestamp": 4}
    assert days == pytest.approx(expected, abs=1)
    assert "taken offline before" in run("keys", "offline", str(safes[0].parent), "--yes", code=USAGE)


def test_the_doctor_says_what_keeps_devices_from_news(
    home: Home, run: Run, tmp_path: Path, clock: Callable[[float], None]
) -> None:
    def findings() -> dict[str, Finding]:
        return {each.name: each for each in check_up(home) if each.name.startswith("release")}

    assert [each.grade for each in findings().values()] == [Grade.OK, Grade.WARNING, Grade.OK]
    run("keys", "offline", str(tmp_path), "--yes")
    assert findings()["release root keys"].grade is Grade.OK
    (key,) = ReleaseKeys(home.keys_directory).files(Role.ADAPTERS)
    key.unlink()
    lost = findings()["release keys"]
    assert (lost.grade, lost.value) == (Grade.PROBLEM, "no key here for adapters: nothing new can be served")
    assert lost.fix.endswith("coordinator keys rotate adapters")
    clock(5 * DAY_S)
    ended = findings()["release metadata"]
    assert ended.grade is Grade.PROBLEM
    assert ended.value.startswith("timestamp ended")
    assert ended.fix.endswith("coordinator serve")


def test_an_init_that_was_cut_short_makes_new_keys(deployment: Deployment, tmp_path: Path) -> None:
    keys = ReleaseKeys(deployment.home.keys_directory)
    shutil.rmtree(keys.online_directory)
    with deployment.database.transaction() as session:
        repository.begin(session, keys, now_unix_s())
    client(deployment, tmp_path / "device", first_root(deployment))
    before = versions(deployment)
    with deployment.database.transaction() as session:
        repository.begin(session, keys, now_unix_s() + 5)
    assert versions(deployment) == before
