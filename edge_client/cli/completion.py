"""`edge-client completion`."""

from __future__ import annotations

import click


@click.command(
    epilog="Example: edge-client completion bash > ~/.local/share/bash-completion/completions/edge-client",
    short_help="Completion for a shell.",
)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print a script that completes commands and options in a SHELL.

    zsh: put it as _edge-client into a directory of $fpath; fish: ~/.config/fish/completions/edge-client.fish
    """
    from click.shell_completion import get_completion_class

    root = click.get_current_context().find_root()
    kind = get_completion_class(shell)
    assert kind is not None, shell
    click.echo(kind(root.command, {}, "edge-client", "_EDGE_CLIENT_COMPLETE").source())
