"""A repository of release metadata in memory, which says what a test tells it (after python-tuf's own simulator).

It is made with python-tuf's documents alone: nothing of the coordinator's repository is in it, so that a device
is tested against TUF and not against this project's idea of it. A test changes the documents and publishes them,
or replaces the bytes of one file.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from hashlib import sha256

from securesystemslib.signer import CryptoSigner
from tuf.api.metadata import (
    DelegatedRole,
    Delegations,
    Metadata,
    MetaFile,
    Root,
    Signed,
    Snapshot,
    TargetFile,
    Targets,
    Timestamp,
)

from nightshift.protocol.errors import NotFoundError
from nightshift.v1 import device_pb2

TOP_LEVEL = ("root", "targets", "snapshot", "timestamp")
DELEGATED = {"adapters": "adapters/*", "packages": "packages/*"}
LIFE = timedelta(days=10)


@dataclass
class ReleaseRepository:
    """All files by role and version, and the documents of which the next ones are made.

    Attributes:
        now_unix_s: documents end ten days after it, unless a test says otherwise.
        signers: who signs for each role; a test may replace them without telling the root.
        root, targets, adapters, packages, snapshot, timestamp: the documents.
        files: (role, version) -> bytes, as served; version 0 is the newest timestamp.
        asked: roles that were asked for, in order.
    """

    now_unix_s: int
    signers: dict[str, list[CryptoSigner]] = field(default_factory=dict)
    root: Root = field(default_factory=Root)
    targets: Targets = field(default_factory=Targets)
    adapters: Targets = field(default_factory=Targets)
    packages: Targets = field(default_factory=Targets)
    snapshot: Snapshot = field(default_factory=Snapshot)
    timestamp: Timestamp = field(default_factory=Timestamp)
    files: dict[tuple[str, int], bytes] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)

    @classmethod
    def make(cls, now_unix_s: int) -> ReleaseRepository:
        """One key for each role, and the first version of everything."""
        made = cls(now_unix_s)
        made.signers = {role: [CryptoSigner.generate_ecdsa()] for role in (*TOP_LEVEL, *DELEGATED)}
        for document in made.documents().values():
            document.expires = made.end
        for role in TOP_LEVEL:
            made.root.add_key(made.signers[role][0].public_key, role)
        keys = {role: made.signers[role][0].public_key for role in DELEGATED}
        made.targets.delegations = Delegations(
            {key.keyid: key for key in keys.values()},
            {
                role: DelegatedRole(role, [keys[role].keyid], 1, terminating=True, paths=[path])
                for role, path in DELEGATED.items()
            },
        )
        for role in ("root", "targets", *DELEGATED):
            made.sign(role)
        made.publish()
        return made

    @property
    def end(self) -> datetime:
        """When what is signed now ends."""
        return datetime.fromtimestamp(self.now_unix_s, UTC) + LIFE

    @property
    def first_root(self) -> bytes:
        """What a joining device gets."""
        return self.files["root", 1]

    def documents(self) -> Mapping[str, Signed]:
        """By role."""
        return {
            "root": self.root,
            "targets": self.targets,
            "adapters": self.adapters,
            "packages": self.packages,
            "snapshot": self.snapshot,
            "timestamp": self.timestamp,
        }

    def sign(self, role: str, *, by: list[CryptoSigner] | None = None) -> bytes:
        """Sign a document as it is and serve it under its version."""
        document = self.documents()[role]
        metadata = Metadata(document)  # type: ignore[type-var]  # one of the four kinds
        for signer in by or self.signers[role]:
            metadata.sign(signer, append=True)
        data = metadata.to_bytes()
        self.files[role, document.version] = data
        return data

    def publish(self, *changed: str) -> None:
        """The next version of changed targets, then of the snapshot and the timestamp."""
        for role in changed:
            document = self.documents()[role]
            document.version += 1
            document.expires = self.end
            self.sign(role)
        self.snapshot.meta = {f"{role}.json": self.described(role) for role in ("targets", *DELEGATED)}
        self.snapshot.version += 1
        self.snapshot.expires = self.end
        self.sign("snapshot")
        self.publish_timestamp()

    def publish_timestamp(self) -> None:
        """The next timestamp, of the snapshot as it is."""
        self.timestamp.snapshot_meta = self.described("snapshot")
        self.timestamp.version += 1
        self.timestamp.expires = self.end
        self.serve_timestamp()

    def serve_timestamp(self, *, by: list[CryptoSigner] | None = None) -> None:
        """Sign the timestamp as it is and serve it as the newest."""
        self.files["timestamp", 0] = self.sign("timestamp", by=by)

    def publish_root(self, *, by: list[CryptoSigner] | None = None) -> None:
        """The next root, signed by its own keys, or by whom a test says."""
        self.root.version += 1
        self.root.expires = self.end
        self.sign("root", by=by)

    def rotate(self, role: str) -> None:
        """A new key for a top-level role, in the next root; what the old key signed counts no more."""
        old, new = self.signers[role], [CryptoSigner.generate_ecdsa()]
        for signer in old:
            self.root.revoke_key(signer.public_key.keyid, role)
        self.root.add_key(new[0].public_key, role)
        self.signers[role] = new
        self.publish_root(by=[*old, *new] if role == "root" else None)

    def serve(self, task: str, release_id: bytes, number: int, adapter: bytes) -> None:
        """Let devices serve a release, and publish that."""
        custom = {"release": release_id.hex(), "number": number}
        path = f"adapters/{task}"
        self.adapters.targets[path] = TargetFile(
            len(adapter), {"sha256": sha256(adapter).hexdigest()}, path, {"custom": custom}
        )
        self.publish("adapters")

    def add_package(self, package_id: bytes, size_bytes: int) -> None:
        """Let devices build on a package, and publish that."""
        path = f"packages/{package_id.hex()}"
        self.packages.targets[path] = TargetFile(size_bytes, {"sha256": package_id.hex()}, path)
        self.publish("packages")

    def described(self, role: str) -> MetaFile:
        """A file as the snapshot, or the timestamp, names it."""
        version = self.documents()[role].version
        return MetaFile.from_data(version, self.files[role, version], ["sha256"])

    def head(self) -> device_pb2.ReleaseMetadataHead:
        """What a check-in announces."""
        return device_pb2.ReleaseMetadataHead(
            version=self.timestamp.version, sha256=sha256(self.files["timestamp", 0]).digest()
        )

    def __call__(self, request: device_pb2.GetReleaseMetadataRequest) -> bytes:
        """Answer a device."""
        self.asked.append(request.role)
        data = self.files.get((request.role, request.version))
        if data is None:
            raise NotFoundError(f"no {request.role} {request.version}")
        return data
