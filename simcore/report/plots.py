"""The plots of a report, each as SVG text. Series are thinned to what a screen can show before they are drawn."""

from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter, PercentFormatter
from numpy.typing import NDArray

from simcore.measures import LATENCY_LABELS, LATENCY_MEANINGS
from simcore.report.comparison import Comparison
from simcore.report.drawing import INK, new_figure, render, series_colours, style, tidy
from simcore.report.wording import latency_unit, percent, unit_of
from simcore.summary import ServerSummary

__all__ = ["MAX_POINTS", "latency_cdf", "ranking", "server_load", "thinned", "timeline"]

MAX_POINTS: Final = 400
_LINES_SHOWN: Final = 8
_BARS_SHOWN: Final = 32
_Floats = NDArray[np.float64]


def latency_cdf(column: str, samples: Mapping[str, _Floats], limit_s: float | None) -> str:
    """Share of requests within a latency; a line a name, and the SLO's limit where there is one."""
    samples = {name: values[~np.isnan(values)] for name, values in samples.items()}
    unit = latency_unit(np.quantile(values, 0.99) for values in samples.values() if values.size)
    with style():
        figure = new_figure(4.5, 3.3)
        axes = figure.add_subplot()
        tidy(axes)
        for name, (colour, dash) in series_colours(samples).items():
            if samples[name].size:
                at, share = thinned(samples[name])
                axes.plot(at * unit.scale, share, color=colour, linestyle=dash, label=name, drawstyle="steps-post")
        if limit_s is not None:
            axes.axvline(limit_s * unit.scale, color=INK, linewidth=1, linestyle="dashed", label="SLO")
        axes.set_title(LATENCY_LABELS[column])
        axes.set_xlabel(f"{LATENCY_MEANINGS[column]}, {unit.name}")
        axes.set_ylabel("share of requests")
        axes.yaxis.set_major_formatter(PercentFormatter(1.0))
        axes.set_ylim(0, 1.02)
        _logarithmic(axes, [values for values in samples.values() if values.size])
        if axes.get_legend_handles_labels()[0] and (len(samples) > 1 or limit_s is not None):
            axes.legend(loc="lower right")
        return render(
            figure, f"cdf-{column.removesuffix('_s')}", f"Cumulative distribution of {LATENCY_LABELS[column]}"
        )


def timeline(samples: pd.DataFrame, caps: pd.DataFrame, servers: Sequence[ServerSummary], duration_s: float) -> str:
    """Running and queued requests and the share of KV tokens in use, over time; and the router's caps, where there are
    any.

    A line a server, or for many servers their range and mean. Where samples are closer than the plot can show, a point
    is the largest of its span, so that no peak is lost.
    """
    capacity = samples["server_id"].map({server.server_id: float(server.kv_tokens_capacity) for server in servers})
    series = {
        "running": ("requests running", samples["running"].astype("float64")),
        "queued": ("requests queued at the server", samples["queued"].astype("float64")),
        "kv": ("KV tokens in use", samples["kv_tokens_used"] / capacity),
    }
    tables = {
        kind: (title, _over_time(samples["t_s"], samples["server_id"], values, duration_s))
        for kind, (title, values) in series.items()
    }
    if caps["max_running_requests"].notna().any():
        tables["caps"] = ("the router's cap", _caps_over_time(caps, duration_s))
    with style():
        figure = new_figure(10.6, 2.05 * len(tables) + 0.05)
        panels = figure.subplots(len(tables), 1, sharex=True)
        for axes, (kind, (title, table)) in zip(panels, tables.items(), strict=True):
            tidy(axes)
            _draw_servers(axes, table)
            axes.set_title(title, fontsize=10)
            axes.set_ylim(bottom=0)
            if kind == "kv":
                axes.yaxis.set_major_formatter(FuncFormatter(lambda share, _: percent(share)))
            else:
                axes.yaxis.set_major_locator(MaxNLocator(nbins=4, integer=True))
        panels[-1].set_xlabel("seconds since the start of the run")
        panels[-1].set_xlim(0, max(duration_s, 1e-9))
        handles, labels = panels[0].get_legend_handles_labels()
        if handles:
            figure.legend(handles, labels, loc="outside upper center", ncols=min(len(labels), 8))
        return render(figure, "timeline", "Running and queued requests and KV use of the servers over time")


def server_load(servers: Sequence[ServerSummary]) -> str:
    """How much of the run each server spent in which steps; for many servers, the distribution of that."""
    with style():
        many = len(servers) > _BARS_SHOWN
        figure = new_figure(10.6, 3.2 if many else 1.2 + 0.3 * len(servers))
        axes = figure.add_subplot()
        tidy(axes, grid="x")
        if many:
            _draw_load_histogram(axes, servers)
        else:
            _draw_load_bars(axes, servers)
        axes.set_xlabel("share of the run spent in steps")
        axes.xaxis.set_major_formatter(PercentFormatter(1.0))
        axes.set_xlim(0, 1)
        if not many:
            figure.legend(loc="outside upper center", ncols=3)
        return render(figure, "server-load", "Load of the servers")


def ranking(comparison: Comparison) -> str:
    """The ranking metric of every policy with its confidence interval, best on top."""
    measure = comparison.rank_by
    estimates = [contender.estimates[measure.name] for contender in comparison.contenders]
    unit = unit_of(measure, [estimate.value for estimate in estimates])
    colours = series_colours([contender.policy for contender in comparison.contenders])
    with style():
        figure = new_figure(10.6, 1.1 + 0.42 * len(estimates))
        axes = figure.add_subplot()
        tidy(axes, grid="x")
        for row, (contender, estimate) in enumerate(zip(comparison.contenders, estimates, strict=True)):
            colour, _ = colours[contender.policy]
            low, high = estimate.low * unit.scale, estimate.high * unit.scale
            axes.plot([low, high], [row, row], color=colour, linewidth=3, alpha=0.45, solid_capstyle="round")
            axes.plot(estimate.value * unit.scale, row, "o", color=colour, markersize=8)
            text = f"  {unit.format(estimate.value)}"
            axes.annotate(text, (estimate.value * unit.scale, row), (0, 8), textcoords="offset points", fontsize=9)
        axes.set_yticks(range(len(estimates)), [contender.policy for contender in comparison.contenders])
        axes.set_ylim(len(estimates) - 0.4, -0.7)
        axes.margins(x=0.08)
        better = "higher" if measure.higher_is_better else "lower"
        axes.set_xlabel(
            f"{measure.label}, {unit.name} ({better} is better; bars are {comparison.confidence:.0%} intervals)"
        )
        return render(figure, "ranking", f"{measure.label} of every policy")


def thinned(values: _Floats) -> tuple[_Floats, _Floats]:
    """The empirical CDF as at most MAX_POINTS points (value, share): the ends kept, the ranks between evenly apart."""
    ordered = np.sort(values)
    ranks = np.unique(np.linspace(0, ordered.size - 1, min(ordered.size, MAX_POINTS)).astype("int64"))
    return ordered[ranks], (ranks + 1) / ordered.size


def _logarithmic(axes: Axes, samples: Sequence[_Floats]) -> None:
    """A logarithmic axis where the values span more than a factor of 30 and none is zero."""
    low = min((float(np.quantile(values, 0.01)) for values in samples), default=0.0)
    high = max((float(np.quantile(values, 0.99)) for values in samples), default=0.0)
    if low > 0 and min(float(values.min()) for values in samples) > 0 and high / low > 30:
        axes.set_xscale("log")
        axes.xaxis.set_minor_formatter(NullFormatter())
    else:
        axes.set_xlim(left=0)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10g}"))


def _over_time(t_s: pd.Series, server_id: pd.Series, values: pd.Series, duration_s: float) -> pd.DataFrame:
    """The largest value of each server in each of MAX_POINTS spans of the run (its last one where it has no sample)."""
    spans = np.linspace(0, max(duration_s, 1e-9), MAX_POINTS + 1)
    span = np.clip(np.searchsorted(spans, t_s.to_numpy("float64"), side="right") - 1, 0, MAX_POINTS - 1)
    table = values.groupby([span, server_id.to_numpy()], sort=True).max().unstack()
    table = table.reindex(range(int(span.max()) + 1) if span.size else []).ffill()
    return table.set_index(spans[table.index.to_numpy("int64")])


def _caps_over_time(caps: pd.DataFrame, duration_s: float) -> pd.DataFrame:
    """The caps in force after each change and at the end; of several changes at one time the last."""
    table = caps.groupby(["t_s", "server_id"], sort=True)["max_running_requests"].agg(lambda caps: caps.iloc[-1])
    wide = table.fillna(np.inf).unstack().ffill().replace(np.inf, np.nan)
    wide.loc[max(duration_s, float(wide.index[-1]))] = wide.iloc[-1]
    return wide


def _draw_servers(axes: Axes, table: pd.DataFrame) -> None:
    if table.shape[1] <= _LINES_SHOWN:
        for name, (colour, _) in series_colours(map(str, table.columns)).items():
            axes.plot(
                table.index, table[name], color=colour, linewidth=1.3, alpha=0.85, label=name, drawstyle="steps-post"
            )
        return
    colour, _ = series_colours(["range"])["range"]
    low, mean, high = table.min(axis=1), table.mean(axis=1), table.max(axis=1)
    axes.fill_between(table.index, low, high, color=colour, alpha=0.25, linewidth=0, step="post", label="range")
    axes.plot(table.index, mean, color=colour, drawstyle="steps-post", label=f"mean of {table.shape[1]} servers")


def _draw_load_bars(axes: Axes, servers: Sequence[ServerSummary]) -> None:
    rows = range(len(servers))
    shares = {
        "prefill": [server.prefill_share for server in servers],
        "mixed": [server.mixed_share for server in servers],
        "decode": [server.decode_share for server in servers],
    }
    left = np.zeros(len(servers))
    for kind, (colour, _) in series_colours(shares).items():
        axes.barh(rows, shares[kind], left=left, color=colour, height=0.62, label=kind)
        left = left + np.array(shares[kind])
    axes.set_yticks(rows, [server.server_id for server in servers])
    axes.invert_yaxis()


def _draw_load_histogram(axes: Axes, servers: Sequence[ServerSummary]) -> None:
    colour, _ = series_colours(["servers"])["servers"]
    axes.hist([server.utilisation for server in servers], bins=np.linspace(0, 1, 51).tolist(), color=colour)
    axes.set_ylabel("servers")
