"""`edge-client generate`."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from edge_client.cli.options import Call, device_command

if TYPE_CHECKING:
    from edge_client.engines.engine import Engine
    from nightshift.packages.package import ModelPackage


@click.command(
    epilog='Example: edge-client generate "wake me at seven" --max-tokens 20',
    short_help="Let the model on this device answer.",
)
@click.argument("prompt")
@click.option("--engine", type=click.Choice(["onnx", "llama", "auto"]), default="auto", help="Which runtime.")
@click.option("--base", is_flag=True, help="The bare base model, without any adapter.")
@click.option("--adapter", "name", help="This adapter instead of the one in use.")
@click.option("--task", help="The adapter in use for this task.")
@click.option("--model", help="Base model, by the first digits of its id.")
@click.option("--max-tokens", type=click.IntRange(1), default=64, show_default=True)
@click.option("--temperature", type=click.FloatRange(0, 100), default=0.0, show_default=True, help="0: the likeliest.")
@click.option("--top-p", type=click.FloatRange(0, 1, min_open=True), default=1.0, show_default=True)
@click.option("--seed", type=click.IntRange(0), help="Makes drawing repeatable.")
@device_command
def generate(
    call: Call,
    *,
    prompt: str,
    engine: str,
    base: bool,
    name: str | None,
    task: str | None,
    model: str | None,
    max_tokens: int,
    temperature: float,
    top_p: float,
    seed: int | None,
) -> None:
    """Answer PROMPT with the model and adapter on this device; nothing leaves it."""
    from edge_client.cli.choosing import choose_adapter, choose_package
    from edge_client.data.examples import Message
    from edge_client.data.prepare import package_template, package_tokenizer
    from edge_client.data.tokens import encode_prompt
    from edge_client.engines.sampling import SamplingSettings
    from edge_client.store import open_store
    from nightshift.protocol.errors import UsageError

    if base and (name or task):
        raise UsageError("--base means no adapter; leave out --adapter and --task")
    with open_store(call.home) as store:
        adapter = None if base else choose_adapter(call, store, name=name, task=task)
    package = choose_package(call, adapter, model)
    tokenizer = package_tokenizer(package)
    template = package_template(package, tokenizer)
    tokens = encode_prompt(template.prompt([Message("user", prompt)]), tokenizer)
    sampling = SamplingSettings(max_tokens=max_tokens, temperature=temperature, top_p=top_p, seed=seed)
    chosen, opened = _open(package, engine, threads=call.configuration().training.threads)
    started = time.monotonic()
    with opened:
        if adapter is not None:
            opened.set_adapter(adapter.tensors, adapter.layout)
        counted = _Counted(opened.generate(tokens, sampling))
        text = "".join(_shown(tokenizer.decode_stream(counted), quiet=call.as_json))
    if call.as_json:
        value = {
            "text": text,
            "engine": chosen,
            "adapter": None if adapter is None else adapter.stored.name,
            "model": package.package_id.hex(),
            "tokens": counted.count,
            "seconds": round(time.monotonic() - started, 3),
        }
        call.emit(value, "")


class _Counted:
    """Tokens on their way, counted."""

    def __init__(self, tokens: Iterator[int]) -> None:
        self._tokens = tokens
        self.count = 0

    def __iter__(self) -> Iterator[int]:
        for token in self._tokens:
            self.count += 1
            yield token


def _shown(pieces: Iterator[str], *, quiet: bool) -> Iterator[str]:
    """The pieces, printed as they come unless they end up in JSON."""
    for piece in pieces:
        if not quiet:
            sys.stdout.write(piece)
            sys.stdout.flush()
        yield piece
    if not quiet:
        sys.stdout.write("\n")


def _open(package: ModelPackage, engine: str, *, threads: int) -> tuple[str, Engine]:
    """Name and engine; auto takes llama.cpp where it is installed."""
    import importlib.util

    from edge_client.engines.sessions import RuntimeSettings

    runtime = RuntimeSettings(threads=threads)
    if engine == "llama" or (engine == "auto" and importlib.util.find_spec("llama_cpp") is not None):
        from edge_client.engines.llama_engine import LlamaEngine

        return "llama", LlamaEngine(package, runtime)
    from edge_client.engines.onnx_engine import OnnxEngine

    return "onnx", OnnxEngine(package, runtime)
