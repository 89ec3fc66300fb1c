"""``simroute calibrate``: the options. What they do is in ``commands.py``."""

import sys
from pathlib import Path
from typing import Any

import click

from simcore.cli.duration import DurationOption
from simcore.cli.group import EXIT_INTERRUPTED

__all__ = ["calibrate"]

_FILE = click.Path(dir_okay=False, path_type=Path)
_FOLDER = click.Path(file_okay=False, path_type=Path)


@click.command(short_help="Measure a server, or import published step times, and write its profile.")
@click.argument("sglang_flags", nargs=-1, type=click.UNPROCESSED)
@click.option("--url", metavar="URL", help="A running SGLang server.")
@click.option("--launch", metavar="MODEL", help="Start a server of this model first; its flags follow after --.")
@click.option("--preset", "presets", metavar="NAME", multiple=True, help="Launch a preset; repeatable, 'all' for all.")
@click.option("--presets", "presets_file", type=_FILE, help="YAML file with the presets.  [default: presets.yaml]")
@click.option("--python", metavar="PATH", help="Python that has SGLang, for --launch.  [default: this one]")
@click.option("--ready-timeout", type=DurationOption(), default="15m", show_default=True, help="For the model to load.")
@click.option("--api-key-env", metavar="NAME", help="Environment variable with the server's API key.")
@click.option("--budget", type=DurationOption(), default="5m", show_default=True, help="Most time to measure.")
@click.option("--allow-busy", is_flag=True, help="Measure although other requests run on the server.")
@click.option("--resume", type=_FOLDER, help="Go on from the samples in this folder.")
@click.option("--from-grid", type=_FILE, metavar="CSV", help="Import a grid of step times instead.")
@click.option("--from-layers", type=_FOLDER, metavar="DIR", help="Import tables of layer times instead.")
@click.option("--from-aiconfigurator", is_flag=True, help="Ask aiconfigurator (an extra) for step times instead.")
@click.option("--from-run", type=_FOLDER, metavar="RUN_DIR", help="Refit a profile from a run's records instead.")
@click.option("--profile", metavar="PROFILE", help="For --from-run: the profile to refit.  [default: the run's]")
@click.option(
    "--watch", type=DurationOption(), metavar="EVERY", help="For --from-run: look for a newer run at this interval."
)
@click.option("--max-drift", type=float, default=0.1, show_default=True, help="For --from-run: warn beyond this share.")
@click.option("--model", metavar="MODEL", help="For --from-grid and --from-aiconfigurator.")
@click.option("--system", metavar="SYSTEM", help="For the same: a100_sxm, h100_sxm, h200_sxm or l40s.")
@click.option("--backend", default="sglang", show_default=True, help="For the same: the engine.")
@click.option("--name", help="The profile's name.  [default: from the model]")
@click.option("--gpu", help="What the server runs on, for the record.")
@click.option("--out", type=_FOLDER, help="Folder for the results.  [default: results/<time>-calibrate-<name>]")
@click.option("--quiet", is_flag=True, help="No progress.")
def calibrate(**options: Any) -> None:
    """Write the profile of a server: measured, or imported.

    \b
    A running server, or one that is started for it (flags of SGLang after --):
      simroute calibrate --url http://localhost:30000 --budget 5m
      simroute calibrate --launch meta-llama/Llama-3.1-8B -- --mem-fraction-static 0.8
      simroute calibrate --presets presets.yaml --preset bf16 --preset fp8
    Published step times:
      simroute calibrate --from-layers rtx4090-llama31-8b
      simroute calibrate --from-grid grid.csv --model llama-3.1-8b --system h100_sxm
      simroute calibrate --from-aiconfigurator --model meta-llama/Meta-Llama-3.1-8B --system h100_sxm
    The records of a run:
      simroute calibrate --from-run results/20250101-120000-chat-least_request

    The results are samples.jsonl, profile.json, report.html and plots/; a scenario names the profile's path.
    """
    from .commands import carry_out

    if carry_out(options, sys.argv).interrupted:
        raise SystemExit(EXIT_INTERRUPTED)
