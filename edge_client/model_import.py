"""Bringing a model to this device without a coordinator: from a file, a folder, a package, or a model hub."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from edge_client.artefacts import Progress, no_progress
from edge_client.model_packages import PackageCache
from nightshift.host.files import exclusive_lock, make_private_directory
from nightshift.protocol.errors import HashMismatchError, NotFoundError

if TYPE_CHECKING:
    from nightshift.packages.hub import HubReference
    from nightshift.packages.importing import Say, Wishes
    from nightshift.packages.package import ModelPackage
    from nightshift.protocol.manifest import Manifest

Accept = Callable[["Manifest"], None]
"""Sees the manifest of a finished package before the cache takes it; raises to decline."""


def import_from_path(cache: PackageCache, source: Path, wishes: Wishes, *, accept: Accept, say: Say) -> ModelPackage:
    """Make a package of a GGUF file or a Hugging Face folder, or take a package's folder, into the cache.

    Raises:
        NotFoundError: there is nothing at this path.
        DeclinedError: the owner's policy does not accept the model.
        ResourceError: not enough disk, or over the owner's quota.
        BusyError: another import is running.
        MalformedError, IncompatibleError, UsageError: no package can be made of it; says why.
    """
    from nightshift.packages.importing import import_path, room_needed
    from nightshift.packages.package import MANIFEST_NAME

    if not source.exists():
        raise NotFoundError(f"{source}: no such file or folder")
    is_package = (source / MANIFEST_NAME).is_file()
    files = [path for path in source.rglob("*") if path.is_file()] if source.is_dir() else [source]
    size_bytes = sum(path.stat().st_size for path in files)
    with _workplace(cache) as folder:
        cache.make_room(size_bytes if is_package else room_needed(size_bytes), adding=0)
        if is_package:
            _copy_package(source, folder / "package")
        else:
            import_path(source, folder / "package", wishes, say=say)
        return _adopt(cache, folder / "package", accept)


def import_from_hub(
    cache: PackageCache,
    reference: HubReference,
    wishes: Wishes,
    *,
    accept: Accept,
    say: Say,
    progress: Progress = no_progress,
) -> ModelPackage:
    """Fetch a model from a model hub, with resume, and make a package of it in the cache.

    Raises:
        NotFoundError, UsageError, OverloadedError, UnreachableError: the hub does not give it; says what to do.
        HashMismatchError: the hub sent other bytes than it promises.
        DeclinedError, ResourceError, BusyError, MalformedError, IncompatibleError: as `import_from_path`.
    """
    from nightshift.packages import hub_import

    with _workplace(cache) as folder:
        hub_import.import_from_hub(
            reference,
            cache.directory / "hub",
            folder / "package",
            wishes,
            say=say,
            progress=progress,
            require_room=lambda size_bytes: cache.make_room(size_bytes, adding=0),
        )
        return _adopt(cache, folder / "package", accept)


@contextmanager
def _workplace(cache: PackageCache) -> Iterator[Path]:
    """An empty folder on the cache's disk, for one import at a time; what a killed one left is removed."""
    make_private_directory(cache.directory)
    with exclusive_lock(cache.directory / "import.lock"):
        folder = cache.directory / "import"
        shutil.rmtree(folder, ignore_errors=True)
        make_private_directory(folder)
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def _adopt(cache: PackageCache, folder: Path, accept: Accept) -> ModelPackage:
    from nightshift.packages.package import ModelPackage

    accept(ModelPackage.open(folder, verify=False).manifest)
    return cache.adopt(folder)


def _copy_package(source: Path, destination: Path) -> None:
    """Copy the files that a manifest names, and nothing else that may lie beside them.

    Raises:
        HashMismatchError: a file is not what the manifest says, or is a link out of the folder.
    """
    from nightshift.packages.package import MANIFEST_NAME, ModelPackage

    package = ModelPackage.open(source, verify=False)
    destination.mkdir()
    for name in (MANIFEST_NAME, *(entry.name for entry in package.manifest.files)):
        path = source / name
        if path.is_symlink() or not path.is_file():
            raise HashMismatchError(f"{path}: not a regular file; a package holds nothing else")
        shutil.copyfile(path, destination / name)
