"""What a run, or each of several, gave the requests for each model: only where there are several models."""

from collections.abc import Sequence
from dataclasses import replace

from simcore.report.comparison import Comparison
from simcore.report.cost import has_cost
from simcore.report.table import Cell, Column, TextTable
from simcore.report.wording import latency_unit, number, percent
from simcore.summary import ModelSummary, Summary

__all__ = ["comparison_models", "model_tables"]

_LATENCIES = (("ttft_s", "mean", "mean TTFT"), ("ttft_s", "p99", "p99 TTFT"), ("e2e_s", "mean", "mean E2E"))
_LOST = ("rejected", "failed", "cancelled")


def model_tables(runs: Sequence[tuple[str, Summary]], who: str = "policy") -> list[TextTable]:
    """One table with a row for each model and run, the runs by their names; none where all requests are for one model.
    ``who`` heads the column of names, which there is for several runs."""
    entries = [(name, summary, model) for name, summary in runs for model in summary.models]
    names = sorted({model.model for *_, model in entries})
    if len(names) < 2:
        return []
    entries.sort(key=lambda entry: names.index(entry[2].model))
    several = len(runs) > 1
    models = [model for *_, model in entries]
    columns = [
        Column("model", is_number=False, may_wrap=True),
        *([Column(who, is_number=False, may_wrap=True)] if several else []),
    ]
    columns += [Column("servers", leaves=2), Column("requests", leaves=7), Column("req/s", leaves=3)]
    cells = [
        [
            Cell(model.model),
            *([Cell(name)] if several else []),
            Cell(str(model.servers)),
            Cell(f"{sum(model.measured.values()):,}"),
            Cell(number(model.request_throughput_rps)),
        ]
        for name, _, model in entries
    ]
    for column, texts in _figures(models, with_slo=any(summary.slo for _, summary in runs)):
        columns.append(column)
        for row, text in zip(cells, texts, strict=True):
            row.append(Cell(text))
    return [TextTable("Models", tuple(columns), tuple(map(tuple, cells)), ("Requests by the model they asked for.",))]


def comparison_models(comparison: Comparison) -> list[TextTable]:
    """As ``model_tables``, of every policy's run with the first seed."""
    tables = model_tables([(one.policy, one.runs[0].summary) for one in comparison.contenders])
    if len(comparison.seeds) == 1:
        return tables
    return [replace(table, title=f"Models, seed {comparison.seeds[0]}") for table in tables]


def _figures(models: Sequence[ModelSummary], *, with_slo: bool) -> list[tuple[Column, list[str]]]:
    found = []
    for latency, statistic, heading in _LATENCIES:
        values = [getattr(model.latencies[latency], statistic) for model in models]
        unit = latency_unit(values)
        leaves = 4 if latency == "e2e_s" else 0
        found.append((Column(f"{heading}, {unit.name}", leaves=leaves), [unit.format(value) for value in values]))
    if with_slo:
        attained = [percent(model.slo_attainment) for model in models]
        found.append((Column("SLO met", True, "requests that met every limit of the SLO", 6), attained))
    lost = [sum(model.measured[status] for status in _LOST) for model in models]
    total = [sum(model.measured.values()) for model in models]
    shares = [percent(some / of) if of else "-" for some, of in zip(lost, total, strict=True)]
    found.append((Column("lost", True, "rejected, failed or cancelled", 5), shares))
    if any(has_cost(model.cost) for model in models):
        costs = [number(model.cost.total) for model in models]
        found.append((Column("cost", True, "of its servers in the whole run, in the prices' currency", 8), costs))
    return found
