"""The measures by which runs are compared: their names, what they mean, and their value per request."""

from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from simcore.errors import UserError, did_you_mean
from simcore.metrics import LATENCIES, QUANTILES
from simcore.summary import Summary

__all__ = ["LATENCY_LABELS", "LATENCY_MEANINGS", "Measure", "find_measure", "measure_names"]

LATENCY_LABELS: Final = {
    "ttft_s": "TTFT",
    "tpot_s": "TPOT",
    "itl_s": "ITL",
    "e2e_s": "E2E",
    "router_wait_s": "router wait",
    "server_ttft_s": "server TTFT",
    "server_latency_s": "server latency",
}

LATENCY_MEANINGS: Final = {
    "ttft_s": "arrival at the router to first token",
    "tpot_s": "(E2E - TTFT) / (output tokens - 1)",
    "itl_s": "gap between two tokens, whole run",
    "e2e_s": "arrival at the router to last token",
    "router_wait_s": "arrival at the router to dispatch",
    "server_ttft_s": "dispatch to first token",
    "server_latency_s": "dispatch to last token",
}


@dataclass(frozen=True, slots=True)
class Measure:
    """One number of a run that is a mean or a quantile over its requests, so that it has a confidence interval."""

    name: str
    label: str
    column: str
    quantile: float | None
    unit: Literal["s", "req/s", "share"]

    @property
    def higher_is_better(self) -> bool:
        return self.column == "good"

    def values(self, summary: Summary, observed: pd.DataFrame) -> NDArray[np.float64]:
        """Per measured request of ``metrics.observe``, such that the mean (or quantile) of them is the measure.

        Goodput is a mean too: every good request counts with the rate at which requests were measured.
        """
        values = observed[self.column].to_numpy(dtype="float64")
        if self.unit == "req/s" and summary.window_s > 0:
            values = values * (np.count_nonzero(~np.isnan(values)) / summary.window_s)
        return values


def measure_names() -> list[str]:
    """Every name that ``find_measure`` knows."""
    return list(_MEASURES)


def find_measure(name: str) -> Measure:
    """By its name in the summary: ``goodput_rps``, ``slo_attainment``, or as ``p99_ttft_s``. Raises UserError."""
    if name not in _MEASURES:
        raise UserError(f"unknown metric {name!r}; known are {', '.join(_MEASURES)}{did_you_mean(name, _MEASURES)}")
    return _MEASURES[name]


def _measures() -> dict[str, Measure]:
    measures = [
        Measure("goodput_rps", "goodput", "good", None, "req/s"),
        Measure("slo_attainment", "SLO attainment", "good", None, "share"),
    ]
    for column in LATENCIES:
        for statistic, quantile in {"mean": None, **QUANTILES}.items():
            label = f"{statistic} {LATENCY_LABELS[column]}"
            measures.append(Measure(f"{statistic}_{column}", label, column, quantile, "s"))
    return {measure.name: measure for measure in measures}


_MEASURES: Final = _measures()
