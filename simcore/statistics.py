"""How sure a number is: intervals for one run and over seeds, and paired differences between policies.

Consecutive requests share queues, so their latencies are correlated and an interval that took them as independent would
be far too narrow. A single run is therefore cut into blocks of consecutive requests, long enough that the blocks hardly
correlate, and whole blocks are resampled (block bootstrap: Carlstein 1986; the batch means of simulation practice: Law,
Simulation Modeling and Analysis, section 9.5). The resamples give the standard error, Student's t with blocks - 1
degrees of freedom the interval. Policies that saw the same requests are compared on the same resampled blocks, which
takes out the luck they share. Several seeds are independent runs: t-intervals over the seeds' values, paired by seed.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy import stats

__all__ = [
    "Difference",
    "Estimate",
    "block_count",
    "difference_from_draws",
    "estimate",
    "estimate_over_seeds",
    "holm",
    "paired_difference",
    "paired_difference_over_seeds",
    "statistic",
]

_Floats = NDArray[np.float64]

_RESAMPLES: Final = 1000
_BLOCK_COUNTS: Final = (256, 128, 64, 32, 16)
_MAX_BLOCK_CORRELATION: Final = 0.1
_LADDER: Final = 256
_CLOSE_LADDER: Final = 512
_CLOSE: Final = 0.1


@dataclass(frozen=True, slots=True)
class Estimate:
    """A value and its confidence interval; the interval is NaN where one observation or none leaves it unknown."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Difference:
    """A policy less the reference: in the metric's unit, as a share of the reference's value, and its two-sided p."""

    absolute: Estimate
    relative: Estimate
    p_value: float


def statistic(values: _Floats, quantile: float | None) -> float:
    """The mean, or the quantile (interpolated linearly) where one is given, of what is not NaN; NaN if nothing is."""
    known = values[~np.isnan(values)]
    if known.size == 0:
        return math.nan
    return float(known.mean() if quantile is None else np.quantile(known, quantile))


def estimate(
    values: _Floats, rng: np.random.Generator, *, quantile: float | None = None, confidence: float = 0.95
) -> Estimate:
    """The mean (or ``quantile``) of one run's ``values``, which stand in order of arrival; NaN are left out."""
    value = statistic(values, quantile)
    blocks = block_count(_influence(values, quantile))
    if blocks < 2:
        return Estimate(value, math.nan, math.nan)
    weights = _block_weights(blocks, rng)
    return _interval(value, _resampled(values, weights, quantile), blocks, confidence)


def paired_difference(
    values: _Floats,
    reference: _Floats,
    rng: np.random.Generator,
    *,
    quantile: float | None = None,
    confidence: float = 0.95,
) -> Difference:
    """``values`` less ``reference``: of the same requests in the same order, NaN where a policy did not finish one."""
    if values.shape != reference.shape:
        raise ValueError(f"paired samples differ in length: {values.size} and {reference.size}")
    ours, theirs = statistic(values, quantile), statistic(reference, quantile)
    blocks = block_count(_influence(values, quantile) - _influence(reference, quantile))
    if blocks < 2:
        return _unknown_difference(ours, theirs)
    weights = _block_weights(blocks, rng)
    our_resamples, their_resamples = _resampled(values, weights, quantile), _resampled(reference, weights, quantile)
    absolute = _interval(ours - theirs, our_resamples - their_resamples, blocks, confidence)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratios = our_resamples / their_resamples - 1
    relative = _interval(_relative(ours, theirs), ratios, blocks, confidence)
    return Difference(absolute, relative, _p_value(absolute, blocks - 1, confidence))


def estimate_over_seeds(values: Sequence[float], confidence: float = 0.95) -> Estimate:
    """The mean over independent runs with a t-interval."""
    mean = float(np.mean(values))
    if len(values) < 2:
        return Estimate(mean, math.nan, math.nan)
    return _around(mean, float(np.std(values, ddof=1)) / math.sqrt(len(values)), len(values) - 1, confidence)


def difference_from_draws(draws: Sequence[float], observed: float, confidence: float = 0.95) -> Estimate:
    """The mean of independent draws less one observation, with what chance may make of that: where the observation is
    one more draw, zero is in the interval with such a probability (prediction interval of Student's t)."""
    scatter = float(np.std(draws, ddof=1)) if len(draws) > 1 else math.nan
    difference = float(np.mean(draws)) - observed
    return _around(difference, scatter * math.sqrt(1 + 1 / len(draws)), len(draws) - 1, confidence)


def paired_difference_over_seeds(
    values: Sequence[float], reference: Sequence[float], confidence: float = 0.95
) -> Difference:
    """``values`` less ``reference``, one value a seed, the seeds in the same order (paired t-test)."""
    ours, theirs = np.asarray(values, dtype="float64"), np.asarray(reference, dtype="float64")
    absolute = estimate_over_seeds((ours - theirs).tolist(), confidence)
    if ours.size < 2:
        return _unknown_difference(float(ours.mean()), float(theirs.mean()))
    # The ratio of means, its error by the residuals of ours on theirs (the delta method).
    share = _relative(float(ours.mean()), float(theirs.mean()))
    residuals = ours - (1 + share) * theirs
    error = float(np.std(residuals, ddof=1)) / math.sqrt(ours.size) / abs(float(theirs.mean()) or math.nan)
    relative = _around(share, error, ours.size - 1, confidence)
    return Difference(absolute, relative, _p_value(absolute, ours.size - 1, confidence))


def holm(p_values: Sequence[float]) -> list[float]:
    """The p-values corrected for their number (Holm 1979): below 0.05, the chance of one false find in all is below it.

    NaN, a comparison that could not be made, counts as one and stays NaN."""
    adjusted = [math.nan] * len(p_values)
    running = 0.0
    known = sorted((p, index) for index, p in enumerate(p_values) if not math.isnan(p))
    for rank, (p, index) in enumerate(known):
        running = max(running, min(1.0, p * (len(p_values) - rank)))
        adjusted[index] = running
    return adjusted


def block_count(values: _Floats) -> int:
    """The most blocks whose means hardly correlate with the next one's; 0 where fewer than two values are known.

    A sample too small to tell becomes a block a value."""
    if np.count_nonzero(~np.isnan(values)) < 2:
        return 0
    if values.size < 2 * _BLOCK_COUNTS[-1]:
        return int(values.size)
    for blocks in _BLOCK_COUNTS[:-1]:
        if values.size >= 2 * blocks and _lag_one_correlation(_block_means(values, blocks)) < _MAX_BLOCK_CORRELATION:
            return blocks
    return _BLOCK_COUNTS[-1]


def _influence(values: _Floats, quantile: float | None) -> _Floats:
    """What a request contributes to the statistic's error: its value, or whether it is above the quantile."""
    if quantile is None:
        return values
    return np.where(np.isnan(values), np.nan, (values > statistic(values, quantile)).astype("float64"))


def _block_of(size: int, blocks: int) -> NDArray[np.int64]:
    return np.arange(size, dtype="int64") * blocks // size


def _block_sums(values: _Floats, blocks: int) -> tuple[_Floats, _Floats]:
    """Of each block: the sum of what is known and how many are."""
    block, known = _block_of(values.size, blocks), ~np.isnan(values)
    sums = np.bincount(block, weights=np.where(known, values, 0.0), minlength=blocks)
    return sums.astype("float64"), np.bincount(block[known], minlength=blocks).astype("float64")


def _block_means(values: _Floats, blocks: int) -> _Floats:
    sums, counts = _block_sums(values, blocks)
    return sums[counts > 0] / counts[counts > 0]


def _lag_one_correlation(series: _Floats) -> float:
    centred = series - series.mean() if series.size else series
    variance = float(np.dot(centred, centred))
    return float(np.dot(centred[1:], centred[:-1])) / variance if variance > 0 else 0.0


def _block_weights(blocks: int, rng: np.random.Generator) -> _Floats:
    """(resamples, blocks): how often each resample drew each block."""
    return rng.multinomial(blocks, np.full(blocks, 1 / blocks), size=_RESAMPLES).astype("float64")


def _resampled(values: _Floats, weights: _Floats, quantile: float | None) -> _Floats:
    """The statistic of every resample, from sums (or histograms) of the blocks: the requests are read once."""
    with np.errstate(invalid="ignore"):
        if quantile is None:
            sums, counts = _block_sums(values, weights.shape[1])
            resampled: _Floats = (weights @ sums) / (weights @ counts)
            return resampled
        return _resampled_quantile(values, weights, quantile)


def _resampled_quantile(values: _Floats, weights: _Floats, quantile: float) -> _Floats:
    known = ~np.isnan(values)
    if not known.any():
        return np.full(len(weights), np.nan)
    ladder = _ladder(np.sort(values[known]), quantile)
    cell = _block_of(values.size, weights.shape[1])[known] * ladder.size + np.searchsorted(ladder, values[known])
    histograms = np.bincount(cell, minlength=weights.shape[1] * ladder.size).reshape(-1, ladder.size)
    reached = np.cumsum(weights @ histograms, axis=1)
    rung = (reached < quantile * reached[:, -1:]).sum(axis=1)
    resampled: _Floats = ladder[np.minimum(rung, ladder.size - 1)]
    return resampled


def _ladder(ordered: _Floats, quantile: float) -> _Floats:
    """Upper bounds of the histogram's cells: values at even ranks, and closer ones around the quantile."""
    last, near = ordered.size - 1, min(quantile, 1 - quantile, _CLOSE)
    everywhere = np.linspace(0, last, _LADDER)
    close = np.linspace((quantile - near) * last, min((quantile + near) * last, last), _CLOSE_LADDER)
    ranks = np.unique(np.concatenate([everywhere, close]).astype("int64"))
    return np.unique(np.append(ordered[ranks], ordered[last]))


def _interval(value: float, resamples: _Floats, blocks: int, confidence: float) -> Estimate:
    known = resamples[np.isfinite(resamples)]
    if known.size < _RESAMPLES // 2:
        return Estimate(value, math.nan, math.nan)
    # The bootstrap divides by the number of blocks where the unbiased variance has one less.
    return _around(value, float(known.std()) * math.sqrt(blocks / (blocks - 1)), blocks - 1, confidence)


def _around(value: float, error: float, degrees: int, confidence: float) -> Estimate:
    reach = float(stats.t.ppf((1 + confidence) / 2, degrees)) * error
    return Estimate(value, value - reach, value + reach)


def _p_value(difference: Estimate, degrees: int, confidence: float) -> float:
    if math.isnan(difference.low):
        return math.nan
    error = (difference.high - difference.value) / float(stats.t.ppf((1 + confidence) / 2, degrees))
    if error == 0:
        return 1.0 if difference.value == 0 else 0.0
    return float(2 * stats.t.sf(abs(difference.value) / error, degrees))


def _relative(ours: float, theirs: float) -> float:
    return ours / theirs - 1 if theirs else math.nan


def _unknown_difference(ours: float, theirs: float) -> Difference:
    nan = math.nan
    return Difference(Estimate(ours - theirs, nan, nan), Estimate(_relative(ours, theirs), nan, nan), nan)
