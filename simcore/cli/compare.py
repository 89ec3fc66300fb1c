"""``simroute compare``: the options, and what is done with them."""

from pathlib import Path

import click

from .options import json_option, no_out_option, out_option

__all__ = ["compare"]


@click.command(short_help="Put any runs side by side, simulated or live.")
@click.argument("runs", metavar="RUN...", nargs=-1, type=click.Path(path_type=Path))
@click.option(
    "--all", "everything", is_flag=True, help="Every metric in the terminal too; JSON and page always have all."
)
@out_option
@no_out_option
@json_option
def compare(runs: tuple[Path, ...], everything: bool, out: Path, no_out: bool, as_json: bool) -> None:
    """Put any runs side by side: every metric with its difference from the first run and the interval of that.

    \b
    RUN is a run's folder, or a comparison's, which stands for all its runs. They may be simulated or live, of one
    scenario or of several. Runs of the same requests are compared request by request.
      simroute compare results/*-chat-least_request results/*-chat-random
      simroute compare LIVE SIMULATED --json --no-out

    The page has distributions and time series laid over each other.
    """
    if not runs:
        raise click.UsageError("give the folders of two runs or more, or of a comparison")
    from .run_compare import CompareRequest, carry_out

    carry_out(CompareRequest(runs, everything, out, no_out, as_json))
