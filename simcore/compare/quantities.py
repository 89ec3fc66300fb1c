"""Everything that a run is told by, each with its value per request where it has one: that is what intervals need."""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
import pandas as pd

from simcore import statistics
from simcore.errors import UserError, did_you_mean
from simcore.measures import LATENCY_LABELS, LATENCY_MEANINGS, Measure, find_measure
from simcore.metrics import LATENCIES, QUANTILES
from simcore.summary import Summary

from .side import Side

__all__ = ["QUANTITIES", "Quantity", "QuantityUnit", "find_quantity", "quantities_of"]

QuantityUnit = Literal["s", "req/s", "tok/s", "share", "count"]
_LOST: Final = ("rejected", "failed", "cancelled")


@dataclass(frozen=True, slots=True)
class Quantity:
    """One number of a run. ``per_request`` gives values by request_id whose mean (or ``quantile``) is the number; None
    for what no request has a share in, which ``whole`` reads off the summary.
    Rates are of that kind: one straggler decides where the window ends, so requests cannot tell how sure they are.
    """

    name: str
    label: str
    unit: QuantityUnit
    meaning: str
    quantile: float | None = None
    per_request: Callable[[Side], pd.Series] | None = None
    whole: Callable[[Summary], float] | None = None

    def value(self, side: Side) -> float:
        """The number."""
        if self.per_request is not None:
            return statistics.statistic(self.per_request(side).to_numpy("float64"), self.quantile)
        assert self.whole is not None
        return self.whole(side.summary)

    def mean(self, sides: Iterable[Side]) -> float:
        """Over several runs."""
        return float(np.mean([self.value(side) for side in sides]))


def find_quantity(name: str) -> Quantity:
    """By its name. Raises UserError."""
    if name not in QUANTITIES:
        raise UserError(f"unknown metric {name!r}; known are {', '.join(QUANTITIES)}{did_you_mean(name, QUANTITIES)}")
    return QUANTITIES[name]


def quantities_of(*sides: Side) -> list[Quantity]:
    """Those that these runs have: an SLO's only where all have the same one."""
    slos = {tuple(side.summary.slo.items()) for side in sides}
    has_slo = len(slos) == 1 and bool(sides[0].summary.slo)
    return [quantity for name, quantity in QUANTITIES.items() if has_slo or name not in ("goodput_rps", _SLO)]


_SLO: Final = "slo_attainment"


def _of_measure(measure: Measure) -> Quantity:
    meaning = LATENCY_MEANINGS.get(measure.column, "requests that met every limit of the SLO")
    return Quantity(
        measure.name,
        measure.label,
        "share" if measure.unit == "share" else "s",
        meaning,
        measure.quantile,
        lambda side: pd.Series(measure.values(side.summary, side.observed), index=side.observed.index),
    )


def _cached_share(side: Side) -> pd.Series:
    """Cached tokens over the mean prompt: their mean is the ratio of the sums."""
    dispatched = side.measured["dispatched_at"].notna()
    mean_prompt = side.measured["prompt_tokens"].where(dispatched).mean()
    return side.measured["cached_tokens"].where(dispatched) / mean_prompt


def _lost(side: Side) -> pd.Series:
    return side.measured["status"].isin(_LOST).astype("float64")


def _retractions(side: Side) -> pd.Series:
    """Of the whole run, warm-up included, as in the summary."""
    requests = side.result.requests
    each = requests["retractions"].astype("float64") * len(requests)
    return each.set_axis(pd.Index(requests["request_id"], name="request_id"))


def _gap(statistic: str) -> Callable[[Summary], float]:
    return lambda summary: float(getattr(summary.latencies["itl_s"], statistic))


def _peak_kv(summary: Summary) -> float:
    shares = [s.peak_kv_tokens / s.kv_tokens_capacity for s in summary.servers if s.kv_tokens_capacity]
    return max(shares, default=math.nan)


def _all() -> dict[str, Quantity]:
    found = [
        Quantity("goodput_rps", "goodput", "req/s", "that met the SLO", whole=lambda s: s.goodput_rps),
        _of_measure(find_measure(_SLO)),
    ]
    for column in (
        "ttft_s",
        "tpot_s",
        "e2e_s",
        *(name for name in LATENCIES if name not in ("ttft_s", "tpot_s", "e2e_s")),
    ):
        found += [_of_measure(find_measure(f"{statistic}_{column}")) for statistic in ("mean", *QUANTILES)]
    gap, meaning = LATENCY_LABELS["itl_s"], LATENCY_MEANINGS["itl_s"]
    found += [
        Quantity(f"{statistic}_itl_s", f"{statistic} {gap}", "s", meaning, whole=_gap(statistic))
        for statistic in ("mean", *QUANTILES)
    ]
    found += [
        Quantity("request_throughput_rps", "throughput", "req/s", "finished", whole=lambda s: s.request_throughput_rps),
        Quantity("input_throughput_tps", "input", "tok/s", "of finished", whole=lambda s: s.input_throughput_tps),
        Quantity("output_throughput_tps", "output", "tok/s", "of finished", whole=lambda s: s.output_throughput_tps),
        Quantity("concurrency", "concurrency", "count", "mean at the servers", whole=lambda s: s.concurrency),
        Quantity("cache_hit_rate", "cache hits", "share", "cached over prompt tokens", per_request=_cached_share),
        Quantity("lost_share", "lost", "share", "rejected, failed or cancelled", per_request=_lost),
        Quantity("retractions", "retractions", "count", "whole run", per_request=_retractions),
        Quantity("peak_kv_share", "peak KV", "share", "largest share of a server's KV tokens", whole=_peak_kv),
        Quantity("utilisation", "utilisation", "share", "mean of the servers", whole=lambda s: s.utilisation),
        Quantity(
            "imbalance_requests", "imbalance", "share", "of requests over servers", whole=lambda s: s.imbalance.requests
        ),
        Quantity("cost", "cost", "count", "whole run, in the prices' currency", whole=lambda s: s.cost.total),
        Quantity(
            "cost_per_1k_requests", "cost per 1k req", "count", "of finished", whole=lambda s: s.cost.per_1k_requests
        ),
        Quantity(
            "cost_per_million_output_tokens",
            "cost per 1M out",
            "count",
            "tokens of finished requests",
            whole=lambda s: s.cost.per_million_output_tokens,
        ),
        Quantity("window_s", "window", "s", "over which rates are counted", whole=lambda s: s.window_s),
    ]
    return {quantity.name: quantity for quantity in found}


QUANTITIES: Final = _all()
