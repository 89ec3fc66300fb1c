"""Plots that lay runs over each other: distributions, and what happens over time."""

from collections.abc import Callable, Sequence
from typing import Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from simcore.measures import LATENCY_LABELS
from simcore.report import plots
from simcore.report.drawing import new_figure, render, series_colours, style, tidy
from simcore.report.wording import latency_unit

from .side import Side

__all__ = ["over_time", "overlays"]

_CDFS: Final = ("ttft_s", "tpot_s", "e2e_s", "router_wait_s")
_SPANS: Final = 60
_Floats = NDArray[np.float64]
_Series = Callable[[Side, _Floats], _Floats]


def overlays(sides: Sequence[Side]) -> dict[str, str]:
    """SVG text by name; a line a run."""
    limits = {tuple(side.summary.slo.items()) for side in sides}
    slo = dict(next(iter(limits))) if len(limits) == 1 else {}
    drawn = {}
    for column in _CDFS:
        samples = {side.label: side.observed[column].to_numpy("float64") for side in sides}
        drawn[f"cdf-{column.removesuffix('_s').replace('_', '-')}"] = plots.latency_cdf(
            column, samples, slo.get(column)
        )
    drawn["over-time"] = over_time(sides)
    return drawn


def over_time(sides: Sequence[Side]) -> str:
    """Requests in flight, running and queued over all servers, KV tokens, and latencies by time of arrival."""
    end_s = max(side.result.duration_s for side in sides)
    edges = np.linspace(0, max(end_s, 1e-9), _SPANS + 1)
    with style():
        figure = new_figure(10.6, 10.5)
        panels = figure.subplots(len(_PANELS), 1, sharex=True)
        colours = series_colours(side.label for side in sides)
        for axes, (title, series, is_latency) in zip(panels, _PANELS, strict=True):
            tidy(axes)
            lines = {side.label: series(side, edges) for side in sides}
            unit = latency_unit(value for line in lines.values() for value in line) if is_latency else None
            for label, values in lines.items():
                colour, dash = colours[label]
                shown = values * unit.scale if unit else values
                axes.step(edges[:-1], shown, color=colour, linestyle=dash, linewidth=1.4, label=label, where="post")
            axes.set_title(f"{title}, {unit.name}" if unit else title, fontsize=10)
            axes.set_ylim(bottom=0)
        panels[-1].set_xlabel("seconds since the start of the run")
        panels[-1].set_xlim(0, max(end_s, 1e-9))
        handles, labels = panels[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper center", ncols=min(len(labels), 4))
        return render(figure, "over-time", "The runs' load and latencies over time, laid over each other")


def _by_arrival(column: str) -> _Series:
    """The mean of the measured requests that arrive in each span; NaN where none does."""

    def series(side: Side, edges: _Floats) -> _Floats:
        span = np.searchsorted(edges, side.observed["arrived_at"].to_numpy("float64"), side="right") - 1
        means = side.observed[column].groupby(np.clip(span, 0, _SPANS - 1)).mean()
        return means.reindex(range(_SPANS)).to_numpy("float64")

    return series


def _present(start: str, end: str) -> _Series:
    """The mean number of requests between two of their times, from the records: the same in both worlds."""

    def series(side: Side, edges: _Floats) -> _Floats:
        requests, last = side.result.requests, side.result.duration_s
        begun = requests[requests[start].notna()]
        came, went = begun[start].to_numpy("float64"), begun[end].fillna(last).to_numpy("float64")
        inside = [np.clip(np.minimum(went, b) - np.maximum(came, a), 0, None).sum() / (b - a) for a, b in _pairs(edges)]
        return _until(np.array(inside), edges, last)

    return series


def _sampled(column: str) -> _Series:
    """The sum over the servers of what they reported, averaged in each span; the last one where none was taken."""

    def series(side: Side, edges: _Floats) -> _Floats:
        samples = side.result.timeline
        if samples.empty:
            return np.full(_SPANS, np.nan)
        span = np.clip(np.searchsorted(edges, samples["t_s"], side="right") - 1, 0, _SPANS - 1)
        table: pd.DataFrame = samples[column].groupby([span, samples["server_id"].to_numpy()]).mean().unstack()
        total = table.reindex(range(_SPANS)).ffill().sum(axis=1, min_count=1)
        return _until(total.to_numpy("float64"), edges, side.result.duration_s)

    return series


def _pairs(edges: _Floats) -> list[tuple[float, float]]:
    return list(zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True))


def _until(values: _Floats, edges: _Floats, end_s: float) -> _Floats:
    """A run that is over has no load."""
    return np.where(edges[:-1] < end_s, values, np.nan)


_PANELS: Final[tuple[tuple[str, _Series, bool], ...]] = (
    ("requests at the router", _present("arrived_at", "dispatched_at"), False),
    ("requests at the servers", _present("dispatched_at", "finished_at"), False),
    ("requests running, as servers report", _sampled("running"), False),
    ("KV tokens in use, as servers report", _sampled("kv_tokens_used"), False),
    (f"{LATENCY_LABELS['ttft_s']} by time of arrival", _by_arrival("ttft_s"), True),
    (f"{LATENCY_LABELS['e2e_s']} by time of arrival", _by_arrival("e2e_s"), True),
)
