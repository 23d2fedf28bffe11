"""`edge-client serve`."""

from __future__ import annotations

import sys

import click

from edge_client.cli.local_model import model_options
from edge_client.cli.options import Call, device_command


@click.command(
    epilog="Example: edge-client serve, then point a client at http://127.0.0.1:11435/v1",
    short_help="An OpenAI-compatible API on this machine.",
)
@click.option("--host", help="Address to listen on [127.0.0.1]; another than loopback needs a key.")
@click.option("--port", type=click.IntRange(0, 65_535), help="[11435]; 0 takes a free one.")
@click.option("--api-key", help="That requests must carry; better in config.toml or EDGE_CLIENT_SERVING_API_KEY.")
@model_options
@device_command
def serve(
    call: Call,
    *,
    host: str | None,
    port: int | None,
    api_key: str | None,
    engine: str,
    base: bool,
    name: str | None,
    task: str | None,
    model: str | None,
) -> None:
    """Answer OpenAI API requests with the model on this device; nothing leaves it.

    Runs until it is stopped, and needs no coordinator.
    """
    from edge_client.cli.local_model import open_local_model
    from edge_client.serving.access import Gate, check_listening
    from edge_client.serving.desk import Desk
    from edge_client.serving.server import listen, serve_until_stopped, url_of
    from nightshift.host.console import note

    settings = call.configuration().serving
    host = host or settings.host
    key = api_key or (settings.api_key.get_secret_value() if settings.api_key else None)
    check_listening(host, key)
    # Before the model is loaded: a port that is taken is said at once.
    with listen(host, settings.port if port is None else port) as listener:
        local = open_local_model(call, engine=engine, base=base, name=name, task=task, model=model)
        for sentence in local.notes:
            note(f"note: {sentence}")
        offer = local.catalogue.resolve(None)
        url, runtime = url_of(listener), local.engine.kind.label

        def started() -> None:
            value = {"url": url, "model": offer.name, "engine": runtime, "key_needed": key is not None}
            call.emit(value, f"{offer.name} answers at {url} ({runtime}); ctrl-c ends")
            sys.stdout.flush()

        desk = Desk(local.engine, local.language, local.catalogue, settings.waiting_limit)
        serve_until_stopped(desk, Gate(key, host), listener, started=started)
