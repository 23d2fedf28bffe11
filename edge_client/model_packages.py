"""Model packages on this device: pulled file by file, opened only when every hash is right."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from edge_client.artefacts import Artefacts, Progress, no_progress
from edge_client.configuration import CacheSettings
from nightshift.host.files import make_private_directory, require_free_space, sync_directory
from nightshift.protocol.errors import HashMismatchError, NotFoundError, ResourceError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

    from edge_client.connection import Connection
    from nightshift.packages.package import ModelPackage
    from nightshift.protocol.manifest import Manifest

_MANIFEST = "manifest.json"


@dataclass(frozen=True, slots=True)
class PackageCache:
    """The packages under one cache directory.

    Attributes:
        directory: of the cache.
        quota_bytes: most bytes of all files together; 0 means no limit.
    """

    directory: Path
    quota_bytes: int = 0

    @classmethod
    def of(cls, directory: Path, settings: CacheSettings) -> PackageCache:
        """The cache as the owner set it up."""
        return cls(directory, settings.quota_mb * 2**20)

    @property
    def artefacts(self) -> Artefacts:
        """The files by hash."""
        return Artefacts(self.directory)

    def folder(self, package_id: bytes) -> Path:
        """Where a complete package lies."""
        return self.directory / "packages" / package_id.hex()

    def ids(self) -> list[bytes]:
        """Packages that are here, complete."""
        root = self.directory / "packages"
        names = sorted(path.name for path in root.iterdir()) if root.is_dir() else []
        return [bytes.fromhex(name) for name in names if len(name) == 64 and set(name) <= set("0123456789abcdef")]

    def resolve(self, prefix: str) -> bytes:
        """The one package whose id begins with these hex digits.

        Raises:
            NotFoundError: none is here.
            UsageError: several are.
        """
        found = [package_id for package_id in self.ids() if package_id.hex().startswith(prefix.lower())]
        if not found:
            raise NotFoundError(f"no model package {prefix!r} on this device; see: edge-client model list")
        if len(found) > 1:
            raise UsageError(f"{prefix!r} could be {len(found)} packages; give more digits of the id")
        return found[0]

    def open(self, package_id: bytes, *, verify: bool) -> ModelPackage:
        """Open a package that is here.

        Raises:
            NotFoundError: it is not.
            HashMismatchError: a file is damaged; the message names it.
        """
        from nightshift.packages.package import ModelPackage
        from nightshift.protocol.manifest import PackageId

        return ModelPackage.open(self.folder(package_id), verify=verify, expected=PackageId(package_id))

    def manifest(self, connection: Connection, package_id: bytes) -> Manifest:
        """The manifest of a package, fetched if it is not here.

        Raises:
            HashMismatchError: the coordinator sent another one.
            MalformedError: it is not a manifest.
            UnreachableError: the coordinator does not answer.
        """
        from nightshift.protocol.manifest import MANIFEST_BYTES_MAX, Manifest

        path = self.artefacts.fetch(connection, package_id, size_bytes=None, size_limit_bytes=MANIFEST_BYTES_MAX)
        return Manifest.from_bytes(path.read_bytes())

    def pull(
        self,
        connection: Connection,
        package_id: bytes,
        *,
        accept: Callable[[Manifest], None],
        progress: Progress = no_progress,
    ) -> ModelPackage:
        """Return a package with every hash checked, fetching what is missing.

        Args:
            connection: to the coordinator.
            package_id: 32 bytes, as a plan or release names it.
            accept: sees the manifest before anything large is fetched; raises to decline.
            progress: told (bytes so far, bytes in all).

        Raises:
            HashMismatchError: a file is not what it should be.
            ResourceError: not enough disk, or over the owner's quota.
            UnreachableError: interrupted; what came is kept.
        """
        manifest = self.manifest(connection, package_id)
        accept(manifest)
        if self.folder(package_id).is_dir():
            return self._checked(package_id)
        artefacts = self.artefacts
        missing = [entry for entry in manifest.files if artefacts.find(bytes.fromhex(entry.sha256)) is None]
        self._require_room(sum(entry.size_bytes for entry in missing))
        total = sum(entry.size_bytes for entry in manifest.files)
        done = total - sum(entry.size_bytes for entry in missing)
        for entry in missing:
            artefacts.fetch(
                connection,
                bytes.fromhex(entry.sha256),
                size_bytes=entry.size_bytes,
                size_limit_bytes=entry.size_bytes,
                progress=_shifted(progress, done, total),
            )
            done += entry.size_bytes
        self._assemble(package_id, manifest)
        return self._checked(package_id)

    def _require_room(self, size_bytes: int) -> None:
        make_private_directory(self.directory)
        require_free_space(self.directory, size_bytes)
        used = self.artefacts.size_bytes()
        if self.quota_bytes and used + size_bytes > self.quota_bytes:
            raise ResourceError(
                f"the model needs {size_bytes / 2**20:.0f} MiB, the cache holds {used / 2**20:.0f} of "
                f"{self.quota_bytes / 2**20:.0f} MiB (cache.quota_mb); raise the quota or remove a model"
            )

    def _assemble(self, package_id: bytes, manifest: Manifest) -> None:
        """Link the checked files under their names, and show the folder only when it is complete."""
        folder = self.folder(package_id)
        make_private_directory(folder.parent)
        incoming = folder.with_name(f".{folder.name}.incoming")
        shutil.rmtree(incoming, ignore_errors=True)
        incoming.mkdir()
        names = {_MANIFEST: package_id, **{entry.name: bytes.fromhex(entry.sha256) for entry in manifest.files}}
        for name, sha256 in names.items():
            source = self.artefacts.find(sha256)
            if source is None:
                raise NotFoundError(
                    f"file {name} of package {package_id.hex()[:16]} vanished from the cache; run again"
                )
            try:
                os.link(source, incoming / name)
            except OSError:
                # Not every file system has hard links.
                shutil.copyfile(source, incoming / name)
        os.replace(incoming, folder)
        sync_directory(folder.parent)

    def _checked(self, package_id: bytes) -> ModelPackage:
        """Open with every hash checked; a damaged package is thrown away, so that the next run fetches it again."""
        try:
            return self.open(package_id, verify=True)
        except (HashMismatchError, NotFoundError) as error:
            folder = self.folder(package_id)
            for path in folder.iterdir():
                if path.is_file():
                    _forget(self.artefacts, path)
            shutil.rmtree(folder, ignore_errors=True)
            raise HashMismatchError(f"{error}; the damaged package was removed, run again to fetch it") from error


def _shifted(progress: Progress, before_bytes: int, total_bytes: int) -> Progress:
    return lambda got_bytes, _: progress(before_bytes + got_bytes, total_bytes)


def _forget(artefacts: Artefacts, path: Path) -> None:
    """Remove the file behind a hard link, whatever its name says its hash is."""
    inode = path.stat().st_ino
    for entry in artefacts.files():
        if entry.stat().st_ino == inode:
            entry.unlink()
