"""What every command takes: the home directory, and JSON instead of words."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edge_client.home import Home

if TYPE_CHECKING:
    from edge_client.configuration import Configuration


@dataclass(frozen=True, slots=True)
class Call:
    """One invocation.

    Attributes:
        home: the device's directories.
        as_json: print one JSON object instead of text.
    """

    home: Home
    as_json: bool

    def configuration(self) -> Configuration:
        """The owner's settings.

        Raises:
            UsageError: an unknown key, or a value out of range.
        """
        from edge_client.configuration import load_configuration

        return load_configuration(self.home).values

    def emit(self, value: object, text: str) -> None:
        """Print the result on stdout, as asked."""
        from nightshift.host.console import emit

        emit(value, as_json=self.as_json, text=text)


_DIRECTORY = click.Path(file_okay=False, path_type=Path)


def home_option(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add `--home DIR`."""
    return click.option(
        "--home", "home", type=_DIRECTORY, metavar="DIR", help="Where the device keeps everything [NIGHTSHIFT_HOME]."
    )(function)


def device_command(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add `--home` and `--json` to a command and hand it a `Call` as its first argument."""

    @wraps(function)
    def wrapper(*, home: Path | None, as_json: bool, **arguments: Any) -> Any:
        directory = home or click.get_current_context().find_root().params.get("home")
        return function(Call(Home.locate(directory), as_json), **arguments)

    with_json = click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")(wrapper)
    return home_option(with_json)
