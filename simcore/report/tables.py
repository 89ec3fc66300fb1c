"""The tables of a report as text, laid out once for the terminal and the page."""

from collections.abc import Sequence
from math import isfinite
from typing import Final

from simcore.measures import LATENCY_LABELS, LATENCY_MEANINGS, find_measure
from simcore.report.comparison import SIGNIFICANCE, Comparison, Contender
from simcore.report.cost import cost_column, cost_figures, has_cost
from simcore.report.table import Cell, Column, TextTable
from simcore.report.wording import (
    UNKNOWN,
    Unit,
    interval,
    latency_unit,
    number,
    percent,
    signed,
    signed_interval,
    unit_of,
)
from simcore.summary import ServerSummary, Summary

__all__ = ["comparison_table", "figures", "latency_table", "server_table"]

_LEAVES: Final = {
    "p99_e2e_s": 1,
    "mean_tpot_s": 6,
    "mean_ttft_s": 7,
    "mean_e2e_s": 8,
    "p99_ttft_s": 9,
    "slo_attainment": 10,
}


def figures(summary: Summary) -> list[tuple[str, str, str]]:
    """The key figures that are not latencies, as (name, value, remark)."""
    measured = summary.measured
    outcomes = ", ".join(f"{count:,} {status}" for status, count in measured.items() if count)
    warmup = f", {summary.requests - summary.measured_requests:,} before" if summary.warmup_s else ""
    entries = [
        ("requests", f"{summary.measured_requests:,}", f"{outcomes or 'none'}{warmup}"),
        ("throughput", f"{number(summary.request_throughput_rps)} req/s", f"over {number(summary.window_s)} s"),
        ("input", f"{number(summary.input_throughput_tps)} tok/s", "prompt tokens of finished requests"),
        ("output", f"{number(summary.output_throughput_tps)} tok/s", "tokens of finished requests"),
    ]
    if summary.slo:
        attained = f"{percent(summary.slo_attainment)} within {_slo(summary.slo)}"
        entries.append(("goodput", f"{number(summary.goodput_rps)} req/s", attained))
    if summary.oracle:
        entries.append(("answer lengths", summary.oracle, "the policy saw true lengths, which no router knows"))
    return [
        *entries,
        *cost_figures(summary),
        ("concurrency", number(summary.concurrency), "mean requests at the servers"),
        ("utilisation", percent(summary.utilisation), _utilised(summary)),
        ("cache hits", percent(summary.cache_hit_rate), "of prompt tokens"),
        ("retractions", f"{summary.retractions:,}", "running requests sent back for lack of KV tokens"),
    ]


def _utilised(summary: Summary) -> str:
    if len(summary.servers) == 1:
        return "of the server"
    return f"mean of the servers; varies by {percent(summary.imbalance.busy)}"


def latency_table(contender: Contender, confidence: float) -> TextTable:
    """Every latency's spread; over several seeds the mean of the seeds' values."""
    statistics = ("mean", "p50", "p90", "p95", "p99", "max")
    columns = (
        Column("latency", is_number=False),
        Column("from - to", is_number=False, leaves=1),
        Column("unit", is_number=False),
        *(Column(statistic) for statistic in statistics),
    )
    rows = []
    for name in LATENCY_LABELS:
        spreads = [run.summary.latencies[name] for run in contender.runs]
        values = [sum(getattr(spread, statistic) for spread in spreads) / len(spreads) for statistic in statistics]
        unit = latency_unit(values)
        details = [_detail(contender, f"{statistic}_{name}", unit) for statistic in statistics]
        cells = [Cell(unit.format(value), detail) for value, detail in zip(values, details, strict=True)]
        rows.append((Cell(LATENCY_LABELS[name]), Cell(LATENCY_MEANINGS[name]), Cell(unit.name), *cells))
    notes = ("TTFT and E2E count from arrival at the router, server TTFT and latency from dispatch to the server.",)
    detail_note = f"Small print: {confidence:.0%} confidence intervals."
    return TextTable("Latencies", columns, tuple(rows), notes, detail_note)


def comparison_table(comparison: Comparison) -> TextTable:
    """The policies, best first: the ranking metric with its distance to the best, then what explains it."""
    ranked_by = comparison.rank_by.name
    slo = ("goodput_rps", "slo_attainment") if comparison.has_slo else ()
    shown = dict.fromkeys([ranked_by, *slo, "mean_ttft_s", "p99_ttft_s", "mean_tpot_s", "mean_e2e_s", "p99_e2e_s"])
    measured = [_measure_column(comparison, name) for name in shown]
    plain = [
        (Column("req/s", True, "finished requests over the window", 3), "request_throughput_rps", number),
        (Column("cache hits", True, "cached over prompt tokens", 4), "cache_hit_rate", percent),
        (Column("busy", True, "mean utilisation of the servers", 2), "utilisation", percent),
    ]
    cost = cost_column(comparison)
    columns = (
        Column("#", leaves=5),
        Column("policy", is_number=False, may_wrap=True),
        measured[0][0],
        Column("vs best", meaning="relative difference and its interval; n.s.: not significant"),
        *(column for column, _ in measured[1:]),
        *(column for column, _, _ in plain),
        *([cost[0]] if cost else []),
        Column("lost", meaning="rejected, failed or cancelled"),
    )
    rows = []
    for index, contender in enumerate(comparison.contenders):
        cells = [cells[index] for _, cells in measured]
        extras = [Cell(show(contender.mean(field))) for _, field, show in plain]
        extras += [cost[1][index]] if cost else []
        mark = contender.runs[0].summary.oracle
        name = Cell(f"{contender.policy} [{mark}]" if mark else contender.policy, strong=contender is comparison.best)
        lost = Cell(percent(contender.lost()))
        rows.append((Cell(str(index + 1)), name, cells[0], _against(contender), *cells[1:], *extras, lost))
    return TextTable(f"Policies by {comparison.rank_by.label}", columns, tuple(rows), _comparison_notes(comparison))


def server_table(summary: Summary, limit: int) -> TextTable:
    """The servers of one run, in their order; where they are more than ``limit``, the busiest ones."""
    servers, several, priced = summary.servers, len(summary.models) > 1, has_cost(summary.cost)
    notes: tuple[str, ...] = ("Whole run, warm-up included.",)
    if len(servers) > limit:
        # A remote API's is unknown: those come last.
        busy = {server.server_id: server.utilisation for server in servers if isfinite(server.utilisation)}
        servers = sorted(servers, key=lambda server: busy.get(server.server_id, -1.0), reverse=True)[:limit]
        notes = (f"The {limit} busiest of {len(summary.servers):,} servers. Whole run, warm-up included.",)
    columns = (
        Column("server", is_number=False),
        Column("profile", is_number=False, leaves=6),
        *([Column("model", is_number=False, leaves=7)] if several else []),
        Column("requests"),
        Column("busy", meaning="share of the run spent in steps"),
        Column("prefill", True, "share of the run in prefill steps", 3),
        Column("decode", True, "share of the run in decode steps", 2),
        Column("mixed", True, "share of the run in steps that do both", 1),
        Column("prompt tokens", leaves=5),
        Column("output tokens", leaves=4),
        Column("cache hits", meaning="cached over prompt tokens"),
        Column("retracted"),
        Column("peak running"),
        Column("peak KV", meaning="largest share of the KV tokens in use"),
        *([Column("cost", meaning="in the prices' currency")] if priced else []),
    )
    rows = [_server_row(server, with_model=several, with_cost=priced) for server in servers]
    return TextTable("Servers", columns, tuple(rows), notes)


def _server_row(server: ServerSummary, *, with_model: bool, with_cost: bool) -> tuple[Cell, ...]:
    numbers = (
        f"{server.requests:,}",
        percent(server.utilisation),
        percent(server.prefill_share),
        percent(server.decode_share),
        percent(server.mixed_share),
        f"{server.prompt_tokens:,}",
        f"{server.output_tokens:,}",
        percent(server.cache_hit_rate),
        f"{server.retractions:,}",
        f"{server.peak_running:,}",
        percent(server.peak_kv_tokens / server.kv_tokens_capacity) if server.kv_tokens_capacity else UNKNOWN,
    )
    texts = [server.server_id, server.profile, *([server.model] if with_model else []), *numbers]
    return tuple(Cell(text) for text in [*texts, *([number(server.cost)] if with_cost else [])])


def _measure_column(comparison: Comparison, name: str) -> tuple[Column, list[Cell]]:
    measure = find_measure(name)
    estimates = [contender.estimates[name] for contender in comparison.contenders]
    unit = unit_of(measure, [estimate.value for estimate in estimates])
    heading = "SLO met" if measure.unit == "share" else f"{measure.label}, {unit.name}"
    best = _best([estimate.value for estimate in estimates], measure.higher_is_better)
    cells = [
        Cell(unit.format(estimate.value), interval(estimate, unit), strong=estimate.value == best)
        for estimate in estimates
    ]
    meaning = LATENCY_MEANINGS.get(measure.column, "requests that met every limit of the SLO")
    return Column(heading, True, meaning, 0 if name == comparison.rank_by.name else _LEAVES.get(name, 0)), cells


def _best(values: Sequence[float], higher_is_better: bool) -> float:
    known = [value for value in values if value == value]
    return (max if higher_is_better else min)(known, default=0.0)


def _against(contender: Contender) -> Cell:
    against = contender.against_best
    if against is None:
        return Cell("best", strong=True)
    value, low, high = against.relative.value, against.relative.low, against.relative.high
    known = signed(value) if value == value else ""
    return Cell(known if against.significant else f"{known} n.s.".strip(), signed_interval(low, high))


def _detail(contender: Contender, name: str, unit: Unit) -> str:
    return interval(contender.estimates[name], unit) if name in contender.estimates else ""


def _comparison_notes(comparison: Comparison) -> tuple[str, ...]:
    notes = [
        "TTFT and E2E from arrival at the router; TPOT = (E2E - TTFT) / (output tokens - 1).",
        f"Intervals: {comparison.confidence:.0%}, {comparison.method}.",
    ]
    if len(comparison.contenders) > 1:
        rivals = len(comparison.contenders) - 1
        correction = f", with Holm's correction for {rivals} comparisons" if rivals > 1 else ""
        notes.append(f"n.s.: not significantly different from the best at {SIGNIFICANCE:.0%}{correction}.")
    if comparison.rank_by.unit == "req/s" and len(comparison.seeds) == 1:
        notes.append(
            "One seed: goodput differs only where SLO attainment does, as a last straggler alone moves a rate."
        )
    if marks := sorted({contender.runs[0].summary.oracle for contender in comparison.contenders} - {""}):
        notes.append(f"[{'], ['.join(marks)}]: decided on true lengths of answers, which no router knows.")
    if comparison.has_slo:
        notes.append(f"SLO: {_slo(comparison.best.runs[0].summary.slo)}; a request that was lost misses it.")
    return tuple(notes)


def _slo(slo: dict[str, float]) -> str:
    return ", ".join(_limit(name, limit_s) for name, limit_s in slo.items())


def _limit(name: str, limit_s: float) -> str:
    unit = latency_unit([limit_s])
    return f"{LATENCY_LABELS[name]} {unit.format(limit_s)} {unit.name}"
