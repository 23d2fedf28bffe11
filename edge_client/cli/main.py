"""`edge-client`: the command line, which imports a command only when it is used."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import click

from edge_client import __version__
from edge_client.cli.options import home_option
from nightshift.host.console import exit_with

COMMANDS = {
    "join": "edge_client.cli.join:join",
    "leave": "edge_client.cli.leave:leave",
    "status": "edge_client.cli.status:status",
    "run": "edge_client.cli.run:run",
    "pause": "edge_client.cli.pause:pause",
    "resume": "edge_client.cli.pause:resume",
    "service": "edge_client.cli.service:service",
    "model": "edge_client.cli.model:model",
    "adapter": "edge_client.cli.adapter:adapter",
    "data": "edge_client.cli.data:data",
    "train": "edge_client.cli.train:train",
    "generate": "edge_client.cli.generate:generate",
    "chat": "edge_client.cli.chat:chat",
    "serve": "edge_client.cli.serve:serve",
    "ledger": "edge_client.cli.ledger:ledger",
    "policy": "edge_client.cli.policy:policy",
    "profile": "edge_client.cli.profile:profile",
    "config": "edge_client.cli.config:config",
    "doctor": "edge_client.cli.doctor:doctor",
    "bugreport": "edge_client.cli.bugreport:bugreport",
    "completion": "edge_client.cli.completion:completion",
    "log": "edge_client.cli.log:log",
}
"""Command -> where it is."""


class LazyGroup(click.Group):
    """A group whose commands are imported when they are asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        """The commands, in the order in which a newcomer meets them."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002 - click's signature
        """Import one command; None if there is no such one."""
        if cmd_name not in COMMANDS:
            return None
        module, _, name = COMMANDS[cmd_name].partition(":")
        command: click.Command = getattr(importlib.import_module(module), name)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Suggest a command where the typed one does not exist."""
        import difflib

        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            close = difflib.get_close_matches(args[0], COMMANDS, n=1)
            hint = f"; did you mean {close[0]!r}?" if close else "; see: edge-client --help"
            raise click.UsageError(f"unknown command {args[0]!r}{hint}", ctx)
        return super().resolve_command(ctx, args)


@click.group(
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Example: edge-client join TOKEN, then edge-client data add notes.txt --format text, "
    "then edge-client run --now",
)
@click.version_option(__version__, prog_name="edge-client")
@home_option
def cli(home: Path | None) -> None:
    """A device that keeps its data, learns at night, and shares only sums."""
    del home  # read by the commands from the root context


def main() -> None:
    """Entry point; never returns."""
    sys.exit(exit_with(_run))


def _run() -> None:
    try:
        code = cli.main(prog_name="edge-client", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except click.Abort:
        raise KeyboardInterrupt from None
    if isinstance(code, int) and code:
        sys.exit(code)


if __name__ == "__main__":
    main()
