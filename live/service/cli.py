"""``simroute serve``: the options, and what is done with them."""

import asyncio
from pathlib import Path

import click

__all__ = ["serve"]

_HELP = """Route clients' requests to the servers of a file, as a streaming reverse proxy.

\b
Clients ask it as they would ask a server: /generate, /v1/completions, /v1/chat/completions, /v1/models.
A least file:
  policy: least_request
  servers:
    - url: http://127.0.0.1:31001
    - url: http://127.0.0.1:31002

/metrics is for Prometheus, /dashboard for a browser, /admin changes servers and policy while requests run. Keys come
from environment variables that the file names. SIGTERM drains: what is under way ends, what comes is answered with 503.

\b
Examples:
  simroute serve --config servers.yaml
  simroute serve --config servers.yaml --port 8000 --policy power_of_two
"""


@click.command(help=_HELP, short_help="Route requests to servers, as a streaming reverse proxy.")
@click.option(
    "--config",
    metavar="FILE",
    type=click.Path(dir_okay=False, path_type=Path),
    required=True,
    help="The servers, and how to route.",
)
@click.option("--host", help="Where to listen; in place of the file's.")
@click.option("--port", type=click.IntRange(0, 65535), help="In place of the file's; 0: any free one.")
@click.option("--policy", help="A policy's name; in place of the file's.")
@click.option(
    "--event-log",
    metavar="FILE",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write every event of the router there; it grows with each request.",
)
@click.pass_context
def serve(
    ctx: click.Context, config: Path, host: str | None, port: int | None, policy: str | None, event_log: Path | None
) -> None:
    """Serve until stopped."""
    from .config import load_config
    from .serving import serve as run

    loaded = load_config(config, {"host": host, "port": port, "policy": policy})
    with _runner() as runner:
        cut = runner.run(run(loaded, event_log))
    if cut:
        click.echo(f"simroute: {cut} requests were cut", err=True)
        ctx.exit(1)


def _runner() -> asyncio.Runner:
    """With uvloop where it is installed."""
    try:
        import uvloop
    except ImportError:
        return asyncio.Runner()
    return asyncio.Runner(loop_factory=uvloop.new_event_loop)
