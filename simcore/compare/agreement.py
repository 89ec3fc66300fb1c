"""How well a simulation agrees with the runs that it stands for."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
import pandas as pd

from simcore.statistics import Estimate, difference_from_draws

from .difference import distance
from .quantities import QUANTITIES, Quantity
from .side import Side

__all__ = ["AGREEMENTS", "SERIES", "Agreement", "agreements"]

_STATISTICS: Final = ("mean", "p50", "p90", "p99")
_LATENCIES: Final = ("ttft_s", "tpot_s", "e2e_s", "router_wait_s")

SERIES: Final = "series_e2e_s"
"""The course of E2E over the run: the mean distance of the two worlds' means by time of arrival, over mean E2E."""

AGREEMENTS: Final = (
    *(f"{statistic}_{column}" for column in _LATENCIES for statistic in _STATISTICS),
    "request_throughput_rps",
    "output_throughput_tps",
    "cache_hit_rate",
    "retractions",
    SERIES,
)
"""What is held against the real runs."""

_SPANS: Final = 10

Scale = Literal["relative", "of E2E", "points"]


@dataclass(frozen=True, slots=True)
class Agreement:
    """One quantity, averaged over the repeats of one setting. ``error`` is simulated less real, by its ``scale``:

    relative   over the real value; for a count over at least 1
    of E2E     over the same statistic of the real E2E, for a time that may be 0
    points     as it is, for a share
    """

    name: str
    label: str
    unit: str
    real: float
    simulated: float
    error: Estimate
    scale: Scale


def agreements(real: Sequence[Side], *draws: Sequence[Side]) -> dict[str, Agreement]:
    """By name, all of ``AGREEMENTS``; real runs, and those of each draw of the simulation, one a repeat in the same
    order. What is simulated is the mean over the draws; several tell what chance makes of one more, the intervals."""
    found = {name: _agreement(QUANTITIES[name], real, draws) for name in AGREEMENTS if name != SERIES}
    found[SERIES] = _series(real, draws)
    return found


def _agreement(quantity: Quantity, real: Sequence[Side], draws: Sequence[Sequence[Side]]) -> Agreement:
    simulated = [quantity.mean(sides) for sides in draws]
    values = [quantity.mean(real), float(np.mean(simulated))]
    if len(draws) == 1:
        absolute = distance(quantity, draws[0], real).difference.absolute
    else:
        absolute = difference_from_draws(simulated, values[0])
    scale: Scale = "relative"
    over = max(values[0], 1.0) if quantity.unit == "count" else values[0]
    if quantity.unit == "share":
        scale, over = "points", 1.0
    elif quantity.name.endswith("router_wait_s"):
        whole = QUANTITIES[quantity.name.replace("router_wait_s", "e2e_s")]
        scale, over = "of E2E", float(np.mean([whole.value(side) for side in real]))
    error = _scaled(absolute, over)
    return Agreement(quantity.name, quantity.label, quantity.unit, values[0], values[1], error, scale)


def _scaled(absolute: Estimate, over: float) -> Estimate:
    if not over > 0:
        return Estimate(math.nan, math.nan, math.nan)
    return Estimate(absolute.value / over, absolute.low / over, absolute.high / over)


def _series(real: Sequence[Side], draws: Sequence[Sequence[Side]]) -> Agreement:
    distances, means = [], []
    for one, *others in zip(real, *draws, strict=True):
        course = _course(one, one)
        its_course = pd.concat([_course(other, one) for other in others]).groupby(level=0).mean()
        distances.append(float((its_course - course).abs().mean()))
        means.append(float(one.observed["e2e_s"].mean()))
    mean, apart = float(np.mean(means)), float(np.mean(distances))
    error = Estimate(apart / mean if mean > 0 else math.nan, math.nan, math.nan)
    return Agreement(SERIES, "E2E over time", "s", mean, mean + apart, error, "relative")


def _course(side: Side, spans_of: Side) -> pd.Series:
    """Mean E2E by the tenth of the measured time in which a request arrives."""
    arrived = spans_of.observed["arrived_at"]
    edges = np.linspace(arrived.min(), arrived.max(), _SPANS + 1)
    span = np.clip(np.searchsorted(edges, side.observed["arrived_at"], side="right") - 1, 0, _SPANS - 1)
    return side.observed["e2e_s"].groupby(span).mean()
