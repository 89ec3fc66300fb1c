"""``simroute live``: the options, and what is done with them."""

import asyncio
from typing import Any

import click

from simcore.cli.group import EXIT_GATE, EXIT_INTERRUPTED
from simcore.cli.options import (
    PolicyOption,
    json_option,
    no_out_option,
    out_option,
    overrides_option,
    quiet_option,
    seed_option,
)

__all__ = ["live"]

_HELP = """Send a scenario's requests to real servers, or to emulated ones, in real time.

\b
SCENARIO and POLICY are as for `simroute sim`. The servers are one of
  --servers URL,URL,...  that run already
  --launch N             SGLang on GPUs 0 to N-1 of this machine, one each, with --model
  --emulate N            emulated at the pace of the scenario's profiles: no GPU is needed

The router is the very one that is simulated, and the run folder has the same files as a simulation's, and beside them
every event, decision and load report. A run whose load generator was late, or whose servers are gone for 30 s, is
marked as invalid, with exit code 99.

\b
Examples:
  simroute live --scenario quickstart --emulate 4
  simroute live --scenario quickstart --emulate 4 --policy round_robin --policy least_request
  simroute live --scenario my.yaml --servers http://127.0.0.1:31001,http://127.0.0.1:31002
  simroute live --scenario my.yaml --launch 2 --model meta-llama/Llama-3.1-8B-Instruct
"""


@click.command(help=_HELP, short_help="Run a scenario in real time against servers, or emulated ones.")
@click.option("--scenario", metavar="SCENARIO", required=True, help="What to send.")
@click.option(
    "--policy",
    "policies",
    metavar="POLICY",
    type=PolicyOption(),
    multiple=True,
    help="A policy to run; repeatable. Not given: the scenario's own.",
)
@click.option("--servers", metavar="URL,...", help="Servers that run already.")
@click.option("--launch", metavar="N", type=click.IntRange(min=1), help="Start SGLang on that many GPUs.")
@click.option("--emulate", metavar="N", type=click.IntRange(min=1), help="Start that many emulators.")
@click.option(
    "--speed",
    type=click.FloatRange(min=0, min_open=True),
    default=1.0,
    show_default=True,
    help="With emulators: ten times as fast with 10; results are in the profile's seconds.",
)
@click.option(
    "--backend",
    type=click.Choice(["sglang", "openai", "tgi"]),
    default="sglang",
    show_default=True,
    help="Kind of --servers.",
)
@click.option("--api-key", envvar="SIMROUTE_UPSTREAM_KEY", help="The servers' key; better in SIMROUTE_UPSTREAM_KEY.")
@click.option("--model", help="With --launch: what SGLang serves.")
@click.option("--sglang-python", default="python", help="With --launch: the Python that has SGLang.")
@click.option("--sglang-args", default="", help="With --launch: further arguments of sglang.launch_server.")
@click.option(
    "--startup-s", type=click.FloatRange(min=1), default=600.0, show_default=True, help="With --launch: until ready."
)
@click.option("--no-flush", is_flag=True, help="Leave the servers' prefix caches as they are.")
@click.option(
    "--attempts", type=click.IntRange(min=1), default=3, show_default=True, help="Most times a request is sent."
)
@seed_option
@overrides_option
@out_option
@no_out_option
@json_option
@quiet_option
@click.pass_context
def live(ctx: click.Context, /, **options: Any) -> None:
    """Run, show, and exit with what became of it."""
    given = [name for name in ("servers", "launch", "emulate") if options[name] is not None]
    if len(given) != 1:
        raise click.UsageError("give exactly one of --servers, --launch and --emulate")
    if options["speed"] != 1.0 and options["launch"] is not None:
        raise click.UsageError("--speed is for emulators")
    from .command import carry_out

    end = asyncio.run(carry_out(_command(options)))
    if end.interrupted:
        ctx.exit(EXIT_INTERRUPTED)
    if end.invalid:
        ctx.exit(EXIT_GATE)


def _command(options: dict[str, Any]) -> Any:
    from .command import LiveCommand
    from .launcher import SGLangLaunch
    from .run import LiveOptions

    words: list[str] = []
    for name in ("servers", "launch", "emulate", "speed", "backend", "model", "sglang_args", "attempts"):
        value, default = options[name], _DEFAULTS.get(name)
        if value is not None and value != default:
            words += [f"--{name.replace('_', '-')}", f"{value:g}" if isinstance(value, float) else str(value)]
    sglang = None
    if options["model"] is not None:
        arguments, startup_s = options["sglang_args"], options["startup_s"]
        sglang = SGLangLaunch(
            options["model"], python=options["sglang_python"], arguments=arguments, startup_s=startup_s
        )
    return LiveCommand(
        servers=tuple(filter(None, (options["servers"] or "").split(","))),
        sglang=sglang,
        options=LiveOptions(
            backend=options["backend"],
            api_key=options["api_key"],
            speed=options["speed"],
            max_attempts=options["attempts"],
            flush=not options["no_flush"],
        ),
        words=tuple(words + ["--no-flush"] * options["no_flush"]),
        **{name: options[name] for name in _PASSED_ON},
    )


_DEFAULTS = {"speed": 1.0, "backend": "sglang", "sglang_args": "", "attempts": 3}
_PASSED_ON = ("scenario", "policies", "seed", "overrides", "emulate", "launch", "out", "no_out", "as_json", "quiet")
