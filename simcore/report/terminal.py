"""The results in the terminal."""

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from simcore.report.comparison import Comparison, Contender
from simcore.report.tables import Cell, TextTable, comparison_table, figures, latency_table, server_table
from simcore.report.wording import verdict

__all__ = ["print_comparison", "print_run"]

_SERVERS_SHOWN = 16


def print_run(console: Console, comparison: Comparison) -> None:
    """One policy: key figures, latencies, servers of the first seed, warnings."""
    contender = comparison.best
    summary = contender.runs[0].summary
    console.print()
    console.print(
        Text.assemble((summary.scenario, "bold"), "  ", (summary.policy, "bold cyan"), f"  {_seeds(comparison)}")
    )
    grid = Table.grid(padding=(0, 2))
    for name, value, remark in figures(summary):
        grid.add_row(Text(name), Text(value, style="bold", justify="right"), Text(remark, style="dim"))
    console.print(grid)
    console.print(_table(latency_table(contender, comparison.confidence), details=False))
    console.print(_table(server_table(summary, _SERVERS_SHOWN), details=False))
    _print_warnings(console, contender)


def print_comparison(console: Console, comparison: Comparison) -> None:
    """Several policies: the table, best first, the verdict in sentences, warnings."""
    console.print()
    console.print(Text.assemble((comparison.scenario, "bold"), f"  {_seeds(comparison)}"))
    console.print(_table(comparison_table(comparison), details=True))
    for line in verdict(comparison):
        console.print(Text(line, style="bold" if line.startswith(comparison.best.policy) else ""))
    for contender in comparison.contenders:
        _print_warnings(console, contender)


def _seeds(comparison: Comparison) -> str:
    seeds = ", ".join(map(str, comparison.seeds))
    return f"seeds {seeds}" if len(comparison.seeds) > 1 else f"seed {seeds}"


def _table(source: TextTable, *, details: bool) -> Table:
    table = Table(
        title=escape(source.title),
        title_justify="left",
        title_style="bold",
        caption=escape("\n".join(source.notes)),
        caption_justify="left",
        box=box.SIMPLE_HEAD,
    )
    for column in source.columns:
        table.add_column(escape(column.heading), justify="right" if column.is_number else "left")
    for row in source.rows:
        table.add_row(*(_cell(cell, details=details and index in (2, 3)) for index, cell in enumerate(row)))
    return table


def _cell(cell: Cell, *, details: bool) -> Text:
    text = Text(cell.text, style="bold" if cell.strong else "")
    if details and cell.detail:
        text.append(f"\n{cell.detail}", style="dim")
    return text


def _print_warnings(console: Console, contender: Contender) -> None:
    for run in contender.runs:
        where = f"{contender.policy}, seed {run.summary.seed}"
        if run.summary.interrupted:
            console.print(Text(f"interrupted ({where}): these are partial results", style="yellow"))
        for warning in run.summary.warnings:
            console.print(Text(f"warning ({where}): {warning}", style="yellow"))
