"""``simroute emulate``: the options, and what is done with them."""

import asyncio
from pathlib import Path
from typing import Any

import click

__all__ = ["emulate"]

_HELP = """Serve SGLang's protocol without a GPU, at the pace of a service profile; or OpenAI's, as a remote API.

\b
PROFILE is a bundled one's or API's name, or the path of a .json file (what `simroute calibrate` writes).

The servers' scheduler, KV cache and step times are the simulator's own, on the wall clock; the tokens are made up.
Every answer says that it comes from an emulator. The first line on stdout is JSON with the servers' addresses.

\b
Examples:
  simroute emulate --profile llama-3.1-8b-h100 --port 31001
  simroute emulate --profile llama-3.1-8b-h100 --port 31001 --count 4 --speed 10
"""


@click.command(help=_HELP, short_help="Serve SGLang's protocol at a profile's pace, without a GPU.")
@click.option("--profile", metavar="PROFILE", required=True, help="The server to emulate.")
@click.option("--host", default="127.0.0.1", show_default=True, help="Where to listen.")
@click.option("--port", type=click.IntRange(0, 65535), default=30000, show_default=True, help="0: any free one.")
@click.option(
    "--count", type=click.IntRange(min=1), default=1, show_default=True, help="Servers, on ports from PORT on."
)
@click.option(
    "--speed",
    type=click.FloatRange(min=0, min_open=True),
    default=1.0,
    show_default=True,
    help="10: ten times as fast.",
)
@click.option(
    "--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Of noise and of answers' tokens."
)
@click.option("--incremental", is_flag=True, help="As SGLang's --incremental-streaming-output.")
@click.option("--api-key", help="As SGLang's --api-key.")
def emulate(profile: str, **options: Any) -> None:
    """Serve until stopped."""
    from simcore.remote_profile import load_profile

    from .serving import Emulation
    from .serving import emulate as serve

    asyncio.run(serve(Emulation(load_profile(profile, Path()), **options)))
