"""Adapters on this disk: checked when they come, adopted as a whole, one step back at any time."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from edge_client.home import Home
from edge_client.store import Store
from edge_client.store.adapters import StoredAdapter
from nightshift.protocol.errors import HashMismatchError, IncompatibleError, NotFoundError, UsageError

if TYPE_CHECKING:
    from nightshift.protocol.adapters.layout import AdapterLayout, Tensors
    from nightshift.protocol.manifest import Manifest

PERSONAL_TASK = "personal"
"""Under this name adapters are kept that were trained here and are never sent."""


@dataclass(frozen=True, slots=True)
class LoadedAdapter:
    """An adapter whose bytes match its hash and its layout."""

    stored: StoredAdapter
    layout: AdapterLayout
    tensors: Tensors


def adapter_file(home: Home, sha256: bytes) -> Path:
    """Where an adapter with this hash lies."""
    return home.adapters / f"{sha256.hex()}.safetensors"


def read_adapter(data: bytes, layout: AdapterLayout, *, what: str) -> Tensors:
    """Read an adapter's bytes, strictly.

    Raises:
        IncompatibleError: another shape, damaged, or with values that are not finite.
    """
    from nightshift.protocol.adapters.errors import AdapterError
    from nightshift.protocol.adapters.formats import from_safetensors

    try:
        return from_safetensors(data, layout)
    except AdapterError as error:
        raise IncompatibleError(f"{what} cannot be used: {error}; the one in use stays") from error


def check_fits(layout: AdapterLayout, manifest: Manifest, *, what: str) -> None:
    """Check that an adapter of this layout fits a base model.

    Raises:
        IncompatibleError: a target that the model does not offer, or of another shape.
    """
    if layout.layers != manifest.dimensions.layers:
        raise IncompatibleError(
            f"{what} has {layout.layers} layers, its base model {manifest.dimensions.layers}; the one in use stays"
        )
    for target in layout.targets:
        if target.name not in manifest.lora_targets:
            raise IncompatibleError(f"{what} adapts {target.name}, which its base model does not offer")
        shape = (target.out_features, target.in_features)
        if shape != manifest.dimensions.projection_shape(target.name):
            raise IncompatibleError(
                f"{what} has {target.name} of {shape[0]} x {shape[1]}, its base model "
                f"{manifest.dimensions.projection_shape(target.name)}; the one in use stays"
            )


def load_adapter(home: Home, stored: StoredAdapter) -> LoadedAdapter:
    """Read an adapter from this disk.

    Raises:
        NotFoundError: its file is gone.
        HashMismatchError: its file is damaged.
        IncompatibleError: it is not what its layout says.
    """
    from nightshift.protocol.plan import layout_from_proto
    from nightshift.v1 import plan_pb2

    path = adapter_file(home, stored.sha256)
    try:
        data = path.read_bytes()
    except FileNotFoundError as error:
        raise NotFoundError(f"the file of adapter {stored.name} is gone ({path}); run: edge-client run") from error
    if hashlib.sha256(data).digest() != stored.sha256:
        raise HashMismatchError(f"{path} is damaged; delete it and run: edge-client run")
    layout = layout_from_proto(plan_pb2.AdapterLayout.FromString(stored.layout))
    return LoadedAdapter(stored, layout, read_adapter(data, layout, what=f"adapter {stored.name}"))


def find_adapter(store: Store, name: str) -> StoredAdapter:
    """An adapter by its name.

    Raises:
        NotFoundError: none of this name is here.
    """
    found = store.adapters.find(name)
    if found is None:
        known = ", ".join(adapter.name for adapter in store.adapters.all()) or "none"
        raise NotFoundError(f"no adapter {name!r} on this device; here are: {known}")
    return found


def base_models_in_use(store: Store) -> frozenset[bytes]:
    """Ids of the packages that the adapters in use, and those a rollback would return to, build on."""
    names = set()
    for task in store.adapters.tasks():
        in_use = store.adapters.in_use(task)
        if in_use is not None:
            names |= {in_use.current, in_use.previous}
    return frozenset(adapter.base_model for adapter in store.adapters.all() if adapter.name in names)


def usual_tasks(store: Store) -> list[str]:
    """The tasks that answer when none is named: beside shared adapters, the personal one waits to be asked for."""
    tasks = store.adapters.tasks()
    return tasks if len(tasks) <= 1 else [task for task in tasks if task != PERSONAL_TASK]


def current_adapter(store: Store, task: str | None) -> StoredAdapter | None:
    """The adapter in use for a task, or for the only task there is; None is the bare base model.

    Raises:
        UsageError: several tasks have one, and none was named.
        NotFoundError: nothing was ever adopted for the named task.
    """
    tasks = store.adapters.tasks() if task is not None else usual_tasks(store)
    if task is None:
        if not tasks:
            return None
        if len(tasks) > 1:
            raise UsageError(f"several tasks have an adapter ({', '.join(tasks)}); choose one with --task")
        task = tasks[0]
    in_use = store.adapters.in_use(task)
    if in_use is None:
        raise NotFoundError(f"no adapter was adopted for task {task!r}; tasks here: {', '.join(tasks) or 'none'}")
    return None if in_use.current is None else find_adapter(store, in_use.current)


def choose(store: Store, task: str, name: str | None) -> None:
    """Put an adapter in use by the owner's choice, None for the bare base model: no release replaces it."""
    with store.database.transaction():
        store.adapters.use(task, name)
        store.adapters.pin(task, pinned=True)


def let_follow(store: Store, task: str) -> None:
    """Take the owner's choice back: at the next pass the served release comes in use again.

    A release that was kept back because it is worse here stays so; the owner's choice was another matter.

    Raises:
        NotFoundError: nothing was ever adopted for this task.
    """
    if store.adapters.in_use(task) is None:
        known = ", ".join(store.adapters.tasks()) or "none"
        raise NotFoundError(f"no adapter was adopted for task {task!r}; tasks here: {known}")
    with store.database.transaction():
        store.adapters.pin(task, pinned=False)
        store.served.unfollow(task)


def roll_back(store: Store, task: str) -> StoredAdapter | None:
    """Put the adapter before the current one back in use, by the owner's choice; None for the bare base model.

    Raises:
        NotFoundError: nothing was ever adopted for this task.
    """
    in_use = store.adapters.in_use(task)
    if in_use is None:
        raise NotFoundError(f"no adapter was adopted for task {task!r}; there is nothing to go back from")
    choose(store, task, in_use.previous)
    return None if in_use.previous is None else find_adapter(store, in_use.previous)


def forget_unused_files(home: Home, store: Store) -> None:
    """Remove adapter files that no row names: left by a cut-off adoption."""
    known = {adapter_file(home, adapter.sha256) for adapter in store.adapters.all()}
    for path in home.adapters.glob("*.safetensors"):
        if path not in known:
            path.unlink(missing_ok=True)
