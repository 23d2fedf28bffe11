"""Lies about release metadata, told by a coordinator with all its online keys: files altered before they leave."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

from securesystemslib.signer import CryptoSigner
from tuf.api.metadata import Metadata, Root, Signed, Snapshot, Timestamp

from coordinator.deployment import Deployment
from coordinator.releases.release_keys import ReleaseKeys
from coordinator.releases.repository import current_keys, latest
from nightshift.host.clock import now_unix_s
from nightshift.protocol.targets import Role

MetadataLie = Callable[[Deployment, str, bytes], bytes]
"""Takes role and honest file, returns what is sent."""


def _signed(deployment: Deployment, document: Signed, by: Role) -> bytes:
    with deployment.database.reading() as session:
        key_id = current_keys(session).online[by].keyid
    (signer,) = ReleaseKeys(deployment.home.keys_directory).signers(by, [key_id])
    metadata = Metadata(document)  # type: ignore[type-var]  # one of the four kinds
    metadata.sign(signer)
    return metadata.to_bytes()


def _timestamp(data: bytes) -> Timestamp:
    return Metadata[Timestamp].from_bytes(data).signed


def rolled_back(deployment: Deployment, role: str, honest: bytes) -> bytes:
    """A timestamp with the first version there is, signed today."""
    if role != Role.TIMESTAMP:
        return honest
    document = _timestamp(honest)
    document.version = 1
    return _signed(deployment, document, Role.TIMESTAMP)


def frozen(deployment: Deployment, role: str, honest: bytes) -> bytes:
    """A new timestamp that ended a minute ago."""
    if role != Role.TIMESTAMP:
        return honest
    document = _timestamp(honest)
    document.version += 1
    document.expires = datetime.fromtimestamp(now_unix_s() - 60, UTC)
    return _signed(deployment, document, Role.TIMESTAMP)


def mixed(deployment: Deployment, role: str, honest: bytes) -> bytes:
    """A new timestamp, and under the snapshot's name the one before it with other adapters."""
    if role == Role.TIMESTAMP:
        document = _timestamp(honest)
        document.version += 1
        document.snapshot_meta.version += 1
        return _signed(deployment, document, Role.TIMESTAMP)
    if role != Role.SNAPSHOT:
        return honest
    with deployment.database.reading() as session:
        snapshot = latest(session, Role.SNAPSHOT, Snapshot)
    snapshot.version += 1
    snapshot.meta["adapters.json"].version += 1
    return _signed(deployment, snapshot, Role.SNAPSHOT)


def truncated(deployment: Deployment, role: str, honest: bytes) -> bytes:
    """Half of the timestamp."""
    return honest[: len(honest) // 2] if role == Role.TIMESTAMP else honest


def wrongly_signed(deployment: Deployment, role: str, honest: bytes) -> bytes:
    """A new timestamp by the snapshot's key, which does not count for it."""
    if role != Role.TIMESTAMP:
        return honest
    document = _timestamp(honest)
    document.version += 1
    return _signed(deployment, document, Role.SNAPSHOT)


def root_of_a_stranger(deployment: Deployment, role: str, honest: bytes) -> bytes:
    """A next root that only its own, new keys signed. (`honest` is empty: there is no next root.)"""
    if role != Role.ROOT:
        return honest
    stranger = CryptoSigner.generate_ecdsa()
    with deployment.database.reading() as session:
        root = latest(session, Role.ROOT, Root)
    for key_id in list(root.roles["root"].keyids):
        root.revoke_key(key_id, "root")
    root.roles["root"].threshold = 1
    root.add_key(stranger.public_key, "root")
    root.version += 1
    metadata = Metadata(root)
    metadata.sign(stranger)
    return metadata.to_bytes()


def withheld(deployment: Deployment, role: str, honest: bytes) -> bytes:
    """A new timestamp, whose snapshot is withheld."""
    if role == Role.TIMESTAMP:
        document = _timestamp(honest)
        document.version += 1
        document.snapshot_meta.version += 1_000_000
        return _signed(deployment, document, Role.TIMESTAMP)
    return honest


AT_METADATA: dict[str, MetadataLie] = {
    "metadata rolled back": rolled_back,
    "metadata frozen": frozen,
    "metadata mixed": mixed,
    "metadata truncated": truncated,
    "metadata wrongly signed": wrongly_signed,
    "metadata withheld": withheld,
    "root of a stranger": root_of_a_stranger,
}
