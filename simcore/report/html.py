"""The report page: one file that needs nothing else."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Final

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined, Template
from markupsafe import Markup

from simcore.records import RunResult
from simcore.report import plots
from simcore.report.comparison import Comparison, Contender
from simcore.report.model_tables import comparison_models, model_tables
from simcore.report.table import TextTable
from simcore.report.tables import comparison_table, figures, latency_table, server_table
from simcore.report.wording import verdict, warnings
from simcore.summary import Summary

__all__ = ["Page", "comparison_page", "comparison_plots", "render", "run_page", "run_plots"]

CDF_COLUMNS: Final = ("ttft_s", "tpot_s", "e2e_s")
_SERVERS_SHOWN: Final = 64


@dataclass(frozen=True, slots=True)
class Page:
    """What the template shows. ``plots`` are SVG texts by name, ``details`` tables folded away under
    a heading, ``links`` other pages as (text, relative address)."""

    title: str
    subtitle: str
    facts: Sequence[tuple[str, str]]
    verdict: Sequence[str]
    figures: Sequence[tuple[str, str, str]]
    tables: Sequence[TextTable]
    plots: Mapping[str, str]
    config: str
    command: str
    warnings: Sequence[str] = ()
    details: Sequence[tuple[str, Sequence[TextTable]]] = ()
    links: Sequence[tuple[str, str]] = ()


def run_plots(result: RunResult, comparison: Comparison) -> dict[str, str]:
    """SVG text by name of the plots of one run, ``comparison`` being of that run alone."""
    servers = comparison.best.runs[0].summary.servers
    drawn = _cdfs(comparison)
    if not result.timeline.empty:
        drawn["timeline"] = plots.timeline(result.timeline, result.caps, servers, result.duration_s)
    drawn["server-load"] = plots.server_load(servers)
    return drawn


def comparison_plots(comparison: Comparison) -> dict[str, str]:
    """SVG text by name of the plots that hold policies side by side."""
    return {"ranking": plots.ranking(comparison), **_cdfs(comparison)}


def run_page(comparison: Comparison, drawn: Mapping[str, str], *, config: str, command: str) -> str:
    """The page of one run; ``config`` is its resolved scenario, ``command`` repeats it."""
    contender = comparison.best
    summary = contender.runs[0].summary
    return render(
        Page(
            title=summary.scenario,
            subtitle=f"{summary.policy}, seed {summary.seed}",
            facts=_facts(summary),
            verdict=verdict(comparison),
            figures=figures(summary),
            tables=[
                latency_table(contender, comparison.confidence),
                *model_tables([(summary.policy, summary)]),
                server_table(summary, _SERVERS_SHOWN),
            ],
            plots=drawn,
            config=config,
            command=command,
            warnings=_warnings(comparison),
        )
    )


def comparison_page(
    comparison: Comparison,
    drawn: Mapping[str, str],
    *,
    config: str,
    command: str,
    links: Sequence[tuple[str, str]],
) -> str:
    """The page of a comparison; ``links`` lead to the pages of its runs."""
    policies = len(comparison.contenders)
    seeds = "seed " + str(comparison.seeds[0]) if len(comparison.seeds) == 1 else f"{len(comparison.seeds)} seeds"
    return render(
        Page(
            title=comparison.scenario,
            subtitle=f"{policies} policies, {seeds}",
            facts=_facts(comparison.best.runs[0].summary),
            verdict=verdict(comparison),
            figures=(),
            tables=[comparison_table(comparison), *comparison_models(comparison)],
            plots=drawn,
            config=config,
            command=command,
            warnings=_warnings(comparison),
            details=[_details(comparison, contender) for contender in comparison.contenders],
            links=links,
        )
    )


def render(page: Page) -> str:
    """The page as HTML text; everything but the plots is escaped."""
    plots_inline = {name: Markup(_without_namespaces(svg)) for name, svg in page.plots.items()}
    return _template().render(page=page, plots=plots_inline)


@cache
def _template() -> Template:
    environment = Environment(
        loader=PackageLoader("simcore.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("report.html.j2")


def _without_namespaces(svg: str) -> str:
    """HTML knows SVG without them, and so the page holds no address at all."""
    return re.sub(r' xmlns(:\w+)?="[^"]*"', "", svg).replace("xlink:href", "href")


def _cdfs(comparison: Comparison) -> dict[str, str]:
    slo = comparison.best.runs[0].summary.slo
    drawn = {}
    for column in CDF_COLUMNS:
        samples = {
            contender.policy: np.concatenate([run.observed[column].to_numpy("float64") for run in contender.runs])
            for contender in comparison.contenders
        }
        drawn[f"cdf-{column.removesuffix('_s')}"] = plots.latency_cdf(column, samples, slo.get(column))
    return drawn


def _facts(summary: Summary) -> list[tuple[str, str]]:
    profiles: dict[str, int] = {}
    for server in summary.servers:
        profiles[server.profile] = profiles.get(server.profile, 0) + 1
    controller = []
    if summary.controller:
        changes = sum(server.cap_changes for server in summary.servers)
        controller = [("caps changed by", f"{summary.controller}, {changes:,} times")]
    return [
        ("world", {"sim": "simulated servers", "live": "real servers"}[summary.kind]),
        ("servers", ", ".join(f"{count} x {profile}" for profile, count in profiles.items()) or "none"),
        ("requests", f"{summary.requests:,}, {summary.measured_requests:,} of them measured"),
        ("warm-up", f"{summary.warmup_s:g} s, excluded" if summary.warmup_s else "none"),
        ("duration", f"{summary.duration_s:,.1f} s"),
        *controller,
    ]


def _warnings(comparison: Comparison) -> list[str]:
    found = [
        f"{contender.policy}, seed {run.summary.seed}: interrupted, these are partial results"
        for contender in comparison.contenders
        for run in contender.runs
        if run.summary.interrupted
    ]
    return found + [f"{where}: {warning}" for where, warning in warnings(comparison)]


def _details(comparison: Comparison, contender: Contender) -> tuple[str, list[TextTable]]:
    summary = contender.runs[0].summary
    servers = server_table(summary, _SERVERS_SHOWN)
    if len(contender.runs) > 1:
        servers = replace(servers, title=f"Servers, seed {summary.seed}")
    return contender.policy, [latency_table(contender, comparison.confidence), servers]
