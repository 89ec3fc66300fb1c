"""When requests arrive: renewal processes, an on/off process and the closed loop.

As in sglang.bench_serving the first request arrives at t = 0 and the gaps follow. Where a duration is asked for, the
arrivals are those before it; a longer duration with the same seed starts with the same arrivals.
"""

from collections.abc import Callable
from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from .columns import FloatColumn
from .section import Count, NonNegative, Positive, Section

__all__ = [
    "ArrivalSpec",
    "BurstyArrivals",
    "ClosedLoopArrivals",
    "ConstantArrivals",
    "GammaArrivals",
    "PoissonArrivals",
    "arrival_times",
]


class PoissonArrivals(Section):
    """Independent exponential gaps of mean ``1 / rate_rps``."""

    kind: Literal["poisson"] = "poisson"
    rate_rps: Positive


class GammaArrivals(Section):
    """Independent gamma gaps of mean ``1 / rate_rps`` and coefficient of variation ``cv`` (1 is Poisson)."""

    kind: Literal["gamma"] = "gamma"
    rate_rps: Positive
    cv: Positive


class ConstantArrivals(Section):
    """One request every ``1 / rate_rps`` seconds."""

    kind: Literal["constant"] = "constant"
    rate_rps: Positive


class BurstyArrivals(Section):
    """A Markov-modulated Poisson process with two states.

    It alternates between "off" (``rate_rps``, which may be 0) and "on" (``burst_rate_rps``); the time spent in a state
    is exponential of mean ``off_s`` or ``on_s``. The first state is drawn from the long-run shares, so the mean rate is
    ``(on_s * burst_rate_rps + off_s * rate_rps) / (on_s + off_s)`` from the start.
    """

    kind: Literal["bursty"] = "bursty"
    rate_rps: NonNegative
    burst_rate_rps: Positive
    on_s: Positive
    off_s: Positive


class ClosedLoopArrivals(Section):
    """Every request is ready at t = 0 and the client lets ``max_concurrency`` of them be in flight at a time."""

    kind: Literal["closed_loop"] = "closed_loop"
    max_concurrency: Count


ArrivalSpec = Annotated[
    PoissonArrivals | GammaArrivals | ConstantArrivals | BurstyArrivals | ClosedLoopArrivals,
    Field(discriminator="kind"),
]


def arrival_times(
    spec: ArrivalSpec, rng: np.random.Generator, *, count: int | None = None, duration_s: float | None = None
) -> FloatColumn:
    """Arrival times in seconds, non-decreasing from 0: ``count`` of them, or all before ``duration_s``.

    Exactly one of the two is given; a closed loop has no rate and needs ``count``.
    """
    if (count is None) == (duration_s is None):
        raise ValueError("arrival_times needs a count or a duration, and not both")
    match spec:
        case ClosedLoopArrivals():
            if count is None:
                raise ValueError("a closed loop has no arrival times; it needs a count")
            return np.zeros(count)
        case ConstantArrivals():
            # A division of whole numbers, not a sum of gaps: the thousandth request is as exact as the first.
            n = count if count is not None else int(np.ceil(float(duration_s or 0) * spec.rate_rps))
            return np.arange(n) / spec.rate_rps
        case PoissonArrivals():
            mean_s = 1 / spec.rate_rps
            return _renewals(lambda n: rng.exponential(mean_s, n), spec.rate_rps, count, duration_s)
        case GammaArrivals():
            shape = 1 / spec.cv**2
            scale_s = spec.cv**2 / spec.rate_rps
            return _renewals(lambda n: rng.gamma(shape, scale_s, n), spec.rate_rps, count, duration_s)
        case BurstyArrivals():
            return _bursty(spec, rng, count, duration_s)


def _renewals(
    draw_gaps: Callable[[int], FloatColumn], rate: float, count: int | None, end: float | None
) -> FloatColumn:
    """0 and the running sums of the gaps: ``count`` points, or those before ``end`` (seconds, or expected arrivals)."""
    if count is not None:
        return np.concatenate(([0.0], np.cumsum(draw_gaps(count - 1))))
    assert end is not None
    # Summed in one go at the end, so that the sums do not depend on how many blocks it took.
    block = int(end * rate + 4 * np.sqrt(end * rate)) + 16
    gaps = draw_gaps(block)
    while (times := np.cumsum(gaps))[-1] < end:
        gaps = np.concatenate((gaps, draw_gaps(block)))
    return np.concatenate(([0.0], times[times < end]))


def _bursty(spec: BurstyArrivals, rng: np.random.Generator, count: int | None, end_s: float | None) -> FloatColumn:
    """Unit-rate Poisson points, carried from expected arrivals to seconds through the inverse of the summed rate."""
    states, points = rng.spawn(2)
    on_first = bool(states.random() < spec.on_s / (spec.on_s + spec.off_s))
    if end_s is not None:
        edges_s, expected = _on_off(spec, states, on_first, lambda edge_s, _: edge_s >= end_s)
        end = float(np.interp(end_s, edges_s, expected))
        units = _renewals(lambda n: points.exponential(1, n), 1.0, None, end) if end > 0 else np.zeros(1)
    else:
        units = _renewals(lambda n: points.exponential(1, n), 1.0, count, None)
        last = float(units[-1])
        edges_s, expected = _on_off(spec, states, on_first, lambda _, arrivals: arrivals > last)
    times: FloatColumn = np.interp(units, expected, edges_s)
    times[0] = 0.0
    return times


def _on_off(
    spec: BurstyArrivals, rng: np.random.Generator, on_first: bool, enough: Callable[[float, float], bool]
) -> tuple[FloatColumn, FloatColumn]:
    """The edges between states in seconds and the arrivals expected up to each; as many as are ``enough``."""
    means_s, rates = (spec.off_s, spec.on_s), (spec.rate_rps, spec.burst_rate_rps)
    pair = [1, 0] if on_first else [0, 1]
    stays = np.empty((0, 2))
    block = 64
    while True:
        stays = np.concatenate((stays, rng.exponential(1, (block, 2)) * np.take(means_s, pair)))
        edges_s = np.concatenate(([0.0], np.cumsum(stays.ravel())))
        expected = np.concatenate(([0.0], np.cumsum((stays * np.take(rates, pair)).ravel())))
        if enough(float(edges_s[-1]), float(expected[-1])):
            return edges_s, expected
        block = len(stays)
