"""Model packages on this device: pulled file by file or imported, opened only when every hash is right.

    files/      complete files by hash; packages share them
    partial/    files on their way
    packages/   one folder for each package, of links to its files
    in-use/     who uses what (`package_use`)
    import/     a package that is being made here
    hub/        files that come from a model hub (`nightshift.packages.hub`)

Where the owner set a quota, packages that were not used for longest make room for a new one; those in
use, and those that a task or an adapter in use builds on, stay (`make_room`).
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from edge_client.artefacts import Artefacts, Progress, no_progress
from edge_client.configuration import CacheSettings
from edge_client.package_use import PackageUse
from nightshift.host.files import make_private_directory, require_free_space, sync_directory
from nightshift.protocol.errors import BusyError, HashMismatchError, NotFoundError, ResourceError, UsageError

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
        needed: ids of packages that tasks or adapters in use build on; never removed to make room.
    """

    directory: Path
    quota_bytes: int = 0
    needed: frozenset[bytes] = frozenset()

    @classmethod
    def of(cls, directory: Path, settings: CacheSettings, needed: Iterable[bytes] = ()) -> PackageCache:
        """The cache as the owner set it up."""
        return cls(directory, settings.quota_mb * 2**20, frozenset(needed))

    @property
    def use(self) -> PackageUse:
        """Which packages are used now, and were when."""
        return PackageUse(self.directory)

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

    def resolve(self, name: str) -> bytes:
        """The one package whose id begins with these hex digits, or that has this name or hub repository.

        Raises:
            NotFoundError: none is here.
            UsageError: several are.
        """
        found = [package_id for package_id in self.ids() if package_id.hex().startswith(name.lower())]
        if not found:
            found = [package_id for package_id in self.ids() if name in self._names(package_id)]
        if not found:
            raise NotFoundError(f"no model package {name!r} on this device; see: edge-client model list")
        if len(found) > 1:
            raise UsageError(f"{name!r} could be {len(found)} packages; give more digits of the id")
        return found[0]

    def _names(self, package_id: bytes) -> set[str]:
        manifest = self.read(package_id).manifest
        return {manifest.name} | ({manifest.source.repository} if manifest.source is not None else set())

    def read(self, package_id: bytes, *, verify: bool = False) -> ModelPackage:
        """Look at a package without using it: it may be removed, and counts as no more recently used.

        Raises:
            NotFoundError, HashMismatchError: as `open`.
        """
        return self._open(package_id, verify=verify)

    def open(self, package_id: bytes, *, verify: bool) -> ModelPackage:
        """Open a package that is here, to use it: until this process ends, nothing removes it.

        Raises:
            NotFoundError: it is not here.
            HashMismatchError: a file is damaged; the message names it.
        """
        self.use.hold(package_id)
        return self._open(package_id, verify=verify)

    def _open(self, package_id: bytes, *, verify: bool) -> ModelPackage:
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
        self.make_room(sum(entry.size_bytes for entry in missing), keep=package_id)
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

    def adopt(self, directory: Path) -> ModelPackage:
        """Take over the files of a package that was made on this disk; the folder is gone afterwards.

        Raises:
            NotFoundError, HashMismatchError, MalformedError: it is no intact package.
            ResourceError: over the owner's quota.
        """
        from nightshift.packages.package import ModelPackage

        package = ModelPackage.open(directory, verify=True)
        if self.folder(package.package_id).is_dir():
            shutil.rmtree(directory)
            return self._checked(package.package_id)
        self.make_room(0, adding=sum(entry.size_bytes for entry in package.manifest.files), keep=package.package_id)
        names = {_MANIFEST: bytes(package.package_id)}
        names |= {entry.name: bytes.fromhex(entry.sha256) for entry in package.manifest.files}
        for name, sha256 in names.items():
            self.artefacts.put(directory / name, sha256)
        self._assemble(package.package_id, package.manifest)
        shutil.rmtree(directory)
        return self._checked(package.package_id)

    def make_room(self, size_bytes: int, *, adding: int | None = None, keep: bytes = b"") -> None:
        """Check the disk, then the quota; over the quota, remove what was not used for longest.

        Args:
            size_bytes: that will be written to the disk.
            adding: that count towards the quota, if that is another number.
            keep: a package that must stay.

        Raises:
            ResourceError: not enough disk, or everything that could go is in use or needed.
        """
        adding = size_bytes if adding is None else adding
        make_private_directory(self.directory)
        require_free_space(self.directory, size_bytes)
        if not self.quota_bytes:
            return
        if adding > self.quota_bytes:
            raise ResourceError(
                f"the model needs {adding / 2**20:.1f} MiB, the cache may hold {self.quota_bytes / 2**20:.0f} MiB in "
                "all (cache.quota_mb); raise the quota or choose a smaller model"
            )
        for candidate in sorted(self.ids(), key=self.use.last_used_unix_s):
            if self.artefacts.size_bytes() + adding <= self.quota_bytes:
                return
            if candidate not in self.needed and candidate != keep:
                with contextlib.suppress(BusyError):
                    self.remove(candidate)
        used = self.artefacts.size_bytes()
        if used + adding > self.quota_bytes:
            raise ResourceError(
                f"the model needs {adding / 2**20:.1f} MiB, the cache holds {used / 2**20:.1f} of "
                f"{self.quota_bytes / 2**20:.0f} MiB (cache.quota_mb) and what it holds is in use or needed by a task; "
                "raise the quota, or see: edge-client model rm"
            )

    def remove(self, package_id: bytes) -> int:
        """Remove a package and those of its files that no other package shares.

        Returns:
            Bytes that were freed.

        Raises:
            NotFoundError: it is not here.
            BusyError: a process uses it.
        """
        folder = self.folder(package_id)
        if not folder.is_dir():
            raise NotFoundError(f"no model package {package_id.hex()[:16]} on this device; see: edge-client model list")
        with self.use.alone(package_id):
            own = self._hashes(package_id)
            outgoing = folder.with_name(f".{folder.name}.outgoing")
            shutil.rmtree(outgoing, ignore_errors=True)
            os.replace(folder, outgoing)  # gone at once: nobody opens half a package
            shutil.rmtree(outgoing)
            shared = {sha256 for other in self.ids() for sha256 in self._hashes(other)}
            freed = sum(self.artefacts.forget(sha256) for sha256 in own - shared)
            self.use.forget(package_id)
        return freed

    def unfinished(self) -> list[Path]:
        """Files of downloads and imports that were interrupted; manifests alone are read for releases too, and stay."""
        known = {sha256.hex() for package_id in self.ids() for sha256 in self._hashes(package_id)}
        loose = [path for path in self.artefacts.files() if path.name not in known and not _is_manifest(path)]
        folders = [self.directory / name for name in ("partial", "import", "hub")]
        return loose + [path for folder in folders for path in sorted(folder.rglob("*")) if path.is_file()]

    def _hashes(self, package_id: bytes) -> set[bytes]:
        """The manifest's and the files' hashes; of a damaged package only the manifest's."""
        from nightshift.protocol.errors import NightshiftError
        from nightshift.protocol.manifest import MANIFEST_BYTES_MAX, Manifest

        hashes = {package_id}
        with contextlib.suppress(OSError, NightshiftError):
            with (self.folder(package_id) / _MANIFEST).open("rb") as file:
                manifest = Manifest.from_bytes(file.read(MANIFEST_BYTES_MAX + 1))
            hashes |= {bytes.fromhex(entry.sha256) for entry in manifest.files}
        return hashes

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


def _is_manifest(path: Path) -> bool:
    from nightshift.protocol.errors import NightshiftError
    from nightshift.protocol.manifest import MANIFEST_BYTES_MAX, Manifest

    with path.open("rb") as file:
        data = file.read(MANIFEST_BYTES_MAX + 1)
    try:
        Manifest.from_bytes(data)
    except NightshiftError:
        return False
    return True


def _shifted(progress: Progress, before_bytes: int, total_bytes: int) -> Progress:
    return lambda got_bytes, _: progress(before_bytes + got_bytes, total_bytes)


def _forget(artefacts: Artefacts, path: Path) -> None:
    """Remove the file behind a hard link, whatever its name says its hash is."""
    inode = path.stat().st_ino
    for entry in artefacts.files():
        if entry.stat().st_ino == inode:
            entry.unlink()
