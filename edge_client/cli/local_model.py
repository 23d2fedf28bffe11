"""What `serve` and `chat` have in common: the options that choose a model, and opening it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from edge_client.cli.options import Call

if TYPE_CHECKING:
    from edge_client.engines.isolated import IsolatedEngine
    from edge_client.serving.answering import Language
    from edge_client.serving.catalogue import Catalogue

_OPTIONS = (
    click.option("--engine", type=click.Choice(["auto", "llama", "onnx"]), default="auto", help="Which runtime."),
    click.option("--base", is_flag=True, help="The bare base model, without any adapter."),
    click.option("--adapter", "name", help="This adapter instead of the one in use."),
    click.option("--task", help="The adapter in use for this task."),
    click.option("--model", help="Base model, by the first digits of its id."),
)


@dataclass(frozen=True, slots=True)
class LocalModel:
    """A model that answers on this device.

    Attributes:
        engine: started.
        language: of the base model.
        catalogue: base model and adapters.
        notes: what a person should know about the choice.
    """

    engine: IsolatedEngine
    language: Language
    catalogue: Catalogue
    notes: tuple[str, ...]


def model_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options of `open_local_model` to a command."""
    for option in reversed(_OPTIONS):
        function = option(function)
    return function


def open_local_model(
    call: Call, *, engine: str, base: bool, name: str | None, task: str | None, model: str | None
) -> LocalModel:
    """Find the model, choose a runtime that works here, and start it.

    Raises:
        UsageError: the options contradict each other, or leave a choice open.
        NotFoundError: no such model or adapter.
        EngineUnavailableError: no runtime works here.
    """
    from edge_client.cli.choosing import choose_adapter, choose_package
    from edge_client.engines.choice import open_engine
    from edge_client.engines.engine import EngineKind
    from edge_client.serving.answering import Language
    from edge_client.serving.catalogue import Catalogue
    from edge_client.store import open_store
    from nightshift.protocol.errors import UsageError

    if base and (name or task):
        raise UsageError("--base means no adapter; leave out --adapter and --task")
    with open_store(call.home) as store:
        adapter = None if base else choose_adapter(call, store, name=name, task=task)
    package = choose_package(call, adapter, model)
    settings = call.configuration().inference
    preferred = {"llama.cpp": EngineKind.LLAMA, "onnxruntime": EngineKind.ONNX}.get(settings.engine)
    chosen = open_engine(
        package,
        None if engine == "auto" else EngineKind(engine),
        preferred=preferred,
        threads=settings.threads,
        context_tokens=settings.context_tokens,
    )
    catalogue = Catalogue(call.home, package, task=task, adapter=name, base_only=base)
    return LocalModel(chosen.engine, Language.of(package), catalogue, chosen.notes)
