"""The models that one process offers: a base model, alone and with the adapters of this device.

    default            the adapter in use, or the base model; follows what the nightly pass adopts
    NAME OF THE MODEL  the base model alone
    task/3             one adapter, released or personal

Adapters are looked up at every request, so that a release adopted at night
answers in the morning without a restart, and a rollback takes effect at once.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from edge_client.adapters_in_use import find_adapter, load_adapter, usual_tasks
from edge_client.store import open_store
from nightshift.protocol.errors import NotFoundError

if TYPE_CHECKING:
    from edge_client.engines.engine import Engine
    from edge_client.home import Home
    from edge_client.store import Store
    from edge_client.store.adapters import StoredAdapter
    from nightshift.packages.package import ModelPackage

DEFAULT = "default"


@dataclass(frozen=True, slots=True)
class Offer:
    """A model that can be asked for.

    Attributes:
        name: what a request calls it.
        created_unix_s: when it came to this device.
        adapter: on the base model; None is the base model alone.
    """

    name: str
    created_unix_s: int
    adapter: StoredAdapter | None

    @property
    def fingerprint(self) -> str:
        """Changes with the adapter; "base" without one."""
        return "base" if self.adapter is None else self.adapter.sha256.hex()[:16]


class UnknownModelError(NotFoundError):
    """No model of this name is offered here."""


@dataclass(frozen=True, slots=True)
class Catalogue:
    """What is offered.

    Attributes:
        home: of the device.
        package: the base model.
        task: whose adapter in use is the default one; None takes the only task there is.
        adapter: name of the default adapter instead of the one in use.
        base_only: the default is the base model, and no adapter is offered.
    """

    home: Home
    package: ModelPackage
    task: str | None = None
    adapter: str | None = None
    base_only: bool = False

    @property
    def base_name(self) -> str:
        """Name of the base model."""
        return self.package.manifest.name

    def offers(self) -> list[Offer]:
        """Everything that is offered, the base model first."""
        offers = [self._base()]
        if not self.base_only:
            with open_store(self.home) as store:
                offers += [_offer(adapter) for adapter in self._fitting(store)]
        return offers

    def resolve(self, name: str | None) -> Offer:
        """The model that a request means.

        Raises:
            UnknownModelError: there is none of this name.
        """
        if name == self.base_name or (self.base_only and name in {None, DEFAULT}):
            return self._base()
        if not self.base_only:
            with open_store(self.home) as store:
                fitting = self._fitting(store)
                chosen = self._default(store, fitting) if name in {None, DEFAULT} else name
            if chosen is None:
                return self._base()
            for adapter in fitting:
                if adapter.name == chosen:
                    return _offer(adapter)
        known = ", ".join([DEFAULT, *(offer.name for offer in self.offers())])
        raise UnknownModelError(f"no model {(name or self.adapter or DEFAULT)[:80]!r} here; offered are: {known}")

    def attach(self, offer: Offer, engine: Engine) -> None:
        """Puts the offer's adapter on an engine of the base model, or takes the last one off.

        Raises:
            NotFoundError: the adapter's file is gone.
            HashMismatchError: it is damaged.
            EngineError: the runtime refuses it.
        """
        loaded = None if offer.adapter is None else load_adapter(self.home, offer.adapter)
        if loaded is None:
            engine.set_adapter(None, None)
        else:
            engine.set_adapter(loaded.tensors, loaded.layout)

    def check(self) -> None:
        """Refuses a default adapter that is not there, before anybody asks for it.

        Raises:
            NotFoundError: it is not, or belongs to another model.
        """
        if self.adapter is not None and not self.base_only:
            with open_store(self.home) as store:
                if find_adapter(store, self.adapter).base_model != self.package.package_id:
                    raise NotFoundError(f"adapter {self.adapter} belongs to another model than {self.base_name}")

    def _base(self) -> Offer:
        created = (self.package.directory / "manifest.json").stat().st_mtime
        return Offer(self.base_name, int(created), None)

    def _fitting(self, store: Store) -> list[StoredAdapter]:
        return [each for each in store.adapters.all() if each.base_model == self.package.package_id]

    def _default(self, store: Store, fitting: list[StoredAdapter]) -> str | None:
        """Name of the default adapter; None for the base model."""
        if self.adapter is not None:
            return self.adapter
        tasks = usual_tasks(store)
        task = self.task if self.task is not None else (tasks[0] if len(tasks) == 1 else None)
        in_use = store.adapters.in_use(task) if task is not None else None
        if in_use is None or in_use.current is None:
            return None
        names = [each.name for each in fitting if each.task == task]
        # The task may have moved on to another base model; this process stays with the last adapter that fits its own.
        return in_use.current if in_use.current in names else (names[-1] if names else None)


def _offer(adapter: StoredAdapter) -> Offer:
    return Offer(adapter.name, adapter.adopted_at_unix_s, adapter)
