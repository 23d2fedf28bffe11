"""The repository of release metadata (TUF): what devices serve, signed, in the rows of this coordinator.

`serve_release` and `add_package` change a target and sign what follows from it (the role's metadata, the
snapshot, the timestamp) in the caller's transaction: a release is served with everything that proves it, or
not at all. `refresh_metadata` signs again what would end.

Versions of online roles grow with the clock, so that they also grow over a restored backup: devices would take
smaller numbers for a rollback. Those of `root` and `targets` count up one by one, as TUF wants it of the root.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from securesystemslib.signer import CryptoSigner
from sqlalchemy import delete, select
from sqlalchemy.orm import Session
from tuf.api.metadata import Metadata, MetaFile, Root, Signed, Snapshot, T, TargetFile, Targets, Timestamp

from coordinator.releases.documents import LIFETIME_S, KeySet, expiry, key_set, root_document, targets_document, unix_s
from coordinator.releases.release_keys import ONLINE_ROLES, ReleaseKeys
from coordinator.storage.rows import Artefact, ReleaseMetadataRow, ReleaseRow
from nightshift.protocol.errors import MalformedError, NotFoundError, UsageError
from nightshift.protocol.targets import (
    DELEGATED_PATHS,
    MAX_METADATA_BYTES,
    Role,
    ServedRelease,
    adapter_target,
    package_target,
)
from nightshift.v1 import device_pb2

if TYPE_CHECKING:
    from coordinator.deployment import Deployment

ROOT_KEYS, ROOT_THRESHOLD = 3, 2
"""One key may be lost, and one thief is not enough; `coordinator keys rotate` changes both."""

KEPT_VERSIONS = 16
"""Of each online role: a device that began with the snapshot before this one can still end."""


def begin(session: Session, keys: ReleaseKeys, now_unix_s: int) -> None:
    """Make all keys and the first metadata; does nothing where they are. For `coordinator init` only."""
    if _find_newest(session, Role.TIMESTAMP) is not None:
        online = current_keys(session).online
        if all(keys.signers(role, [key.keyid]) for role, key in online.items()):
            return
        session.execute(delete(ReleaseMetadataRow))  # of an `init` that was cut short: its keys are lost
    chosen = KeySet(
        tuple(keys.create(Role.ROOT) for _ in range(ROOT_KEYS)),
        ROOT_THRESHOLD,
        {role: keys.create(role) for role in ONLINE_ROLES},
    )
    signers = keys.signers(Role.ROOT, chosen.root_ids)
    root = _signed(root_document(chosen, version=1, expires=expiry(Role.ROOT, now_unix_s)), signers)
    targets = _signed(targets_document(chosen, version=1, expires=expiry(Role.TARGETS, now_unix_s)), signers)
    install(session, keys, root.to_bytes(), targets.to_bytes(), now_unix_s)


def install(session: Session, keys: ReleaseKeys, root: bytes, targets: bytes, now_unix_s: int) -> None:
    """Keep a signed root with its targets, and sign everything else with the keys that they name.

    Whoever calls has verified both (`coordinator.releases.root_ceremony`).
    """
    for role, document in ((Role.ROOT, root), (Role.TARGETS, targets)):
        _keep(session, role, Metadata[Any].from_bytes(document).signed, document)
    delegated = {role: _latest_or_empty(session, role) for role in DELEGATED_PATHS}
    _publish(session, keys, delegated, now_unix_s)


def serve_release(session: Session, deployment: Deployment, row: ReleaseRow, now_unix_s: int) -> None:
    """Let devices serve a release of its task, newer or older than the one they serve now.

    Raises:
        UsageError: the keys of an online role are not here.
    """
    adapter = session.get_one(Artefact, row.adapter_sha256)
    served = ServedRelease(row.task, row.number, row.release_id, row.adapter_sha256, adapter.size_bytes)
    path = adapter_target(row.task)
    target = TargetFile(adapter.size_bytes, {"sha256": row.adapter_sha256.hex()}, path, {"custom": served.custom()})
    _put(session, deployment, Role.ADAPTERS, target, now_unix_s)


def add_package(
    session: Session, deployment: Deployment, package_id: bytes, manifest_size_bytes: int, now_unix_s: int
) -> None:
    """Let devices fetch a model package: the target is its manifest, which names every file by hash.

    Raises:
        UsageError: the keys of an online role are not here.
    """
    target = TargetFile(manifest_size_bytes, {"sha256": package_id.hex()}, package_target(package_id))
    _put(session, deployment, Role.PACKAGES, target, now_unix_s)


def refresh_metadata(deployment: Deployment, now_unix_s: int, *, everything: bool = False) -> bool:
    """Sign again what has lived half of its life, or all that the online keys sign; returns whether anything was.

    Raises:
        UsageError: the keys of an online role are not here.
    """
    with deployment.database.reading() as session:
        if not (everything or _ages(session, Role.TIMESTAMP, now_unix_s)):
            return False
    with deployment.database.transaction() as session:
        if not (everything or _ages(session, Role.TIMESTAMP, now_unix_s)):
            return False  # another process was faster
        due = [role for role in DELEGATED_PATHS if everything or _ages(session, role, now_unix_s)]
        old = {role: latest(session, role, Targets) for role in due}
        _publish(session, ReleaseKeys(deployment.home.keys_directory), old, now_unix_s)
    return True


def document(session: Session, role: str, version: int) -> bytes:
    """A metadata file as a device asks for it.

    Raises:
        MalformedError: no such role, or no version where one is needed.
        NotFoundError: no such version, or not any more.
    """
    if role not in set(Role):
        raise MalformedError(f"there is no release metadata called {role[:40]!r}")
    if version == 0 and role != Role.TIMESTAMP:
        raise MalformedError(f"release metadata of the role {role} is asked for by version")
    row = _newest_row(session, Role(role)) if version == 0 else session.get(ReleaseMetadataRow, (role, version))
    if row is None:
        raise NotFoundError(f"there is no version {version} of the release metadata {role}")
    return row.document


def announcement(session: Session) -> device_pb2.ReleaseMetadataHead:
    """The newest timestamp, for a check-in."""
    row = _newest_row(session, Role.TIMESTAMP)
    return device_pb2.ReleaseMetadataHead(version=row.version, sha256=hashlib.sha256(row.document).digest())


def current_root(session: Session) -> bytes:
    """The newest root, as a joining device gets it."""
    return _newest_row(session, Role.ROOT).document


def newest_versions(session: Session) -> list[ReleaseMetadataRow]:
    """The newest metadata of every role, for people."""
    return [_newest_row(session, role) for role in Role]


def current_keys(session: Session) -> KeySet:
    """The keys that count now."""
    return key_set(latest(session, Role.ROOT, Root), latest(session, Role.TARGETS, Targets))


def latest(session: Session, role: Role, _kind: type[T]) -> T:
    """The newest document of a role."""
    return Metadata[T].from_bytes(_newest_row(session, role).document).signed


def _put(session: Session, deployment: Deployment, role: Role, target: TargetFile, now_unix_s: int) -> None:
    document = latest(session, role, Targets)
    if document.targets.get(target.path) == target:
        return
    document.targets[target.path] = target
    _publish(session, ReleaseKeys(deployment.home.keys_directory), {role: document}, now_unix_s)


def _publish(session: Session, keys: ReleaseKeys, changed: Mapping[Role, Targets], now_unix_s: int) -> None:
    """Sign changed targets, the snapshot where it must change, and a timestamp; keep them, drop the oldest."""
    chosen = current_keys(session)

    def sign(role: Role, document: T) -> None:
        last = _find_newest(session, role)
        document.version = max(now_unix_s, 0 if last is None else last.version + 1)
        document.expires = expiry(role, now_unix_s)
        signers = keys.signers(role, [chosen.online[role].keyid])
        if not signers:
            raise UsageError(
                f"the key that signs {role} metadata is not in {keys.online_directory}; restore it from a backup, or "
                f"make a new one: coordinator keys rotate {role}"
            )
        _keep(session, role, document, _signed(document, signers).to_bytes())
        _forget_oldest(session, role)

    for role, targets in changed.items():
        sign(role, targets)
    if changed or _ages(session, Role.SNAPSHOT, now_unix_s):
        described = {f"{role}.json": _described(session, role) for role in (Role.TARGETS, *DELEGATED_PATHS)}
        sign(Role.SNAPSHOT, Snapshot(meta=described))
    sign(Role.TIMESTAMP, Timestamp(snapshot_meta=_described(session, Role.SNAPSHOT)))


def _forget_oldest(session: Session, role: Role) -> None:
    rows = select(ReleaseMetadataRow.version).where(ReleaseMetadataRow.role == role)
    versions = list(session.scalars(rows.order_by(ReleaseMetadataRow.version.desc()).offset(KEPT_VERSIONS)))
    if versions:
        session.execute(
            delete(ReleaseMetadataRow).where(ReleaseMetadataRow.role == role, ReleaseMetadataRow.version.in_(versions))
        )


def _signed(document: T, signers: Sequence[CryptoSigner]) -> Metadata[T]:
    metadata = Metadata(document)
    for signer in signers:
        metadata.sign(signer, append=True)
    return metadata


def _keep(session: Session, role: Role, document: Signed, data: bytes) -> None:
    if len(data) > MAX_METADATA_BYTES[role]:
        raise UsageError(
            f"the {role} metadata would have {len(data)} bytes, devices read at most {MAX_METADATA_BYTES[role]}"
        )
    row = ReleaseMetadataRow(
        role=role, version=document.version, document=data, expires_unix_s=unix_s(document.expires)
    )
    session.add(row)
    session.flush()


def _ages(session: Session, role: Role, now_unix_s: int) -> bool:
    """Whether half of the newest document's life has passed."""
    return _newest_row(session, role).expires_unix_s - now_unix_s < LIFETIME_S[role] // 2


def _described(session: Session, role: Role) -> MetaFile:
    row = _newest_row(session, role)
    return MetaFile.from_data(row.version, row.document, ["sha256"])


def _latest_or_empty(session: Session, role: Role) -> Targets:
    return Targets() if _find_newest(session, role) is None else latest(session, role, Targets)


def _newest_row(session: Session, role: Role) -> ReleaseMetadataRow:
    row = _find_newest(session, role)
    if row is None:
        raise UsageError(f"the database has no release metadata of the role {role}; restore it from a backup")
    return row


def _find_newest(session: Session, role: Role) -> ReleaseMetadataRow | None:
    rows = select(ReleaseMetadataRow).where(ReleaseMetadataRow.role == role)
    return session.scalar(rows.order_by(ReleaseMetadataRow.version.desc()).limit(1))
