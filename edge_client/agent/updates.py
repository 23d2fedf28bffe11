"""Which releases this device serves, and from which packages, by signed metadata (TUF).

A release that is signed and logged may be trained on; what answers people is another question, and this metadata
answers it. python-tuf keeps its rules: every root is signed by enough keys of the one before, versions never go
back, what has ended does not count, and all files belong to one state. Files that were verified stay in
`release-metadata/` of the home, as what the next ones are compared with; the first root came with the join.

Times are judged by this device's clock, so it has to be in step.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final

from edge_client.agent.metadata_refusals import STAYS, refusals
from edge_client.agent.session import Session
from nightshift.host.files import make_private_directory, resource_error, sync_directory
from nightshift.protocol.errors import (
    DeclinedError,
    MixedError,
    VerificationError,
)
from nightshift.protocol.targets import MAX_METADATA_BYTES, Role, ServedRelease, adapter_target, package_target

if TYPE_CHECKING:
    from tuf.ngclient import Updater

    from edge_client.agent.metadata_fetcher import MetadataFetcher
    from nightshift.protocol.release import VerifiedRelease
    from nightshift.v1 import device_pb2

CLOCK_TOLERANCE_S: Final = 3600
"""How far this device's clock may be from its coordinator's; metadata lives for days."""

MOST_ROOT_ROTATIONS: Final = 256
_FOLLOWED = "release_metadata_sha256"
_ENDS = "release_metadata_ends"


@dataclass(frozen=True, slots=True)
class TrustedTargets:
    """Metadata that was verified as a whole, and what it says.

    Attributes:
        updater: python-tuf's client, refreshed.
        fetcher: of the updater.
    """

    updater: Updater
    fetcher: MetadataFetcher

    def served(self, task: str) -> ServedRelease | None:
        """The release that devices serve for a task; None if they serve none.

        Raises:
            VerificationError: the metadata of adapters is refused, each reason with its own class.
            MalformedError: unreadable, or larger than allowed.
        """
        with refusals(self.fetcher):
            info = self.updater.get_targetinfo(adapter_target(task))
        if info is None:
            return None
        return ServedRelease.parse(task, info.custom, sha256=info.hashes.get("sha256", ""), size_bytes=info.length)

    def choose(self, task: str, releases: Mapping[bytes, VerifiedRelease]) -> VerifiedRelease | None:
        """The document of the release that devices serve for a task; None if it was not offered.

        Raises:
            MixedError: document and target contradict each other.
            VerificationError, MalformedError: as `served`.
        """
        served = self.served(task)
        release = None if served is None else releases.get(served.release_id)
        if served is None or release is None:
            return None
        document = release.document
        if served != ServedRelease(
            document.task,
            document.number,
            release.release_id,
            document.adapter_sha256,
            document.adapter_size_bytes,
        ):
            raise MixedError(
                f"the served adapter of task {task!r} is not that of the release it names, {document.number}; {STAYS}"
            )
        return release

    def check_package(self, package_id: bytes) -> None:
        """Check that a model package is one that this coordinator's devices may build on.

        Raises:
            VerificationError: it is not, or the metadata of packages is refused.
            MalformedError: unreadable, or larger than allowed.
        """
        with refusals(self.fetcher):
            info = self.updater.get_targetinfo(package_target(package_id))
        if info is None or info.hashes != {"sha256": package_id.hex()}:
            raise VerificationError(
                f"model package {package_id.hex()[:16]} is not in the signed list of packages; nothing was fetched. "
                "Ask the operator of the coordinator whether it should be"
            )


def unchanged(session: Session, response: device_pb2.CheckInResponse) -> bool:
    """Whether the newest metadata is the one that was verified and followed last, and still counts.

    A pass with nothing to do asks only this: it needs neither `tuf` nor a file.
    """
    database = session.store.database
    return (
        database.blob(_FOLLOWED) == response.release_metadata.sha256
        and session.now_unix_s < (database.number(_ENDS) or 0)
        and _clock_is_in_step(session, response.time_unix_s)
    )


def refresh(session: Session, response: device_pb2.CheckInResponse) -> TrustedTargets:
    """Fetch and verify the metadata of releases, and keep it as what the next is compared with.

    Raises:
        DeclinedError: this device's clock is not in step, so it cannot tell what has ended.
        RolledBackError, FrozenError, MixedError, SignatureInvalidError: the metadata is not what it must be.
        MalformedError: unreadable, or larger than allowed.
        VerificationError: this device has no root to begin with, or the coordinator shows no metadata.
        UnreachableError: the coordinator does not answer.
        ResourceError: the disk is full, read-only or failing.
    """
    _require_clock(session, response.time_unix_s)
    if not session.membership.release_root:
        raise VerificationError(
            "this device has no root of the release metadata; get a token from the operator, then run: "
            "edge-client leave, edge-client join TOKEN"
        )
    trusted = _opened(session)
    with refusals(trusted.fetcher):
        trusted.updater.refresh()
    for task in _offered_tasks(response):
        trusted.served(task)
    _make_durable(session.home.release_metadata)
    return trusted


def require_listed(session: Session, response: device_pb2.CheckInResponse, package_id: bytes) -> None:
    """Check a model package before anything of it is fetched; one that is here was checked when it came.

    Raises:
        VerificationError, MalformedError: it is not in the signed list, or the list is refused.
        DeclinedError, UnreachableError, ResourceError: as `refresh`.
    """
    if not session.packages.folder(package_id).is_dir():
        refresh(session, response).check_package(package_id)


def settle(session: Session, trusted: TrustedTargets, releases: Mapping[bytes, VerifiedRelease]) -> None:
    """Note that all that the metadata says was followed, so that `unchanged` may say so.

    Args:
        session: of the pass.
        trusted: from `refresh`.
        releases: the offered ones, by id. A served one that is not among them (served since the check-in) is for the
            next pass, which then looks again.
    """
    import hashlib

    served = [trusted.served(task) for task in {release.document.task for release in releases.values()}]
    if any(each is not None and each.release_id not in releases for each in served):
        return
    timestamp = (session.home.release_metadata / "timestamp.json").read_bytes()
    ends = int(trusted.updater._trusted_set.timestamp.expires.timestamp())
    followed: dict[str, int | bytes] = {_FOLLOWED: hashlib.sha256(timestamp).digest(), _ENDS: ends}
    session.store.database.put(**followed)


def _opened(session: Session) -> TrustedTargets:
    from tuf.ngclient import Updater, UpdaterConfig

    from edge_client.agent.metadata_fetcher import BASE_URL, MetadataFetcher

    directory = session.home.release_metadata
    make_private_directory(directory)
    for stray in directory.glob("tmp*"):
        stray.unlink(missing_ok=True)  # python-tuf's temporary file, left by a pass that was killed
    fetcher = MetadataFetcher(session.connection)
    config = UpdaterConfig(
        max_root_rotations=MOST_ROOT_ROTATIONS,
        max_delegations=2,
        root_max_length=MAX_METADATA_BYTES[Role.ROOT],
        timestamp_max_length=MAX_METADATA_BYTES[Role.TIMESTAMP],
        snapshot_max_length=MAX_METADATA_BYTES[Role.SNAPSHOT],
        targets_max_length=MAX_METADATA_BYTES[Role.ADAPTERS],
    )
    with refusals(fetcher):
        updater = Updater(
            str(directory), BASE_URL, fetcher=fetcher, config=config, bootstrap=session.membership.release_root
        )
    # python-tuf reads the machine's clock itself and has no argument for it. Every other deadline here is judged
    # by `nightshift.host.clock`, which tests move; assigning to a name that is gone would move nothing, unnoticed.
    judged = updater._trusted_set
    assert isinstance(judged.reference_time, datetime)
    judged.reference_time = datetime.fromtimestamp(session.now_unix_s, UTC)
    return TrustedTargets(updater, fetcher)


def _offered_tasks(response: device_pb2.CheckInResponse) -> list[str]:
    from nightshift.protocol.release import ReleaseDocument

    return sorted({ReleaseDocument.parse(offer.release).task for offer in response.releases})


def _make_durable(directory: Path) -> None:
    """python-tuf replaces files as a whole but does not wait for the disk.

    Raises:
        ResourceError: the disk is full, read-only or failing.
    """
    try:
        for path in directory.rglob("*.json"):
            descriptor = os.open(path, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
        for folder in (directory, *(path for path in directory.iterdir() if path.is_dir())):
            sync_directory(folder)
    except OSError as error:
        raise resource_error(error, directory) or error from error


def _clock_is_in_step(session: Session, coordinator_unix_s: int) -> bool:
    now = session.now_unix_s
    return now >= session.membership.joined_unix_s and abs(now - coordinator_unix_s) <= CLOCK_TOLERANCE_S


def _require_clock(session: Session, coordinator_unix_s: int) -> None:
    if _clock_is_in_step(session, coordinator_unix_s):
        return
    now = session.now_unix_s
    what = (
        "shows a time before this device joined"
        if now < session.membership.joined_unix_s
        else f"is {abs(now - coordinator_unix_s) // 60} minutes {'ahead of' if now > coordinator_unix_s else 'behind'} "
        "its coordinator's"
    )
    raise DeclinedError(
        f"no release is adopted: this device's clock {what}, so it cannot tell which releases have ended; "
        f"{STAYS}. Set the clock, or wait until it is in step, and run again"
    )
