"""How well a simulation agrees with what it stands for, as tables and in words."""

import math
from collections.abc import Mapping, Sequence
from typing import Final

from simcore.profile_measurement import Trust
from simcore.report.table import Cell, Column, TextTable
from simcore.report.wording import (
    UNKNOWN,
    latency_unit,
    number,
    percent,
    signed,
    signed_interval,
    signed_number,
    unit_named,
)

from .agreement import Agreement
from .breakdown import PARTS, Part

__all__ = ["BARS", "agreement_table", "breakdown_table", "error_interval", "part_label", "said_signed", "trust"]

BARS: Final = {
    "mean_tpot_s": 0.03,
    "mean_e2e_s": 0.05,
    "request_throughput_rps": 0.03,
    "mean_ttft_s": 0.10,
    "p99_ttft_s": 0.20,
    "cache_hit_rate": 0.03,
}
"""Errors up to these make an agreement good; up to twice as large, usable."""


def trust(found: Mapping[str, Agreement]) -> tuple[Trust, list[str]]:
    """The verdict by ``BARS``, and what is not good."""
    reasons = []
    worst = 0.0
    for name, bar in BARS.items():
        error = abs(found[name].error.value)
        if math.isnan(error):
            continue
        worst = max(worst, error / bar)
        if error > bar:
            limit = f"{100 * bar:g} points" if found[name].scale == "points" else percent(bar)
            reasons.append(
                f"{found[name].label} is off by {said_signed(found[name], found[name].error.value)} (good is {limit})"
            )
    if worst <= 1:
        return "good", reasons
    return ("usable" if worst <= 2 else "do not trust"), reasons


def agreement_table(found: Mapping[str, Agreement], title: str) -> TextTable:
    """A row a quantity: real, simulated, and the error."""
    columns = (
        Column("metric", is_number=False),
        Column("unit", is_number=False),
        Column("real"),
        Column("simulated"),
        Column("error", meaning="simulated less real, over the real value"),
        Column("95% interval", leaves=1),
    )
    rows = []
    for one in found.values():
        if math.isnan(one.real) and math.isnan(one.simulated):
            continue
        unit = unit_named(one.unit, (one.real, one.simulated))
        values = (Cell(unit.format(one.real)), Cell(unit.format(one.simulated)))
        name = "" if unit.name == "count" else unit.name
        error = Cell(said_signed(one, one.error.value), strong=True)
        rows.append((Cell(one.label), Cell(name), *values, error, Cell(error_interval(one))))
    note = "Errors of router wait are over the same statistic of E2E, as it may be 0; of shares they are in points."
    return TextTable(title, columns, tuple(rows), (note,))


def breakdown_table(parts: Sequence[Part], title: str) -> TextTable:
    """Where on a request's path mean E2E is off."""
    unit = latency_unit([part.real_s for part in parts])
    total_s = sum(part.error_s for part in parts)
    columns = (
        Column("part of mean E2E", is_number=False),
        Column("what it is", is_number=False, leaves=1, may_wrap=True),
        Column(f"real, {unit.name}"),
        Column(f"simulated, {unit.name}"),
        Column(f"error, {unit.name}"),
        Column("share of the error"),
    )
    real_s, simulated_s = sum(part.real_s for part in parts), sum(part.simulated_s for part in parts)
    rows = [(part_label(part), PARTS[part.name], part.real_s, part.simulated_s) for part in parts]
    rows.append(("mean E2E", "the sum", real_s, simulated_s))
    return TextTable(title, columns, tuple(_part_row(*row, total_s, unit.scale) for row in rows))


def part_label(part: Part) -> str:
    """``server queue`` of ``server_queue_s``."""
    return part.name.removesuffix("_s").replace("_", " ")


def said_signed(one: Agreement, error: float) -> str:
    """An error of that quantity, with its sign."""
    if math.isnan(error):
        return UNKNOWN
    if one.scale == "points":
        return f"{100 * error:+.2f} pts" if round(100 * error, 2) else "0 pts"
    return signed(error)


def error_interval(one: Agreement) -> str:
    """Its ends; empty where they are unknown."""
    low, high = one.error.low, one.error.high
    if one.scale == "points" and low == low:
        return f"{100 * low:+.2f} to {100 * high:+.2f}"
    return signed_interval(low, high)


def _part_row(
    name: str, meaning: str, real_s: float, simulated_s: float, total_s: float, scale: float
) -> tuple[Cell, ...]:
    error_s = simulated_s - real_s
    texts = (
        number(real_s * scale),
        number(simulated_s * scale),
        signed_number(error_s * scale),
        percent(error_s / total_s) if total_s else UNKNOWN,
    )
    return (Cell(name), Cell(meaning), *(Cell(text) for text in texts))
