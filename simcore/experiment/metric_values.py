"""What a metric of the summary is for one run, and which way is better: for gates and for tuning."""

from typing import Final

from simcore import statistics
from simcore.errors import UserError, did_you_mean
from simcore.measures import find_measure, measure_names
from simcore.metrics import QUANTILES
from simcore.report import MeasuredRun

__all__ = ["NEEDS_SLO", "higher_is_better", "lost_share", "metric_names", "metric_value"]

NEEDS_SLO: Final = ("goodput_rps", "slo_attainment")

_LOST: Final = ("rejected", "failed", "cancelled")
_BETTER_HIGH: Final[dict[str, bool | None]] = {
    "request_throughput_rps": True,
    "input_throughput_tps": True,
    "output_throughput_tps": True,
    "concurrency": None,
    "cache_hit_rate": True,
    "utilisation": None,
    "retractions": False,
}
"""Figures of the summary; None where neither way is better in itself."""
_GAPS: Final = {f"{statistic}_itl_s": statistic for statistic in ("mean", *QUANTILES)}


def metric_names() -> list[str]:
    """Every name that ``metric_value`` knows."""
    return [*measure_names(), *_GAPS, *_BETTER_HIGH, "lost_share"]


def higher_is_better(metric: str) -> bool | None:
    """None where the metric does not say. Raises UserError for one that is not known."""
    if metric not in metric_names():
        known = f"{', '.join(metric_names())}{did_you_mean(metric, metric_names())}"
        raise UserError(f"unknown metric {metric!r}; known are {known}")
    if metric in measure_names():
        return find_measure(metric).higher_is_better
    return _BETTER_HIGH.get(metric, False)


def metric_value(metric: str, run: MeasuredRun) -> float:
    """The metric of one run; NaN where there was nothing to measure."""
    if metric == "lost_share":
        return lost_share(run)
    if metric in _BETTER_HIGH:
        return float(getattr(run.summary, metric))
    if metric in _GAPS:
        return float(getattr(run.summary.latencies["itl_s"], _GAPS[metric]))
    measure = find_measure(metric)
    return statistics.statistic(measure.values(run.summary, run.observed), measure.quantile)


def lost_share(run: MeasuredRun) -> float:
    """Share of the measured requests that were rejected, failed or cancelled."""
    total = run.summary.measured_requests
    return sum(run.summary.measured[status] for status in _LOST) / total if total else 0.0
