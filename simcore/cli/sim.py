"""``simroute sim``: the options, and what is done with them."""

from typing import Any

import click

from .group import EXIT_GATE, EXIT_INTERRUPTED
from .options import (
    PolicyOption,
    SeedsOption,
    json_option,
    no_out_option,
    out_option,
    overrides_option,
    quiet_option,
    seed_option,
)

__all__ = ["sim"]

_HELP = """Simulate a scenario under one or several routing policies and compare them.

\b
SCENARIO is the name of a bundled one (`simroute scenarios` lists them) or the path of a .yaml file.
POLICY is a name (`simroute policies`), FILE.py:CLASS, or either with parameters: parameter_aware:queue_weight=2.
METRIC is as in summary.json: p99_ttft_s, mean_e2e_s, goodput_rps, slo_attainment, cache_hit_rate, ...

Every policy sees the same requests. Results go to the terminal and to a new folder in DIR.
Ctrl-C ends the runs with what they have; partial results are written and marked.

\b
Examples:
  simroute sim --scenario quickstart
  simroute sim --scenario quickstart --policy round_robin --policy least_request --seeds 0..4
  simroute sim --scenario my.yaml --set workload.arrivals.rate_rps=20 --set servers.0.count=8
  simroute sim --scenario my.yaml --policy my_policy.py:MyPolicy --json --no-out
  simroute sim --scenario quickstart --policy least_request --fail-on 'p99_ttft_s>0.2'
"""


@click.command(help=_HELP, short_help="Simulate a scenario and compare routing policies.")
@click.option("--scenario", metavar="SCENARIO", required=True, help="What to simulate.")
@click.option(
    "--policy",
    "policies",
    metavar="POLICY",
    type=PolicyOption(),
    multiple=True,
    help="A policy to compare; repeatable. Not given: the scenario's own.",
)
@seed_option
@click.option("--seeds", metavar="A..B|A,B,...", type=SeedsOption(), help="Several seeds, for intervals over them.")
@overrides_option
@out_option
@no_out_option
@click.option("--rank-by", metavar="METRIC", help="Best first by it. Not given: goodput with an SLO, else mean E2E.")
@json_option
@quiet_option
@click.option("--exact-steps", is_flag=True, help="Simulate every decode step by itself: slow, for checking.")
@click.option(
    "--fail-on",
    "gates",
    metavar="METRIC>VALUE",
    multiple=True,
    help="Exit with 99 if it holds for any policy; signs are > >= < <=; repeatable.",
)
@click.option("--jobs", "-j", type=click.IntRange(min=1), help="Processes at a time. Not given: one a processor.")
@click.pass_context
def sim(ctx: click.Context, /, seed: int | None, seeds: tuple[int, ...] | None, **options: Any) -> None:
    """Run the experiment, show it, and exit with what became of it."""
    if seed is not None and seeds is not None:
        raise click.UsageError("--seed and --seeds exclude each other")
    from .run_sim import Request, carry_out

    end = carry_out(Request(seeds=(seed,) if seed is not None else seeds, **options))
    if end.interrupted:
        ctx.exit(EXIT_INTERRUPTED)
    if end.gates_failed:
        ctx.exit(EXIT_GATE)
