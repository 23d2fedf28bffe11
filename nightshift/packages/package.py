"""Opening a model package on the device: a folder is what its manifest says, or it is refused.

Imports neither onnx nor gguf, so that a pass that only checks a package stays small.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from nightshift.protocol.errors import HashMismatchError, MalformedError, NotFoundError
from nightshift.protocol.manifest import (
    MANIFEST_BYTES_MAX,
    FileRole,
    Manifest,
    PackageFile,
    PackageId,
    package_id,
)

MANIFEST_NAME: Final = "manifest.json"
_CHUNK_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class ModelPackage:
    """A package on disk.

    Attributes:
        directory: Its folder.
        manifest: What it says of itself.
        package_id: SHA-256 of the manifest's bytes.
    """

    directory: Path
    manifest: Manifest
    package_id: PackageId

    @classmethod
    def open(cls, directory: Path, *, verify: bool = True, expected: PackageId | None = None) -> ModelPackage:
        """Read the manifest and check the files against it.

        Args:
            directory: The package's folder.
            verify: Hash every file. Sizes are checked in any case.
            expected: The id this package must have, as a plan or a signature named it.

        Raises:
            NotFoundError: No such folder, no manifest, or a file is missing.
            MalformedError: The manifest is not one.
            HashMismatchError: A file, or the id, is not what it should be; the message names it.
        """
        path = directory / MANIFEST_NAME
        try:
            with path.open("rb") as file:
                encoded = file.read(MANIFEST_BYTES_MAX + 1)
        except (FileNotFoundError, NotADirectoryError):
            raise NotFoundError(f"{path}: no such file; build or pull the package first") from None
        found = package_id(encoded)
        if expected is not None and found != expected:
            raise HashMismatchError(f"{directory}: is package {found.hex()}, expected {expected.hex()}")
        try:
            manifest = Manifest.from_bytes(encoded)
        except MalformedError as error:
            raise MalformedError(f"{path}: {error}") from None
        package = cls(directory, manifest, found)
        for entry in manifest.files:
            check_file(directory / entry.name, entry, verify=verify)
        return package

    def path(self, role: FileRole | str) -> Path:
        """Where the file with this role lies: gguf, weights, decode, evaluate, train, ..."""
        return self.directory / self.manifest.file(role).name


def check_file(path: Path, entry: PackageFile, *, verify: bool) -> None:
    """Check one file's kind, size and, if `verify`, hash.

    Raises:
        NotFoundError: It is missing.
        HashMismatchError: It is no regular file, or size or hash differ.
    """
    if path.is_symlink() or (path.exists() and not path.is_file()):
        raise HashMismatchError(f"{path}: not a regular file; remove it and pull the package again")
    try:
        size = path.stat().st_size
    except FileNotFoundError:
        raise NotFoundError(f"{path}: missing from the package; pull it again") from None
    if size != entry.size_bytes:
        raise HashMismatchError(f"{path}: {size} bytes, the manifest says {entry.size_bytes}; pull the file again")
    if verify and (found := file_sha256(path)) != entry.sha256:
        raise HashMismatchError(f"{path}: SHA-256 {found}, the manifest says {entry.sha256}; pull the file again")


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's bytes, hex; reads a megabyte at a time."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()
