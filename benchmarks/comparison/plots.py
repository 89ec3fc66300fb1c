"""A dot plot a case, and goodput over the age of reports."""

from pathlib import Path
from typing import Any, Final

import matplotlib.pyplot as plt
import pandas as pd
from cases import CASES, REPORT_INTERVALS_S

__all__ = ["draw"]

_PANELS: Final = (("goodput_rps", "goodput, req/s", 1.0, False), ("p99_ttft_s", "p99 TTFT, ms", 1e3, True))
_BLUE, _RED, _GREY = "#2563eb", "#b91c1c", "#9ca3af"


def draw(folder: Path, estimates: pd.DataFrame) -> None:
    """All of them, as SVG that is the same for the same numbers."""
    plt.rcParams["svg.hashsalt"] = "simroute"
    folder.mkdir(exist_ok=True)
    for case in CASES:
        if not case.only:
            _dots(folder / f"{case.name}.svg", case.name, estimates[estimates["case"] == case.name])
    _reports(folder / "reports.svg", estimates)


def _save(path: Path, figure: Any) -> None:
    figure.savefig(path, metadata={"Date": None}, bbox_inches="tight")
    plt.close(figure)


def _dots(path: Path, title: str, frame: pd.DataFrame) -> None:
    """Policies by goodput, the best on top; red ones know true lengths."""
    by_metric = {metric: rows.set_index("contender") for metric, rows in frame.groupby("metric")}
    names = by_metric["goodput_rps"].sort_values("value").index
    figure, axes = plt.subplots(1, len(_PANELS), figsize=(11, 0.24 * len(names) + 1), sharey=True)
    places = range(len(names))
    colours = [_RED if "oracle" in name else _BLUE for name in names]
    for axis, (metric, label, factor, log) in zip(axes, _PANELS, strict=True):
        rows = by_metric[metric].loc[names]
        axis.hlines(
            places, rows["low"].clip(lower=0) * factor, rows["high"] * factor, color=colours, linewidth=2.5, alpha=0.45
        )
        axis.scatter(rows["value"] * factor, places, color=colours, s=16, zorder=3)
        axis.axvline(by_metric[metric].loc["round_robin", "value"] * factor, color=_GREY, linewidth=1, linestyle="--")
        axis.set_xlabel(label)
        axis.grid(axis="x", alpha=0.25)
        if log:
            axis.set_xscale("log")
    axes[0].set_yticks(list(places), names, fontsize=8)
    figure.suptitle(f"{title}: mean and 95% interval; dashed: round_robin; red: knows true lengths", fontsize=10)
    _save(path, figure)


def _reports(path: Path, estimates: pd.DataFrame) -> None:
    names = {f"reports-{interval_s:g}s": interval_s for interval_s in REPORT_INTERVALS_S}
    frame = estimates[estimates["case"].isin(names) & (estimates["metric"] == "goodput_rps")]
    figure, axis = plt.subplots(figsize=(9, 5))
    for number, (name, rows) in enumerate(frame.groupby("contender")):
        at = rows["case"].map(names)
        style = ("-", "--", ":", "-.")[number // 10 % 4]
        axis.errorbar(
            at, rows["value"], (rows["high"] - rows["low"]) / 2, label=name, marker="o", markersize=3, linestyle=style
        )
    axis.set_xscale("log")
    axis.set_xticks(list(names.values()), [f"{value:g}" for value in names.values()])
    axis.set_xlabel("seconds between two reports")
    axis.set_ylabel("goodput on quickstart, req/s")
    axis.legend(fontsize=7, ncols=2, loc="center left", bbox_to_anchor=(1, 0.5))
    axis.grid(alpha=0.25)
    _save(path, figure)
