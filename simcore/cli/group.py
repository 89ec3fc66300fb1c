"""The group of commands: loads a command when it is asked for, and turns a user's mistake into one message."""

import importlib
import signal
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import FrameType
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
            with _sigterm_as_interrupt():
                return super().invoke(ctx)
        except (UserError, PolicyError) as error:
            click.echo(f"simroute: {error}", err=True)
            ctx.exit(EXIT_USAGE)
        except KeyboardInterrupt:
            click.echo("simroute: interrupted", err=True)
            ctx.exit(EXIT_INTERRUPTED)


@contextmanager
def _sigterm_as_interrupt() -> Iterator[None]:
    """Within the block SIGTERM does what Ctrl-C does: after ``kill`` and ``timeout`` there are partial results too, and
    no server is left that a command has started. What has its own way to end, such as ``serve``, takes it over."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        # Shells have commands in the background ignore it.
        if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
            raise KeyboardInterrupt
        signal.raise_signal(signal.SIGINT)

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
