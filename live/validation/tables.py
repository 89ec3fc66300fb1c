"""The tables of a validation, for the terminal and the page."""

import math
from typing import Final

import numpy as np

from simcore.compare.agreement import AGREEMENTS, Agreement
from simcore.compare.agreement_tables import error_interval, said_signed
from simcore.compare.quantities import QUANTITIES
from simcore.report.table import Cell, Column, TextTable
from simcore.report.wording import UNKNOWN, number, percent, unit_named

from .findings import Group, Validation, counts

__all__ = ["count_table", "error_table", "order_table", "overview_table"]

_IN_ROW: Final = (
    "mean_ttft_s",
    "p99_ttft_s",
    "mean_tpot_s",
    "mean_e2e_s",
    "p99_e2e_s",
    "mean_router_wait_s",
    "request_throughput_rps",
    "cache_hit_rate",
)


def overview_table(validation: Validation) -> TextTable:
    """A row a metric: how far off it is on average and at worst, and where that is."""
    columns = (
        Column("metric", is_number=False),
        Column("mean error", meaning="its size, averaged over policies and loads"),
        Column("bias", meaning="the mean of the errors with their signs: simulated less real"),
        Column("worst error"),
        Column("worst in", is_number=False, may_wrap=True),
    )
    rows = []
    for name in AGREEMENTS:
        found = [group.agreements[name] for group in validation.groups]
        errors = np.array([one.error.value for one in found])
        known = errors[~np.isnan(errors)]
        if not known.size:
            continue
        worst = validation.worst(name)
        cells = (
            Cell(found[0].label),
            Cell(_said(found[0], float(np.abs(known).mean()))),
            Cell(said_signed(found[0], float(known.mean()))),
            Cell(_own(worst.agreements[name]), strong=True),
            Cell(str(worst)),
        )
        rows.append(cells)
    notes = (
        "Errors are simulated less real, over the real value; of router wait over the same statistic of E2E, as it may "
        "be 0; of cache hits in points; E2E over time is the mean distance of the two courses.",
    )
    return TextTable("How far the simulation is off", columns, tuple(rows), notes)


def error_table(validation: Validation) -> TextTable:
    """A row a policy and load: the errors of what matters most, with their intervals."""
    headings = {name: validation.groups[0].agreements[name].label for name in _IN_ROW}
    columns = (
        Column("policy", is_number=False, may_wrap=True),
        Column("load", is_number=False),
        Column("repeats", leaves=2),
        *(
            Column(headings[name], leaves=1 if name in ("mean_router_wait_s", "cache_hit_rate") else 0)
            for name in _IN_ROW
        ),
    )
    rows = [
        (
            Cell(group.policy),
            Cell(str(group.load)),
            Cell(str(len(group.pairings))),
            *(Cell(_own(group.agreements[name]), error_interval(group.agreements[name])) for name in _IN_ROW),
        )
        for group in validation.groups
    ]
    note = "Errors, simulated less real; averages over the repeats."
    drawn = validation.groups[0].draws > 1
    small = "95% intervals, " + ("for what chance makes of a run, by the draws." if drawn else "by the repeats.")
    return TextTable("Errors by policy and load", columns, tuple(rows), (note,), f"Small print: {small}")


def order_table(validation: Validation) -> TextTable:
    """A row a load and metric: whether the simulation has the policies in the order of the servers."""
    columns = (
        Column("load", is_number=False),
        Column("metric", is_number=False),
        Column("tau"),
        Column("pairs", meaning="pairs of policies that differ by more than the noise between repeats"),
        Column("ties"),
        Column("noise", meaning="the least difference that is no tie", leaves=1),
        Column("other way round in the simulation", is_number=False, may_wrap=True),
    )
    rows = []
    for one in validation.orders:
        order, quantity = one.order, QUANTITIES[one.quantity]
        unit = unit_named(quantity.unit, [order.noise])
        broken = [f"{pair.first} < {pair.second}" for pair in order.broken]
        cells = (
            Cell(str(one.load)),
            Cell(quantity.label),
            Cell(number(order.tau) if order.pairs else "all tied", strong=order.pairs > 0 and order.tau < 1),
            Cell(str(order.pairs)),
            Cell(str(order.ties)),
            Cell(f"{unit.format(order.noise)} {unit.name}" if math.isfinite(order.noise) else UNKNOWN),
            Cell(", ".join(broken)),
        )
        rows.append(cells)
    notes = (
        "tau: pairs in the same order less pairs in the other, over the pairs that are no tie on the servers. A tie is "
        "a difference within Tukey's honest significant difference at 5%, from the noise between repeats; with one "
        "repeat the noise is not known, and all are ties.",
    )
    return TextTable("The order of the policies", columns, tuple(rows), notes)


def count_table(group: Group) -> TextTable:
    """What explains a setting's latencies, in both worlds."""
    real, simulated = (counts(sides) for sides in group.worlds)
    shares = ("cache_hit_rate", "peak_kv_share", "imbalance_requests", "lost_share")
    rows = [
        (
            Cell(name.removesuffix("_share").replace("_", " ")),
            *(Cell(percent(world[name]) if name in shares else number(world[name])) for world in (real, simulated)),
        )
        for name in real
    ]
    columns = (Column("", is_number=False), Column("real"), Column("simulated"))
    note = "Means over the repeats; imbalance is of requests over servers, mean running of a server as it reports it."
    return TextTable(f"What happened there: {group}", columns, tuple(rows), (note,))


def _said(one: Agreement, size: float) -> str:
    return said_signed(one, size).removeprefix("+")


def _own(one: Agreement) -> str:
    return said_signed(one, one.error.value)
