"""`edge-client generate`."""

from __future__ import annotations

import time

import click

from edge_client.cli.local_model import model_options
from edge_client.cli.options import Call, device_command
from edge_client.cli.streaming import interruptible, write, write_piece


@click.command(
    epilog='Example: edge-client generate "wake me at seven" --max-tokens 20',
    short_help="Let the model on this device answer.",
)
@click.argument("prompt")
@model_options
@click.option("--max-tokens", type=click.IntRange(1), default=64, show_default=True, help="Longest answer.")
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
    """Answer PROMPT with the model and adapter on this device; nothing leaves it. Ctrl-c stops the answer."""
    from edge_client.cli.local_model import open_local_model
    from edge_client.data.examples import Message
    from edge_client.engines.sampling import SamplingSettings
    from edge_client.serving.answering import Answer
    from nightshift.host.console import note

    sampling = SamplingSettings(max_tokens=max_tokens, temperature=temperature, top_p=top_p, seed=seed)
    local = open_local_model(call, engine=engine, base=base, name=name, task=task, model=model)
    with local.engine:
        for sentence in local.notes:
            note(f"note: {sentence}")
        offer = local.catalogue.resolve(None)
        local.catalogue.attach(offer, local.engine)
        started = time.monotonic()
        tokens = local.language.conversation([Message("user", prompt)])
        answer = Answer(local.engine, local.language, tokens, sampling)
        pieces: list[str] = []
        with interruptible(local.engine):
            for piece in answer:
                pieces.append(piece)
                if not call.as_json:
                    write_piece(piece)
        if not call.as_json:
            write("\n")
            return
    value = {
        "text": "".join(pieces),
        "finish_reason": answer.finish_reason,
        "engine": local.engine.kind.value,
        "adapter": None if offer.adapter is None else offer.adapter.name,
        "model": local.catalogue.package.package_id.hex(),
        "prompt_tokens": len(tokens),
        "tokens": answer.completion_tokens,
        "seconds": round(time.monotonic() - started, 3),
    }
    call.emit(value, "")
