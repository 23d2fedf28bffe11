"""Which model and adapter a local command means."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edge_client.adapters_in_use import LoadedAdapter, current_adapter, find_adapter, load_adapter
from edge_client.cli.options import Call
from edge_client.model_packages import PackageCache
from nightshift.protocol.errors import NotFoundError, UsageError

if TYPE_CHECKING:
    from edge_client.store import Store
    from nightshift.packages.package import ModelPackage


def package_cache(call: Call) -> PackageCache:
    """The cache of model packages of an invocation."""
    from edge_client.configuration import cache_directory

    settings = call.configuration().cache
    return PackageCache.of(cache_directory(call.home, settings), settings, needed_models(call))


def needed_models(call: Call) -> frozenset[bytes]:
    """Ids of the models that adapters in use build on."""
    from edge_client.adapters_in_use import base_models_in_use
    from edge_client.store import open_store

    if not call.home.store_file.exists():
        return frozenset()
    with open_store(call.home) as store:
        return base_models_in_use(store)


def choose_adapter(call: Call, store: Store, *, name: str | None, task: str | None) -> LoadedAdapter | None:
    """The named adapter, or the one in use; None is the bare base model.

    Raises:
        NotFoundError: no such adapter.
        UsageError: several tasks have one, and none was named.
    """
    stored = find_adapter(store, name) if name else current_adapter(store, task)
    return None if stored is None else load_adapter(call.home, stored)


def choose_package(call: Call, adapter: LoadedAdapter | None, model: str | None) -> ModelPackage:
    """The adapter's base model, the named one, or the only one here.

    Raises:
        NotFoundError: it is not here.
        UsageError: several are, and none was named; or the adapter is of another model.
    """
    cache = package_cache(call)
    if model is not None:
        package_id = cache.resolve(model)
        if adapter is not None and adapter.stored.base_model != package_id:
            raise UsageError(
                f"adapter {adapter.stored.name} belongs to another model; add --base, or leave out --model"
            )
        return cache.open(package_id, verify=False)
    if adapter is not None:
        try:
            return cache.open(adapter.stored.base_model, verify=False)
        except NotFoundError as error:
            raise NotFoundError(
                f"the base model of adapter {adapter.stored.name} is not on this device; "
                f"run: edge-client model pull {adapter.stored.base_model.hex()}"
            ) from error
    found = cache.ids()
    if not found:
        raise NotFoundError(
            "there is no model on this device; run: edge-client model pull, or: edge-client model import PATH"
        )
    if len(found) > 1:
        raise UsageError("several models are on this device; choose one with --model ID (edge-client model list)")
    return cache.open(found[0], verify=False)
