"""How one run, or one run a seed, differs from another, and how sure that is."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from scipy import stats

from simcore import statistics
from simcore.pairing import aligned, rng_of
from simcore.statistics import Difference, Estimate

from .quantities import Quantity
from .side import Side, same_workload

__all__ = ["Distance", "distance", "unpaired"]


@dataclass(frozen=True, slots=True)
class Distance:
    """A difference and what its interval stands on: the same requests, the same seeds, or nothing in common."""

    difference: Difference
    paired: bool


def distance(quantity: Quantity, ours: Sequence[Side], theirs: Sequence[Side], confidence: float = 0.95) -> Distance:
    """``ours`` less ``theirs``, both one run a seed in the same order.

    Several runs: a paired t-interval over the seeds. One run: a block bootstrap, of the same requests in both where
    the workload is the same, else of each run by itself. The interval is NaN where no request has a share in the
    quantity. Raises ValueError for sequences of different length.
    """
    if len(ours) > 1:
        mine_by_seed, others_by_seed = ([quantity.value(side) for side in sides] for sides in (ours, theirs))
        over_seeds = statistics.paired_difference_over_seeds(mine_by_seed, others_by_seed, confidence)
        return Distance(over_seeds, True)
    (mine,), (other,) = ours, theirs
    alike = same_workload(mine.result, other.result)
    if quantity.per_request is None:
        only = statistics.paired_difference_over_seeds([quantity.value(mine)], [quantity.value(other)], confidence)
        return Distance(only, alike)
    values, reference = quantity.per_request(mine), quantity.per_request(other)
    rng, quantile = rng_of(quantity.name), quantity.quantile
    if alike:
        pair = aligned(values, reference)
        return Distance(statistics.paired_difference(*pair, rng, quantile=quantile, confidence=confidence), True)
    each = [
        statistics.estimate(series.to_numpy("float64"), rng, quantile=quantile, confidence=confidence)
        for series in (values, reference)
    ]
    return Distance(unpaired(each[0], each[1], confidence), False)


def unpaired(ours: Estimate, theirs: Estimate, confidence: float) -> Difference:
    """From two independent estimates: their intervals' reaches add as squares (MOVER: Zou and Donner 2008; for the
    ratio, to first order). The p-value takes the error as normal."""
    value = ours.value - theirs.value
    reach, other_reach = ours.high - ours.value, theirs.high - theirs.value
    together = math.hypot(reach, other_reach)
    absolute = Estimate(value, value - together, value + together)
    error = together / float(stats.norm.ppf((1 + confidence) / 2))
    if error > 0:
        p_value = float(2 * stats.norm.sf(abs(value) / error))
    else:
        p_value = math.nan if math.isnan(error) else float(value == 0)
    if not theirs.value:
        nothing = Estimate(math.nan, math.nan, math.nan)
        return Difference(absolute, nothing, p_value)
    share = ours.value / theirs.value
    spread = math.hypot(reach, share * other_reach) / abs(theirs.value)
    return Difference(absolute, Estimate(share - 1, share - 1 - spread, share - 1 + spread), p_value)
