"""``simroute validate``: the options, and what is done with them."""

import asyncio
import sys
from pathlib import Path
from typing import Any

import click

from simcore.cli.group import EXIT_GATE, EXIT_INTERRUPTED
from simcore.cli.options import PolicyOption, json_option, overrides_option, quiet_option, seed_option

__all__ = ["validate"]

_HELP = """Run a scenario on servers and simulated, and tell how far the simulation is off.

\b
Every policy runs under every load, so many times, on the servers and in the simulation: the same arrivals, lengths,
prefixes and random choices. The servers are one of
  --servers URL,URL,...  real ones; the scenario's profile should be calibrated on one of them
  --emulate N            emulated at the pace of the scenario's profiles

What comes out: the error of each metric by policy and load, whether the policies are in the same order (Kendall's tau
over the pairs that differ by more than the noise between repeats), and where on a request's path the worst is off.

DIR keeps each run as it ends: the same command goes on where it was stopped, and makes only the simulations anew.

\b
GATE is METRIC>VALUE for the size of an error, tau_METRIC<1 for the order, invalid_runs>0 for live runs that prove
nothing; below LOAD, at LOAD or from LOAD after it says for which rates (or clients) it is:
  --fail-on 'mean_e2e_s>0.05' --fail-on 'p99_ttft_s>0.2 below 20' --fail-on 'tau_mean_e2e_s<1'

\b
Examples:
  simroute validate --scenario my.yaml --servers http://127.0.0.1:31001,http://127.0.0.1:31002 \\
      --policies random,least_request --rates 4,8,12 --repeats 3 --set servers.0.profile=profile.json
  simroute validate --scenario quickstart --emulate 4 --rates 30,60 --requests 300
  simroute validate --scenario node-continuous --emulate 1 --concurrency 1,4,16 --requests 24
"""


class _Numbers(click.ParamType[tuple[float, ...]]):
    """``4,8,12``."""

    name = "numbers"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[float, ...]:
        """See ``click.ParamType``."""
        if isinstance(value, tuple):
            return value
        try:
            numbers = tuple(float(part) for part in str(value).split(","))
        except ValueError:
            self.fail(f"{value!r}: give numbers as 4,8,12", param, ctx)
        if not all(0 < number < float("inf") for number in numbers):
            self.fail(f"{value!r}: each must be more than 0", param, ctx)
        return numbers


@click.command(help=_HELP, short_help="Run a scenario on servers and simulated, and tell how far the one is off.")
@click.option("--scenario", metavar="SCENARIO", required=True, help="What to run.")
@click.option("--servers", metavar="URL,...", help="Servers that run already, as many as the scenario has.")
@click.option("--emulate", metavar="N", type=click.IntRange(min=1), help="Start that many emulators.")
@click.option(
    "--speed",
    type=click.FloatRange(min=0, min_open=True),
    default=1.0,
    show_default=True,
    help="With emulators: ten times as fast with 10; results are in the profile's seconds.",
)
@click.option("--policies", "names", metavar="A,B,...", help="Policies by name. Not given: the scenario's own.")
@click.option(
    "--policy",
    "policies",
    metavar="POLICY",
    type=PolicyOption(),
    multiple=True,
    help="One more, as for `simroute sim`, where it has parameters or is a file's; repeatable.",
)
@click.option(
    "--rates", metavar="R,R,...", type=_Numbers(), help="Requests a second. Not given: as the scenario has it."
)
@click.option("--concurrency", metavar="N,N,...", type=_Numbers(), help="Clients in a closed loop, instead of rates.")
@click.option(
    "--repeats", type=click.IntRange(min=1), default=3, show_default=True, help="Runs a cell, each with a seed."
)
@click.option(
    "--requests",
    type=click.IntRange(min=1),
    help="Requests a run, in place of the scenario's; in a closed loop times the square root of the clients.",
)
@click.option("--api-key", envvar="SIMROUTE_UPSTREAM_KEY", help="The servers' key; better in SIMROUTE_UPSTREAM_KEY.")
@click.option("--fail-on", "gates", metavar="GATE", multiple=True, help="Exit with 99 if it holds; repeatable.")
@click.option(
    "--cell-profiles",
    metavar="FOLDER",
    type=click.Path(file_okay=False, exists=True, path_type=Path),
    help="Simulate each cell with FOLDER/CELL.json, the servers as they were while it ran; CELL as in DIR/cells.",
)
@click.option(
    "--draws",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    help="Simulations a cell, each with other noise in the times of steps; what counts is their mean.",
)
@click.option("--rerun-invalid", is_flag=True, help="Run cells again whose live run was invalid or lost requests.")
@click.option(
    "--out",
    metavar="DIR",
    type=click.Path(file_okay=False, path_type=Path),
    help="The folder of this grid.  [default: results/validate-SCENARIO]",
)
@seed_option
@overrides_option
@json_option
@quiet_option
@click.pass_context
def validate(ctx: click.Context, /, **options: Any) -> None:
    """Run, show, and exit with what became of it."""
    if (options["servers"] is None) == (options["emulate"] is None):
        raise click.UsageError("give exactly one of --servers and --emulate")
    if options["rates"] is not None and options["concurrency"] is not None:
        raise click.UsageError("--rates and --concurrency exclude each other")
    if options["speed"] != 1.0 and options["emulate"] is None:
        raise click.UsageError("--speed is for emulators")
    if options["cell_profiles"] is not None and options["emulate"] is not None:
        raise click.UsageError("--cell-profiles is for real servers: emulators have the scenario's")
    if any(not clients.is_integer() for clients in options["concurrency"] or ()):
        raise click.UsageError("--concurrency: clients come in whole numbers")
    from .command import carry_out

    end = asyncio.run(carry_out(_command(options)))
    if end.interrupted:
        ctx.exit(EXIT_INTERRUPTED)
    if end.gates_failed:
        ctx.exit(EXIT_GATE)


def _command(options: dict[str, Any]) -> Any:
    from live.replay.run import LiveOptions

    from .command import ValidateCommand
    from .grid import Load

    loads = tuple(Load("rate", rate) for rate in options["rates"] or ())
    loads += tuple(Load("concurrency", clients) for clients in options["concurrency"] or ())
    names: tuple[tuple[str, dict[str, object]], ...] = tuple(
        (name, {}) for name in filter(None, (options["names"] or "").split(","))
    )
    return ValidateCommand(
        policies=(*names, *options["policies"]),
        loads=loads or (Load("as is"),),
        servers=tuple(filter(None, (options["servers"] or "").split(","))),
        options=LiveOptions(api_key=options["api_key"], speed=options["speed"]),
        words=("simroute", *_without_key(sys.argv[1:])),
        **{name: options[name] for name in _PASSED_ON},
    )


def _without_key(words: list[str]) -> list[str]:
    """The command line as it was given, but for the key."""
    kept: list[str] = []
    for word in words:
        if kept and kept[-1] == "--api-key":
            word = "KEY"
        kept.append("--api-key=KEY" if word.startswith("--api-key=") else word)
    return kept


_PASSED_ON = (
    "scenario",
    "repeats",
    "requests",
    "seed",
    "overrides",
    "emulate",
    "gates",
    "rerun_invalid",
    "cell_profiles",
    "draws",
    "out",
    "as_json",
    "quiet",
)
