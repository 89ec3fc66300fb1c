"""The tables of a comparison of runs, for the terminal and the page."""

import math
from typing import Final

from simcore.report.table import Cell, Column, TextTable
from simcore.report.wording import UNKNOWN, Unit, number, signed, signed_interval, signed_number, unit_named

from .side_by_side import Row, SideBySide, Versus

__all__ = ["change", "metric_table", "run_table"]

_LEFT_OUT: Final = ("_server_ttft_s", "_server_latency_s", "_itl_s", "p95_")


def run_table(compared: SideBySide) -> TextTable:
    """What each run is."""
    columns = (
        Column("run", is_number=False, may_wrap=True),
        Column("world", is_number=False),
        Column("scenario", is_number=False, leaves=2, may_wrap=True),
        Column("seed", leaves=1),
        Column("requests"),
        Column("measured", leaves=4),
        Column("finished"),
        Column("servers", leaves=3),
        Column("duration, s"),
    )
    rows = []
    for side in compared.sides:
        summary = side.summary
        cells = (
            side.label,
            {"sim": "simulated", "live": "live"}[summary.kind],
            summary.scenario,
            str(summary.seed),
            f"{summary.requests:,}",
            f"{summary.measured_requests:,}",
            f"{summary.counts['finished']:,}",
            str(len(summary.servers)),
            number(summary.duration_s),
        )
        rows.append(tuple(Cell(text) for text in cells))
    return TextTable("Runs", columns, tuple(rows))


def metric_table(compared: SideBySide, *, everything: bool) -> TextTable:
    """A row a metric; without ``everything`` those that most questions need."""
    first, *others = compared.sides
    columns = [Column("metric", is_number=False), Column("unit", is_number=False), Column(first.label)]
    for leaves, side in enumerate(others, 1):
        columns += [
            Column(side.label),
            Column("difference", meaning=f"from {first.label}; n.s.: not significant"),
            Column(f"{compared.confidence:.0%} interval", meaning="of the difference", leaves=leaves),
        ]
    shown = [row for row in compared.rows if everything or _is_shown(row.quantity.name)]
    return TextTable("Metrics", tuple(columns), tuple(_row(row) for row in shown), _notes(compared))


def change(value: float, versus: Versus, unit: Unit) -> tuple[str, str]:
    """A difference and its interval in words: relative where it can be, else in the metric's unit."""
    relative, absolute = versus.difference.relative, versus.difference.absolute
    if math.isnan(value) or math.isnan(absolute.value):
        return UNKNOWN, ""
    if unit.name == "%":
        text = _points(absolute.value)
        ends = f"{_points(absolute.low)} to {_points(absolute.high)}" if absolute.low == absolute.low else ""
    elif math.isfinite(relative.value):
        text, ends = signed(relative.value), signed_interval(relative.low, relative.high)
    else:
        text = signed_number(absolute.value * unit.scale)
        low, high = (signed_number(end * unit.scale) for end in (absolute.low, absolute.high))
        ends = f"{low} to {high}" if absolute.low == absolute.low else ""
    told = versus.significant or math.isnan(versus.p_value)
    return (text if told else f"{text} n.s."), ends


def _points(share: float) -> str:
    return f"{100 * share:+.2f} pts" if share else "0 pts"


def _is_shown(name: str) -> bool:
    return not any(part in name for part in _LEFT_OUT)


def _row(row: Row) -> tuple[Cell, ...]:
    quantity = row.quantity
    unit = unit_named(quantity.unit, row.values)
    cells = [Cell(quantity.label, quantity.meaning), Cell("" if unit.name == "count" else unit.name)]
    cells.append(Cell(unit.format(row.values[0])))
    for value, versus in zip(row.values[1:], row.versus, strict=True):
        text, ends = change(value, versus, unit)
        cells += [Cell(unit.format(value)), Cell(text, strong=versus.significant), Cell(ends)]
    return tuple(cells)


def _notes(compared: SideBySide) -> tuple[str, ...]:
    first, *others = compared.sides
    notes = [f"Differences are from {first.label}; latencies from arrival at the router, of finished requests."]
    alike = [side.label for side, paired in zip(others, compared.paired, strict=True) if paired]
    apart = [side.label for side, paired in zip(others, compared.paired, strict=True) if not paired]
    if alike:
        notes.append(f"The same requests, compared one by one: {', '.join(alike)}.")
    if apart:
        notes.append(f"Other requests, so that intervals are of two independent runs: {', '.join(apart)}.")
    correction = ", with Holm's correction over the runs" if len(others) > 1 else ""
    notes.append(f"n.s.: not significantly different at 5%{correction}; no interval: one number a run.")
    return tuple(notes)
