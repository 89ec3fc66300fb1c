"""The group of commands: loads a command when it is asked for, and turns a user's mistake into one message."""

import importlib
from collections.abc import Mapping
from typing import Any

import click

from policies import PolicyError
from simcore.errors import UserError

__all__ = ["EXIT_GATE", "EXIT_INTERRUPTED", "EXIT_USAGE", "LazyGroup"]

EXIT_USAGE = 2
EXIT_GATE = 99
EXIT_INTERRUPTED = 130


class LazyGroup(click.Group):
    """``commands_at`` names each command's module and attribute, ``package.module:attribute``, in the order of the
    help.

    Only the command that is run is imported, and the help's, which import what is heavy when they run.
    """

    def __init__(self, *, commands_at: Mapping[str, str], **attributes: Any) -> None:
        super().__init__(**attributes)
        self._commands_at = dict(commands_at)

    def list_commands(self, ctx: click.Context) -> list[str]:
        """See ``click.Group``."""
        return list(self._commands_at)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """See ``click.Group``."""
        if cmd_name not in self._commands_at:
            return None
        module, _, attribute = self._commands_at[cmd_name].partition(":")
        command = getattr(importlib.import_module(module), attribute)
        assert isinstance(command, click.Command)
        return command

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command. Mistakes end with one message and exit code 2; whatever else is raised is a defect."""
        try:
            return super().invoke(ctx)
        except (UserError, PolicyError) as error:
            click.echo(f"simroute: {error}", err=True)
            ctx.exit(EXIT_USAGE)
        except KeyboardInterrupt:
            click.echo("simroute: interrupted", err=True)
            ctx.exit(EXIT_INTERRUPTED)
