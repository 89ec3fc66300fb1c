"""What ``simroute compare`` does: reads the runs, compares them, writes and shows it."""

import json
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import click
from rich.console import Console
from rich.text import Text

from simcore.compare.loading import load_runs, sides_of
from simcore.compare.overlay import overlays
from simcore.compare.page import findings, sides_page, warnings_of
from simcore.compare.side_by_side import SideBySide, side_by_side
from simcore.compare.tables import metric_table, run_table
from simcore.errors import UserError
from simcore.report import print_table
from simcore.report.model_tables import model_tables
from simcore.run_folder import StoredRun, write_document, write_plots
from simcore.staging import check_out, staged_folder

__all__ = ["CompareRequest", "carry_out"]


@dataclass(frozen=True, slots=True)
class CompareRequest:
    """The options of ``simroute compare``."""

    runs: tuple[Path, ...]
    everything: bool
    out: Path
    no_out: bool
    as_json: bool


def carry_out(request: CompareRequest) -> None:
    """Compare and show. Raises UserError; then nothing was written."""
    if not request.no_out:
        check_out(request.out)
    runs = load_runs(request.runs)
    if len(runs) < 2:
        raise UserError(f"{request.runs[0]} is one run: give two or more")
    compared = side_by_side(sides_of(runs))
    folder = None if request.no_out else _write(request, runs, compared)
    if request.as_json:
        document = {**compared.to_dict(), "folder": str(folder) if folder else None}
        click.echo(json.dumps(document, indent=2, allow_nan=False, ensure_ascii=False))
        return
    _show(compared, folder, everything=request.everything)


def _write(request: CompareRequest, runs: Sequence[StoredRun], compared: SideBySide) -> Path:
    drawn = overlays(compared.sides)
    command = shlex.join(["simroute", "compare", *map(str, request.runs)])
    page = sides_page(compared, drawn, configs=[run.config for run in runs], command=command)
    with staged_folder(request.out, f"{datetime.now(UTC):%Y%m%d-%H%M%S}-compare") as folder:
        write_document(folder.staging / "compare.json", compared.to_dict())
        (folder.staging / "report.html").write_text(page, encoding="utf-8")
        write_plots(folder.staging / "plots", drawn)
    return folder.final


def _show(compared: SideBySide, folder: Path | None, *, everything: bool) -> None:
    console = Console()
    print_table(console, run_table(compared))
    print_table(console, metric_table(compared, everything=everything))
    for models in model_tables([(side.label, side.summary) for side in compared.sides], "run"):
        print_table(console, models)
    console.print()
    for line in findings(compared):
        console.print(Text(line, style="bold"))
    for warning in warnings_of(compared):
        console.print(Text(f"warning: {warning}", style="yellow"))
    if folder is not None:
        console.print(f"\nReport: {folder / 'report.html'}", soft_wrap=True, highlight=False, markup=False)
