"""What ``simroute whatif`` does: reads the run, simulates it as it was and otherwise, writes and shows it."""

import json
import shlex
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import click
from rich.console import Console
from rich.text import Text

from simcore.report import print_comparison, print_table
from simcore.run_folder import load_run, write_document, write_plots
from simcore.scenario import PolicySpec
from simcore.staging import check_out, slug, staged_folder
from simcore.whatif.counterfactual import Counterfactual, what_if
from simcore.whatif.page import reproduction_tables, trust_line, whatif_page, whatif_plots

from .run_sim import policy_word

__all__ = ["WhatIfRequest", "carry_out"]


@dataclass(frozen=True, slots=True)
class WhatIfRequest:
    """The options of ``simroute whatif``."""

    run: Path
    policies: tuple[tuple[str, dict[str, object]], ...]
    overrides: tuple[str, ...]
    profile: str | None
    out: Path
    no_out: bool
    as_json: bool


def carry_out(request: WhatIfRequest) -> None:
    """Simulate and show. Raises UserError and PolicyError; then nothing was written."""
    if not request.no_out:
        check_out(request.out)
    run = load_run(request.run)
    policies = [PolicySpec(name=name, params=params) for name, params in request.policies]
    found = what_if(run, policies, request.overrides, request.profile)
    folder = None if request.no_out else _write(request, policies, found, run.config)
    if request.as_json:
        document = {**found.to_dict(), "folder": str(folder) if folder else None}
        click.echo(json.dumps(document, indent=2, allow_nan=False, ensure_ascii=False))
        return
    console = Console()
    for table in reproduction_tables(found):
        print_table(console, table)
    console.print()
    console.print(Text(trust_line(found), style="bold"))
    if found.alternatives:
        print_comparison(console, found.comparison)
    if folder is not None:
        console.print(f"\nReport: {folder / 'report.html'}", soft_wrap=True, highlight=False, markup=False)


def _write(request: WhatIfRequest, policies: list[PolicySpec], found: Counterfactual, config: str) -> Path:
    words = ["simroute", "whatif", str(request.run)]
    words += [word for policy in policies for word in ("--policy", policy_word(policy))]
    words += [word for override in request.overrides for word in ("--set", override)]
    words += ["--profile", request.profile] if request.profile else []
    drawn = whatif_plots(found)
    page = whatif_page(found, drawn, config=config, command=shlex.join(words))
    name = f"{datetime.now(UTC):%Y%m%d-%H%M%S}-{slug(found.real.summary.scenario)}-whatif"
    with staged_folder(request.out, name) as folder:
        write_document(folder.staging / "whatif.json", found.to_dict())
        (folder.staging / "report.html").write_text(page, encoding="utf-8")
        write_plots(folder.staging / "plots", drawn)
    return folder.final
