"""Cost in the tables: nowhere where no price was given."""

from math import isfinite

from simcore.report.comparison import Comparison
from simcore.report.table import Cell, Column
from simcore.report.wording import number
from simcore.summary import Cost, Summary

__all__ = ["cost_column", "cost_figures", "has_cost"]


def has_cost(cost: Cost) -> bool:
    """Whether any price was given."""
    return isfinite(cost.total)


def cost_figures(summary: Summary) -> list[tuple[str, str, str]]:
    """The whole run's cost as key figures: (name, value, remark)."""
    cost = summary.cost
    if not has_cost(cost):
        return []
    parts = [
        f"{number(part)} {what}"
        for part, what in ((cost.own, "for servers by the hour"), (cost.remote, "for remote APIs by the token"))
        if isfinite(part)
    ]
    return [
        ("cost", number(cost.total), f"whole run, in the prices' currency: {', '.join(parts)}"),
        ("per 1,000 requests", number(cost.per_1k_requests), "cost over finished requests"),
        ("per 1M output tokens", number(cost.per_million_output_tokens), "cost over tokens of finished requests"),
    ]


def cost_column(comparison: Comparison) -> tuple[Column, list[Cell]] | None:
    """A contender's cost for 1,000 requests, the least in bold; None where there is no price."""
    costs = [contender.cost()["per_1k_requests"] for contender in comparison.contenders]
    known = [cost for cost in costs if isfinite(cost)]
    if not known:
        return None
    column = Column("cost, per 1k req", True, "whole run, in the prices' currency, over finished requests", 11)
    return column, [Cell(number(cost), strong=cost == min(known)) for cost in costs]
