"""``distci completion``: scripts that make shells complete commands."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from distci.cli.command import LocalCommand


@click.command(
    cls=LocalCommand,
    examples=(
        'eval "$(distci completion bash)"          in ~/.bashrc',
        'eval "$(distci completion zsh)"           in ~/.zshrc',
        "distci completion fish > ~/.config/fish/completions/distci.fish",
    ),
)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print the script that makes SHELL complete distci's commands and options."""
    kind = get_completion_class(shell)
    assert kind is not None
    root = click.get_current_context().find_root()
    click.echo(kind(root.command, {}, "distci", "_DISTCI_COMPLETE").source())
