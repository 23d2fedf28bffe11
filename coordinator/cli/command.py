"""What all commands share: the data directory, `--json`, times."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import click

from coordinator.deployment import Deployment, opened
from nightshift.protocol.errors import UsageError

F = TypeVar("F", bound=Callable[..., Any])

json_option: Callable[[F], F] = click.option("--json", "as_json", is_flag=True, help="One JSON object, for programs.")

_UNITS_S = {"s": 1, "m": 60, "h": 3600, "d": 86_400}


@dataclass(frozen=True, slots=True)
class Target:
    """Which coordinator the command line means.

    Attributes:
        data: its directory, on this machine.
        address: host:port of its admin listener, in place of what the credentials say.
        credentials: file of an operator; None to work in the directory.
    """

    data: Path
    address: str = ""
    credentials: Path | None = None


@contextmanager
def coordinator(context: click.Context) -> Iterator[Deployment]:
    """The deployment of the directory that `--data` names.

    Raises:
        UsageError: the command line names a coordinator elsewhere.
    """
    if target(context).credentials is not None or target(context).address:
        raise UsageError(
            "this command works on the coordinator's own machine only; leave out --coordinator and --credentials"
        )
    with opened(data_directory(context)) as deployment:
        yield deployment


def data_directory(context: click.Context) -> Path:
    """What `--data` or the environment names."""
    return target(context).data


def target(context: click.Context) -> Target:
    """What the flags before the command, or the environment, name."""
    named: Target = context.find_root().obj
    return named


def duration_s(text: str) -> int:
    """Seconds of `90s`, `30m`, `24h` or `7d`.

    Raises:
        UsageError: anything else.
    """
    match = re.fullmatch(r"([1-9][0-9]{0,8})([smhd])", text)
    if match is None:
        raise UsageError(f"{text!r} is not a duration; write for example 90s, 30m, 24h or 7d")
    return int(match[1]) * _UNITS_S[match[2]]
