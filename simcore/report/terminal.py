"""The results in the terminal."""

import re
from typing import Literal

from rich import box
from rich.cells import cell_len
from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from simcore.report.comparison import Comparison
from simcore.report.model_tables import comparison_models, model_tables
from simcore.report.table import Cell, TextTable
from simcore.report.tables import comparison_table, figures, latency_table, server_table
from simcore.report.wording import verdict, warnings

__all__ = ["print_comparison", "print_run", "print_table"]

_SERVERS_SHOWN = 16
_UNLIMITED = 10_000


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
    print_table(console, latency_table(contender, comparison.confidence))
    for models in model_tables([(summary.policy, summary)]):
        print_table(console, models)
    print_table(console, server_table(summary, _SERVERS_SHOWN))
    _print_warnings(console, comparison)


def print_comparison(console: Console, comparison: Comparison) -> None:
    """Several policies: the table, best first, the verdict in sentences, warnings."""
    console.print()
    console.print(Text.assemble((comparison.scenario, "bold"), f"  {_seeds(comparison)}"))
    print_table(console, comparison_table(comparison), detailed=("vs best", comparison.rank_by.label))
    for models in comparison_models(comparison):
        print_table(console, models)
    console.print()
    for line in verdict(comparison):
        console.print(Text(line, style="bold" if line.startswith(comparison.best.policy) else ""))
    _print_warnings(console, comparison)


def _seeds(comparison: Comparison) -> str:
    seeds = ", ".join(map(str, comparison.seeds))
    return f"seeds {seeds}" if len(comparison.seeds) > 1 else f"seed {seeds}"


def print_table(console: Console, source: TextTable, detailed: tuple[str, ...] = ()) -> None:
    """``detailed`` are the headings (up to the unit) of the columns that show their cells' details."""
    console.print()
    console.print(_fitting(console, source, detailed))
    for note in source.notes:
        console.print(Padding(Text(note, style="dim"), (0, 0, 0, 1)))


def _fitting(console: Console, source: TextTable, detailed: tuple[str, ...]) -> Table:
    """The table with as many columns as the terminal has room for."""
    unlimited = console.options.update(width=_UNLIMITED)
    for gone in range(max(column.leaves for column in source.columns) + 1):
        shown = [i for i, column in enumerate(source.columns) if not 0 < column.leaves <= gone]
        table = _table(source, shown, detailed)
        if console.measure(table, options=unlimited).minimum <= console.width:
            break
    return table


def _table(source: TextTable, shown: list[int], detailed: tuple[str, ...]) -> Table:
    table = Table(
        title=Text(source.title, "bold"),
        title_justify="left",
        box=box.SIMPLE_HEAD,
        show_edge=False,
        pad_edge=False,
        collapse_padding=True,
    )
    cells = []
    for i in shown:
        column = source.columns[i]
        heading = Text(re.sub(r",? ", "\n", column.heading) if column.is_number else column.heading)
        cells.append([_cell(row[i], column.heading.partition(",")[0] in detailed) for row in source.rows])
        justify: Literal["right", "left"] = "right" if column.is_number else "left"
        # rich holds that a cell can be as narrow as its longest word, also where it must not wrap.
        width = max(_width(text.plain, column.may_wrap) for text in (heading, *cells[-1]))
        table.add_column(heading, justify=justify, min_width=width, overflow="fold", no_wrap=not column.may_wrap)
    for row in zip(*cells, strict=True):
        table.add_row(*row)
    return table


def _width(text: str, may_wrap: bool) -> int:
    return max(map(cell_len, text.split() if may_wrap else text.splitlines()), default=0)


def _cell(cell: Cell, show_detail: bool) -> Text:
    text = Text(cell.text, style="bold" if cell.strong else "")
    if show_detail and cell.detail:
        text.append(f"\n{cell.detail}", style="dim")
    return text


def _print_warnings(console: Console, comparison: Comparison) -> None:
    for contender in comparison.contenders:
        for run in contender.runs:
            if run.summary.interrupted:
                where = f"{contender.policy}, seed {run.summary.seed}"
                console.print(Text(f"interrupted ({where}): these are partial results", style="yellow"))
    for where, warning in warnings(comparison):
        console.print(Text(f"warning ({where}): {warning}", style="yellow"))
