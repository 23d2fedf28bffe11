"""`edge-client config`."""

from __future__ import annotations

from typing import Any

import click

from edge_client.cli.options import Call, device_command


@click.group(short_help="The settings, and where they come from.")
def config() -> None:
    """Settings: config.toml, EDGE_CLIENT_SECTION_KEY variables, defaults."""


@config.command(epilog="Example: edge-client config show --origin")
@click.option("--origin", is_flag=True, help="Say where each value comes from.")
@device_command
def show(call: Call, *, origin: bool) -> None:
    """Show every setting."""
    from edge_client.configuration import load_configuration

    loaded = load_configuration(call.home)
    values: dict[str, Any] = {}
    for section, settings in loaded.values.model_dump(mode="json").items():
        for key, item in settings.items():
            name = f"{section}.{key}"
            values[name] = {"value": item, "origin": loaded.origins.get(name, "default")} if origin else item
    lines = [
        f"{name} = {_toml(item['value'])}  # {item['origin']}" if origin else f"{name} = {_toml(item)}"
        for name, item in values.items()
    ]
    call.emit(values, "\n".join(lines))


def _toml(item: object) -> str:
    import json

    return "(unset)" if item is None else json.dumps(item)
