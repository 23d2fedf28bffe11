"""Release metadata, true and false: what a device makes of it, over real gRPC.

The repository is python-tuf's own documents in memory (tests/support/release_repository.py). After every refusal
the same device finds the honest repository unharmed.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from securesystemslib.signer import CryptoSigner
from tuf.api.metadata import MetaFile

from edge_client.agent import updates
from edge_client.agent.session import Session
from edge_client.agent.updates import TrustedTargets
from nightshift.host.clock import ENVIRONMENT_VARIABLE, now_unix_s
from nightshift.protocol.errors import (
    DeclinedError,
    FrozenError,
    MalformedError,
    MixedError,
    NightshiftError,
    RolledBackError,
    SignatureInvalidError,
    UnreachableError,
    VerificationError,
)
from nightshift.protocol.release import VerifiedRelease, verify_release
from nightshift.protocol.targets import MAX_METADATA_BYTES, Role, ServedRelease
from nightshift.v1 import device_pb2, release_pb2
from tests.support.authority import NOW_UNIX_S
from tests.support.plans import World
from tests.support.release_repository import LIFE, ReleaseRepository
from tests.support.scripted_coordinator import ScriptedCoordinator, agent_of

ROOT = Path(__file__).resolve().parents[3]
DAY_S = 86_400
ADAPTER = b"adapter" * 10
PACKAGE = b"p" * 32


@pytest.fixture(autouse=True)
def clock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Sets the device's clock to the world's time, and moves it so many seconds away from there."""
    file = tmp_path / "clock-offset"
    monkeypatch.setenv(ENVIRONMENT_VARIABLE, str(file))
    first = NOW_UNIX_S + 60 - time.time()

    def move(seconds: float) -> None:
        file.write_text(str(first + seconds), "ascii")

    move(0)
    return move


@pytest.fixture(scope="module")
def world() -> World:
    return World.make(devices=3)


@pytest.fixture
def repository() -> ReleaseRepository:
    return ReleaseRepository.make(now_unix_s())


@pytest.fixture
def session(world: World, repository: ReleaseRepository, tmp_path: Path) -> Iterator[Session]:
    coordinator = ScriptedCoordinator(metadata=repository)
    root = repository.first_root
    with agent_of(world, world.devices[0], tmp_path / "device", coordinator, release_root=root) as session:
        yield session


@pytest.fixture
def release(world: World) -> VerifiedRelease:
    """Release 1 of the task "notes", offered, signed and logged."""
    return published(world, 1)


def published(world: World, number: int) -> VerifiedRelease:
    from hashlib import sha256

    def fill(release: release_pb2.Release) -> None:
        release.adapter_sha256 = sha256(ADAPTER).digest()
        release.adapter_size_bytes = len(ADAPTER)

    made = world.publish(number=number, parent=b"p" * 32 if number else b"", edit=fill)
    return verify_release(made.offer(), view=world.view(), trust=world.trust)


def reply(repository: ReleaseRepository, *releases: VerifiedRelease, ahead_s: int = 0) -> device_pb2.CheckInResponse:
    return device_pb2.CheckInResponse(
        time_unix_s=now_unix_s() + ahead_s,
        release_metadata=repository.head(),
        releases=[device_pb2.ReleaseOffer(release=release.release_bytes) for release in releases],
    )


def follow(session: Session, repository: ReleaseRepository, *releases: VerifiedRelease) -> TrustedTargets:
    """A pass that adopts without a problem."""
    trusted = updates.refresh(session, reply(repository, *releases))
    updates.settle(session, trusted, {release.release_id: release for release in releases})
    return trusted


def serve(repository: ReleaseRepository, release: VerifiedRelease) -> None:
    repository.serve(release.document.task, release.release_id, release.document.number, ADAPTER)


def refused(
    session: Session, repository: ReleaseRepository, kind: type[NightshiftError], why: str, *offered: VerifiedRelease
) -> None:
    """The metadata is refused with this class, and with words of its own; nothing counts as followed."""
    with pytest.raises(NightshiftError, match=why) as caught:
        updates.refresh(session, reply(repository, *offered))
    assert type(caught.value) is kind
    assert caught.value.exit_code == 14
    assert "the adapter in use stays" in str(caught.value)
    assert not updates.unchanged(session, reply(repository, *offered))


def test_the_served_release_is_known_and_then_nothing_is_fetched_again(
    session: Session, repository: ReleaseRepository, release: VerifiedRelease
) -> None:
    serve(repository, release)
    assert not updates.unchanged(session, reply(repository, release))
    trusted = follow(session, repository, release)
    document = release.document
    assert trusted.served("notes") == ServedRelease(
        "notes", 1, release.release_id, document.adapter_sha256, len(ADAPTER)
    )
    assert trusted.choose("notes", {release.release_id: release}) is release
    assert trusted.served("letters") is None
    repository.asked.clear()
    assert updates.unchanged(session, reply(repository, release))
    assert repository.asked == []


def test_only_what_changed_is_fetched(
    session: Session, repository: ReleaseRepository, release: VerifiedRelease
) -> None:
    serve(repository, release)
    follow(session, repository, release)
    repository.asked.clear()
    repository.publish_timestamp()
    follow(session, repository, release)
    assert repository.asked == ["root", "timestamp"]


def test_a_release_that_is_not_followed_is_looked_at_again(
    session: Session, repository: ReleaseRepository, release: VerifiedRelease
) -> None:
    serve(repository, release)
    trusted = updates.refresh(session, reply(repository, release))
    assert not updates.unchanged(session, reply(repository, release))
    # Served since the check-in, so its document was not offered.
    assert trusted.choose("notes", {}) is None
    updates.settle(session, trusted, {b"o" * 32: published(World.make(devices=3), 0)})
    assert not updates.unchanged(session, reply(repository, release))
    updates.settle(session, trusted, {release.release_id: release})
    assert updates.unchanged(session, reply(repository, release))


def test_an_older_release_may_be_served_again(session: Session, repository: ReleaseRepository, world: World) -> None:
    older, newer = published(world, 0), published(world, 1)
    serve(repository, newer)
    follow(session, repository, newer)
    serve(repository, older)
    trusted = follow(session, repository, older, newer)
    assert trusted.choose("notes", {each.release_id: each for each in (older, newer)}) is older


# Rolled back.


def test_an_older_timestamp(session: Session, repository: ReleaseRepository, release: VerifiedRelease) -> None:
    before = repository.files["timestamp", 0]
    serve(repository, release)
    follow(session, repository, release)
    newest = repository.files["timestamp", 0]
    repository.files["timestamp", 0] = before
    refused(session, repository, RolledBackError, "the timestamp metadata of releases is older", release)
    repository.files["timestamp", 0] = newest
    follow(session, repository, release)


def test_an_older_snapshot_under_a_new_timestamp(
    session: Session, repository: ReleaseRepository, release: VerifiedRelease
) -> None:
    serve(repository, release)
    follow(session, repository, release)
    repository.snapshot.version -= 1
    repository.publish_timestamp()
    refused(session, repository, RolledBackError, "the timestamp metadata of releases is older", release)
    repository.snapshot.version += 1
    repository.publish_timestamp()
    follow(session, repository, release)


def test_older_adapters_under_a_new_snapshot(
    session: Session, repository: ReleaseRepository, release: VerifiedRelease
) -> None:
    serve(repository, release)
    follow(session, repository, release)
    repository.adapters.version -= 1
    repository.publish()
    refused(session, repository, RolledBackError, "the snapshot metadata of releases is older", release)
    repository.adapters.version += 1
    repository.publish()
    follow(session, repository, release)


# Frozen.


@pytest.mark.parametrize("role", ["timestamp", "snapshot", "adapters", "targets", "root"])
def test_metadata_that_has_ended(
    role: str, session: Session, repository: ReleaseRepository, release: VerifiedRelease
) -> None:
    serve(repository, release)
    follow(session, repository, release)
    documents = repository.documents()
    documents[role].version += 1
    documents[role].expires = datetime.fromtimestamp(now_unix_s() - 1, UTC)
    repository.sign(role)
    if role not in ("timestamp", "snapshot"):
        repository.publish()
    elif role == "snapshot":
        repository.publish_timestamp()
    else:
        repository.serve_timestamp()
    refused(session, repository, FrozenError, f"has ended .*{role}", release)
    if role == "root":
        repository.publish_root()
    repository.publish(*({role} & {"adapters", "targets"}))
    follow(session, repository, release)


def test_a_repository_that_shows_no_news_is_noticed_when_its_timestamp_ends(
    session: Session, repository: ReleaseRepository, release: VerifiedRelease, clock: Callable[[float], None]
) -> None:
    serve(repository, release)
    follow(session, repository, release)
    clock(LIFE.total_seconds() - 60)
    assert updates.unchanged(session, reply(repository, release))
    clock(LIFE.total_seconds() + 60)
    refused(session, repository, FrozenError, "newer releases may be withheld", release)


def test_a_device_that_was_away_for_longer_than_anything_lives_comes_back(
    session: Session, repository: ReleaseRepository, world: World, clock: Callable[[float], None]
) -> None:
    older, newer = published(world, 0), published(world, 1)
    serve(repository, older)
    follow(session, repository, older)
    clock(200 * DAY_S)
    repository.now_unix_s = now_unix_s()
    repository.rotate("snapshot")
    repository.publish("targets", "packages")
    serve(repository, newer)
    assert follow(session, repository, newer).choose("notes", {newer.release_id: newer}) is newer


# Mixed.


@pytest.mark.parametrize(
    ("padding", "why"),
    [
        (0, "the adapters metadata of releases (does not belong to the state|is longer than other metadata says)"),
        (100, "the adapters metadata of releases is longer than other metadata says"),
    ],
)
def test_adapters_of_another_state(
    padding: int, why: str, session: Session, repository: ReleaseRepository, world: World
) -> None:
    older, newer = published(world, 0), published(world, 1)
    serve(repository, newer)
    version = repository.adapters.version
    honest = repository.files["adapters", version]
    # Signed by the right key, but not what this snapshot names.
    repository.adapters.targets.clear()
    serve(repository, older)
    repository.adapters.version = version
    forged = repository.sign("adapters")
    repository.adapters.version += 1
    repository.files["adapters", version + 1] = forged + b" " * padding
    refused(session, repository, MixedError, why, older, newer)
    repository.files["adapters", version] = honest
    serve(repository, newer)
    follow(session, repository, newer)


def test_a_snapshot_that_the_timestamp_does_not_name(
    session: Session, repository: ReleaseRepository, release: VerifiedRelease
) -> None:
    serve(repository, release)
    version = repository.snapshot.version
    honest = repository.files["snapshot", version]
    repository.snapshot.meta["adapters.json"] = MetaFile(repository.adapters.version)
    repository.sign("snapshot")
    refused(session, repository, MixedError, "the snapshot metadata of releases does not belong", release)
    repository.files["snapshot", version] = honest
    follow(session, repository, release)


def test_a_snapshot_without_the_adapters(
    session: Session, repository: ReleaseRepository, release: VerifiedRelease
) -> None:
    serve(repository, release)
    del repository.snapshot.meta["adapters.json"]
    repository.snapshot.version += 1
    repository.sign("snapshot")
    repository.publish_timestamp()
    refused(session, repository, MixedError, "adapters", release)
    repository.publish()
    follow(session, repository, release)


@pytest.mark.parametrize("role", ["snapshot", "adapters", "targets"])
def test_a_file_that_is_withheld(
    role: str, session: Session, repository: ReleaseRepository, release: VerifiedRelease
) -> None:
    serve(repository, release)
    key = (role, repository.documents()[role].version)
    withheld = repository.files.pop(key)
    refused(session, repository, MixedError, f"does not give the {role} metadata", release)
    repository.files[key] = withheld
    follow(session, repository, release)


def test_a_target_that_contradicts_the_release_it_names(
    session: Session, repository: ReleaseRepository, release: VerifiedRelease
) -> None:
    repository.serve("notes", release.release_id, 1, ADAPTER + b"!")
    trusted = updates.refresh(session, reply(repository, release))
    with pytest.raises(MixedError, match="is not that of the release it names, 1; the adapter in use stays"):
        trusted.choose("notes", {release.release_id: release})


@pytest.mark.parametrize(
    "custom",
    [
        None,
        {},
        {"release": "00" * 32},
        {"release": "00" * 31, "number": 1},
        {"release": "zz" * 32, "number": 1},
        {"release": "00" * 32, "number": -1},
        {"release": "00" * 32, "number": True},
        {"release": "00" * 32, "number": 1, "more": 1},
        ["release", "number"],
    ],
)
def test_a_target_that_names_no_release(custom: object, session: Session, repository: ReleaseRepository) -> None:
    repository.serve("notes", bytes(32), 1, ADAPTER)
    target = repository.adapters.targets["adapters/notes"]
    target.unrecognized_fields = {} if custom is None else {"custom": custom}
    repository.publish("adapters")
    trusted = updates.refresh(session, reply(repository))
    with pytest.raises(MalformedError, match="served adapter of task 'notes'"):
        trusted.served("notes")


# Wrongly signed.


@pytest.mark.parametrize("role", ["timestamp", "snapshot", "adapters", "targets"])
def test_a_key_that_does_not_count(
    role: str, session: Session, repository: ReleaseRepository, release: VerifiedRelease
) -> None:
    honest = repository.signers[role]
    # A key of this repository, but of another role: it counts for its own only.
    repository.signers[role] = repository.signers["packages"]
    serve(repository, release)
    repository.publish(*({role} & {"targets"}))
    refused(session, repository, SignatureInvalidError, f"the {role} metadata of releases is not signed by", release)
    repository.signers[role] = honest
    repository.publish(*({role} & {"targets", "adapters"}))
    follow(session, repository, release)


def test_a_byte_of_a_signed_file_that_is_another_one(
    session: Session, repository: ReleaseRepository, release: VerifiedRelease
) -> None:
    serve(repository, release)
    content = json.loads(repository.files["timestamp", 0])
    content["signed"]["version"] += 1
    honest, repository.files["timestamp", 0] = repository.files["timestamp", 0], json.dumps(content).encode()
    refused(session, repository, SignatureInvalidError, "the timestamp metadata of releases is not signed", release)
    repository.files["timestamp", 0] = honest
    follow(session, repository, release)


# Rotated roots.


def test_a_chain_of_roots_is_followed_and_old_keys_count_no_more(
    session: Session, repository: ReleaseRepository, release: VerifiedRelease
) -> None:
    follow(session, repository)
    former = repository.signers["timestamp"]
    for role in ("timestamp", "root", "snapshot", "root"):
        repository.rotate(role)
    serve(repository, release)
    follow(session, repository, release)
    assert (session.home.release_metadata / "root_history" / "5.root.json").exists()
    repository.timestamp.version += 1
    repository.serve_timestamp(by=former)
    refused(session, repository, SignatureInvalidError, "the timestamp metadata", release)


def test_a_root_that_the_one_before_did_not_sign(
    session: Session, repository: ReleaseRepository, release: VerifiedRelease
) -> None:
    serve(repository, release)
    stranger = [CryptoSigner.generate_ecdsa()]
    for role in ("root", "timestamp"):
        repository.root.revoke_key(repository.signers[role][0].public_key.keyid, role)
        repository.root.add_key(stranger[0].public_key, role)
    repository.publish_root(by=stranger)
    refused(session, repository, SignatureInvalidError, "the root metadata of releases is not signed", release)
    del repository.files["root", 2]
    follow(session, repository, release)


def test_fewer_signatures_than_the_threshold(session: Session, repository: ReleaseRepository) -> None:
    second = CryptoSigner.generate_ecdsa()
    repository.root.add_key(second.public_key, "root")
    repository.root.roles["root"].threshold = 2
    repository.signers["root"].append(second)
    repository.publish_root()
    follow(session, repository)
    repository.publish_root(by=[second])
    repository.publish_timestamp()
    refused(session, repository, SignatureInvalidError, r"root was signed by 1/2 keys")
    repository.sign("root")
    follow(session, repository)


def test_a_root_that_is_left_out(session: Session, repository: ReleaseRepository) -> None:
    repository.publish_root()
    repository.publish_root()
    repository.files["root", 2] = repository.files["root", 3]
    refused(session, repository, RolledBackError, "roots of the release metadata do not follow one another")


def test_a_new_key_ends_what_a_thief_ran_ahead_with(
    session: Session, repository: ReleaseRepository, release: VerifiedRelease
) -> None:
    """A stolen key that signs huge versions could freeze devices for ever; with the key goes what it signed."""
    honest = (repository.snapshot.version, repository.timestamp.version)
    repository.snapshot.version, repository.timestamp.version = 2**40, 2**40
    repository.publish()
    follow(session, repository)
    repository.snapshot.version, repository.timestamp.version = honest
    repository.publish()
    refused(session, repository, RolledBackError, "the timestamp metadata")
    repository.rotate("timestamp")
    repository.rotate("snapshot")
    serve(repository, release)
    follow(session, repository, release)


# Unreadable.


@pytest.mark.parametrize("role", ["timestamp", "root"])
def test_a_file_that_is_too_large(role: str, session: Session, repository: ReleaseRepository) -> None:
    key = (role, 0 if role == "timestamp" else 2)
    repository.files[key] = b" " * (MAX_METADATA_BYTES[Role(role)] + 1)
    refused(session, repository, MalformedError, f"the {role} metadata of releases is larger than allowed")


@pytest.mark.parametrize("data", [b"", b"{}", b"null", b"[" * 10_000, b"\xff" * 100, b'{"signed": {"_type": "root"}}'])
@pytest.mark.parametrize("role", ["timestamp", "root"])
def test_garbage(role: str, data: bytes, session: Session, repository: ReleaseRepository) -> None:
    repository.files[role, 0 if role == "timestamp" else 2] = data
    refused(session, repository, MalformedError, f"the {role} metadata of releases")


def test_files_on_this_disk_that_are_damaged_are_fetched_again(
    session: Session, repository: ReleaseRepository, release: VerifiedRelease
) -> None:
    serve(repository, release)
    follow(session, repository, release)
    for path in session.home.release_metadata.rglob("*.json"):
        path.write_bytes(b"\0" * 100)
    (session.home.release_metadata / "tmpq3x9").write_bytes(b"left by a killed pass")
    follow(session, repository, release)
    assert not (session.home.release_metadata / "tmpq3x9").exists()
    assert updates.unchanged(session, reply(repository, release))


# Packages.


def test_only_packages_of_the_list_are_built_on(session: Session, repository: ReleaseRepository) -> None:
    repository.add_package(PACKAGE, 1000)
    trusted = updates.refresh(session, reply(repository))
    trusted.check_package(PACKAGE)
    with pytest.raises(VerificationError, match=r"7171717171717171 is not in the signed list of packages") as caught:
        trusted.check_package(b"q" * 32)
    assert caught.value.exit_code == 14


# The clock, and what else stands in the way.


@pytest.mark.parametrize(
    ("device_s", "coordinator_s", "why"),
    [
        (-10 * DAY_S, 0, "shows a time before this device joined"),
        (2 * DAY_S, -2 * DAY_S, "is 2880 minutes ahead of its coordinator's"),
        (DAY_S, DAY_S, "is 1440 minutes behind its coordinator's"),
    ],
)
def test_a_clock_that_is_not_in_step_adopts_nothing(
    device_s: int,
    coordinator_s: int,
    why: str,
    session: Session,
    repository: ReleaseRepository,
    release: VerifiedRelease,
    clock: Callable[[float], None],
) -> None:
    serve(repository, release)
    follow(session, repository, release)
    clock(device_s)
    told = reply(repository, release, ahead_s=coordinator_s)
    repository.asked.clear()
    assert not updates.unchanged(session, told)
    with pytest.raises(DeclinedError, match=why) as caught:
        updates.refresh(session, told)
    assert caught.value.exit_code == 4
    assert repository.asked == [], "nothing is asked for that could not be judged"


def test_a_device_without_a_root_adopts_nothing(world: World, repository: ReleaseRepository, tmp_path: Path) -> None:
    with (
        agent_of(world, world.devices[0], tmp_path, ScriptedCoordinator(metadata=repository)) as session,
        pytest.raises(VerificationError, match="no root of the release metadata"),
    ):
        updates.refresh(session, reply(repository))


def test_a_coordinator_that_fails_is_not_an_attack(
    session: Session, repository: ReleaseRepository, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(request: device_pb2.GetReleaseMetadataRequest) -> bytes:
        raise UnreachableError("not now")

    monkeypatch.setattr(ReleaseRepository, "__call__", lambda self, request: fail(request))
    with pytest.raises(UnreachableError) as caught:
        updates.refresh(session, reply(repository))
    assert caught.value.exit_code == 13


def test_a_pass_with_nothing_to_update_does_not_load_tuf() -> None:
    code = (
        "import sys, edge_client.cli.main, edge_client.agent.nightly_pass, edge_client.agent.updates\n"
        "import edge_client.agent.check_in, edge_client.agent.releases\n"
        "loaded = [name for name in ('tuf', 'securesystemslib', 'urllib3') if name in sys.modules]\n"
        "assert not loaded, loaded\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT, timeout=60)
