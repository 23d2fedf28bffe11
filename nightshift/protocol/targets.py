"""What the release metadata names: the adapters that devices serve, and the packages they build on.

The metadata is TUF's (The Update Framework, specification 1.0): signed JSON files by role. Two roles are
signed by keys that lie in safes, four by keys of the machine that serves::

    root       whose keys count; each root is signed by enough keys of the one before and of its own
    targets    delegates by path: adapters/* to `adapters`, packages/* to `packages`; the keys of root
    adapters   adapters/TASK: the release that devices serve for a task
    packages   packages/ID: the manifest of a model package, and through its hashes every file
    snapshot   the version of each of the three
    timestamp  the newest snapshot; ends soon, so that withheld news are noticed

This module holds what both sides must agree on; the files themselves are made and judged by python-tuf.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from nightshift.protocol.domains import Domain, frame
from nightshift.protocol.errors import MalformedError
from nightshift.protocol.identity import verify
from nightshift.protocol.plan import HASH_BYTES, MAX_NUMBER
from nightshift.protocol.release import MAX_ADAPTER_BYTES
from nightshift.protocol.trust import Trust


class Role(StrEnum):
    """Whose metadata."""

    ROOT = "root"
    TARGETS = "targets"
    ADAPTERS = "adapters"
    PACKAGES = "packages"
    SNAPSHOT = "snapshot"
    TIMESTAMP = "timestamp"


DELEGATED_PATHS: Final[Mapping[Role, str]] = {Role.ADAPTERS: "adapters/*", Role.PACKAGES: "packages/*"}

MAX_METADATA_BYTES: Final[Mapping[Role, int]] = {
    Role.ROOT: 64 * 1024,
    Role.TARGETS: 64 * 1024,
    Role.ADAPTERS: 1024 * 1024,
    Role.PACKAGES: 1024 * 1024,
    Role.SNAPSHOT: 16 * 1024,
    Role.TIMESTAMP: 16 * 1024,
}
"""Largest file of each role that a device reads, and so the largest that a coordinator signs."""


@dataclass(frozen=True, slots=True)
class ServedRelease:
    """The release that devices serve for a task, as the target `adapters/TASK` states it.

    Attributes:
        task: its name.
        number: of the release.
        release_id: 32 bytes.
        adapter_sha256: 32 bytes.
        adapter_size_bytes: of the safetensors file.
    """

    task: str
    number: int
    release_id: bytes
    adapter_sha256: bytes
    adapter_size_bytes: int

    def custom(self) -> dict[str, object]:
        """What the target says beside length and hash."""
        return {"release": self.release_id.hex(), "number": self.number}

    @classmethod
    def parse(cls, task: str, custom: object, *, sha256: str, size_bytes: int) -> ServedRelease:
        """Read a target.

        Args:
            task: whose target it is.
            custom: what the target says beside length and hash.
            sha256: in hex; empty where the target has no such hash.
            size_bytes: the target's length.

        Raises:
            MalformedError: it does not name a release.
        """
        if not isinstance(custom, dict) or custom.keys() != {"release", "number"}:
            raise MalformedError(f"the served adapter of task {task!r} does not say which release it is")
        number = custom["number"]
        release_id, digest = _hash(custom["release"]), _hash(sha256)
        if type(number) is not int or not 0 <= number <= MAX_NUMBER or release_id is None or digest is None:
            raise MalformedError(f"the served adapter of task {task!r} has a number or a hash outside the range")
        if not 0 < size_bytes <= MAX_ADAPTER_BYTES:
            raise MalformedError(f"the served adapter of task {task!r} has {size_bytes} bytes, outside the range")
        return cls(task, number, release_id, digest, size_bytes)


def adapter_target(task: str) -> str:
    """Path of the target that says which release a task serves."""
    return f"adapters/{task}"


def package_target(package_id: bytes) -> str:
    """Path of the target of a package's manifest."""
    return f"packages/{package_id.hex()}"


def sign_release_root(root: bytes, sign: Callable[[bytes], bytes]) -> bytes:
    """The coordinator's signature over the root that a joining device gets."""
    return sign(_root_message(root))


def verify_release_root(root: bytes, signature: bytes, *, trust: Trust) -> None:
    """Check the root that came with a join.

    Raises:
        MalformedError: absent or too large.
        SignatureInvalidError: not made by the signing key.
    """
    if not 0 < len(root) <= MAX_METADATA_BYTES[Role.ROOT]:
        raise MalformedError(
            f"the root of the release metadata has {len(root)} bytes, expected 1 to {MAX_METADATA_BYTES[Role.ROOT]}"
        )
    verify(trust.signing_key, signature, _root_message(root), what="the signature of the release metadata's root")


def _root_message(root: bytes) -> bytes:
    return frame(Domain.RELEASE_ROOT, root)


def _hash(text: object) -> bytes | None:
    if not isinstance(text, str) or len(text) != 2 * HASH_BYTES or set(text) - set("0123456789abcdef"):
        return None
    return bytes.fromhex(text)
