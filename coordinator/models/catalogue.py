"""Model packages that tasks build on: stored as artefacts, known by package id or alias."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from sqlalchemy import select
from sqlalchemy.orm import Session

from coordinator.storage import artefacts
from coordinator.storage.objects import Objects
from coordinator.storage.rows import Model
from nightshift.protocol.errors import NotFoundError, UsageError
from nightshift.protocol.manifest import MANIFEST_BYTES_MAX, Manifest, package_id

_ALIAS = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")


def store_package(objects: Objects, directory: Path) -> bytes:
    """Store a package's manifest and files as objects that have no rows yet.

    Returns:
        The manifest's bytes.

    Raises:
        UsageError: the folder is no package, or its manifest is larger than allowed.
        HashMismatchError: a file is not what the manifest says.
    """
    data = read_manifest(directory)
    for file in Manifest.from_bytes(data).files:
        artefacts.put_file(objects, directory / file.name, bytes.fromhex(file.sha256))
    artefacts.put_bytes(objects, data)
    return data


def read_manifest(directory: Path) -> bytes:
    """The manifest of a package's folder, as it is.

    Raises:
        UsageError: the folder is no package, or its manifest is larger than allowed.
    """
    path = directory / "manifest.json"
    if not path.is_file() or path.stat().st_size > MANIFEST_BYTES_MAX:
        raise UsageError(f"{directory} is not a model package: it has no manifest.json of a fitting size")
    return path.read_bytes()


def require_stored(objects: Objects, manifest_bytes: bytes) -> None:
    """Check that every file of a package is here, with its size; their hashes were checked when they came.

    Raises:
        NotFoundError: one is not.
        MalformedError: the manifest is none.
    """
    manifest = Manifest.from_bytes(manifest_bytes)
    for file in manifest.files:
        key = artefacts.artefact_key(bytes.fromhex(file.sha256))
        # The last byte, and none behind it.
        if len(objects.get_range(key, max(0, file.size_bytes - 1), 2)) != min(1, file.size_bytes):
            raise NotFoundError(f"{file.name} is stored with another size than the manifest states; send it again")


def add_model(session: Session, manifest_bytes: bytes, alias: str, now_unix_s: int) -> Model:
    """Record a stored package; adding the same package again changes nothing.

    Raises:
        UsageError: the alias is taken by another package, or no plain word.
    """
    if not _ALIAS.fullmatch(alias):
        raise UsageError(f"{alias[:80]!r} cannot name a model; use letters, digits, '.', '_' and '-'")
    manifest = Manifest.from_bytes(manifest_bytes)
    identifier = package_id(manifest_bytes)
    existing = session.get(Model, identifier)
    if existing is not None:
        return existing
    if session.scalar(select(Model).where(Model.alias == alias)) is not None:
        raise UsageError(f"another model is called {alias!r}; choose a name with --alias")
    artefacts.record(session, sha256=identifier, size_bytes=len(manifest_bytes), kind="manifest")
    for file in manifest.files:
        artefacts.record(session, sha256=bytes.fromhex(file.sha256), size_bytes=file.size_bytes, kind="model")
    model = Model(package_id=identifier, alias=alias, manifest=manifest_bytes, added_unix_s=now_unix_s)
    session.add(model)
    session.flush()
    return model


def list_models(session: Session) -> Sequence[Model]:
    """All models, by alias."""
    return session.scalars(select(Model).order_by(Model.alias)).all()


def find_model(session: Session, name: str) -> Model:
    """A model by its alias or the first digits of its package id, in hex.

    Raises:
        NotFoundError: none or several fit.
    """
    models = list_models(session)
    found = [model for model in models if model.alias == name] or [
        model for model in models if len(name) >= 4 and model.package_id.hex().startswith(name.lower())
    ]
    if len(found) != 1:
        known = ", ".join(model.alias for model in models[:8]) or "none; add one with `coordinator model add PATH`"
        raise NotFoundError(f"no single model is called {name!r}; known models: {known}")
    return found[0]
