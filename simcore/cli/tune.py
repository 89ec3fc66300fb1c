"""``simroute tune``: the options, and what is done with them."""

from typing import Any

import click

from .duration import DurationOption
from .group import EXIT_INTERRUPTED
from .options import PolicyOption, SeedsOption, json_option, no_out_option, out_option, overrides_option, quiet_option

__all__ = ["tune"]

_HELP = """Search a policy's parameters in simulation, and test what was found on seeds that the search did not see.

\b
SCENARIO is the name of a bundled one or the path of a .yaml file.
POLICY is a name or FILE.py:CLASS. Parameters given with it stay; the others that say where to look are searched.
METRIC is as in summary.json: p99_ttft_s, mean_e2e_s, goodput_rps, cache_hit_rate, lost_share, ...

The default is the first trial; optuna proposes the others (pip install 'simroute[tune]'). A setting that loses more
requests than the default is out. The best is held against the default on the held-back seeds, pair by pair: the
last line says whether there is a gain. Ctrl-C keeps what was found so far.

\b
Examples:
  simroute tune --scenario mixed-gpus --policy parameter_aware --objective p99_ttft_s
  simroute tune --scenario shared-prefix --policy cache_aware --objective mean_e2e_s --budget 2m --trials 200
  simroute tune --scenario overload --policy least_request --controller aimd_ttft --objective goodput_rps
"""


@click.command(help=_HELP, short_help="Search a policy's parameters in simulation, and test the gain honestly.")
@click.option("--scenario", metavar="SCENARIO", required=True, help="What to simulate.")
@click.option("--policy", metavar="POLICY", type=PolicyOption(), required=True, help="Whose parameters are searched.")
@click.option(
    "--controller",
    metavar="CONTROLLER",
    type=PolicyOption(),
    help="A controller, whose parameters are searched too. Not given: the scenario's, as it is.",
)
@click.option("--objective", metavar="METRIC", required=True, help="What is to become better.")
@click.option(
    "--maximize/--minimize", default=None, help="Which way is better. Not given: as the metric has it, if it has."
)
@click.option("--trials", type=click.IntRange(min=1), help="Settings to try.  [default: 50, or as the budget allows]")
@click.option("--budget", metavar="TIME", type=DurationOption(), help="Time to search, as 90s, 2m or 1h.")
@click.option(
    "--seeds", metavar="A..B|A,B,...", type=SeedsOption(), default="0..2", show_default=True, help="For the search."
)
@click.option(
    "--held-back-seeds",
    metavar="A..B|A,B,...",
    type=SeedsOption(),
    default="1000..1009",
    show_default=True,
    help="For the test: at least two, none of them of the search.",
)
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Of what is proposed.")
@overrides_option
@out_option
@no_out_option
@json_option
@quiet_option
@click.option("--jobs", "-j", type=click.IntRange(min=1), help="Processes at a time. Not given: one a processor.")
@click.pass_context
def tune(ctx: click.Context, /, **options: Any) -> None:
    """Search, test, show, and exit with what became of it."""
    from .run_tune import TuneRequest, carry_out

    if carry_out(TuneRequest(**options)):
        ctx.exit(EXIT_INTERRUPTED)
