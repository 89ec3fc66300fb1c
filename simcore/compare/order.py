"""The order of policies in two worlds: Kendall's tau over the pairs that really differ in one of them."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import combinations
from typing import Final

import numpy as np
from scipy import stats

__all__ = ["Order", "Pair", "compare_orders", "honest_difference"]

_CONFIDENCE: Final = 0.95


@dataclass(frozen=True, slots=True)
class Pair:
    """Two policies, ``first`` the lower one in the real world; the differences are second less first, of means."""

    first: str
    second: str
    real: float
    simulated: float


@dataclass(frozen=True, slots=True)
class Order:
    """How well an order is kept. ``noise`` is the least real difference that is no tie.

    ``tau`` is (concordant - discordant) / pairs, over the pairs that are no tie in the real world; a pair that the
    simulation has as equal is neither, which costs as well. With no ties at all it is Kendall's tau. NaN where every
    pair is a tie: then there is no order to keep. ``broken`` are the pairs that the simulation has the other way round,
    or as equal.
    """

    tau: float
    pairs: int
    ties: int
    broken: tuple[Pair, ...]
    noise: float


def compare_orders(
    real: Mapping[str, Sequence[float]], simulated: Mapping[str, Sequence[float]], noise: float | None = None
) -> Order:
    """``real`` and ``simulated`` have a value a repeat for each policy, repeats in the same order.

    A pair is a tie where the real means differ by no more than ``noise``; by default ``honest_difference``. Policies
    with a value that is NaN are left out.
    """
    names = [name for name in real if not any(map(math.isnan, [*real[name], *simulated[name]]))]
    if noise is None:
        noise = honest_difference([real[name] for name in names])
    pairs, agreed, ties = 0, 0, 0
    broken: list[Pair] = []
    for one, other in combinations(names, 2):
        first, second = sorted((one, other), key=lambda name: float(np.mean(real[name])))
        pair = Pair(
            first, second, *(float(np.mean(world[second]) - np.mean(world[first])) for world in (real, simulated))
        )
        if pair.real <= noise:
            ties += 1
            continue
        pairs += 1
        agreed += (pair.simulated > 0) - (pair.simulated < 0)
        if pair.simulated <= 0:
            broken.append(pair)
    return Order(agreed / pairs if pairs else math.nan, pairs, ties, tuple(broken), noise)


def honest_difference(values: Sequence[Sequence[float]]) -> float:
    """Tukey's honest significant difference at 5% between the means of rows, one row a policy and a column a repeat.

    Repeats are blocks (all policies see the same requests in one), so the noise is what is left of the values when the
    policies' and the repeats' means are taken off, with (policies - 1)(repeats - 1) degrees of freedom. Infinite for
    one repeat, which says nothing of noise; 0 for one policy.
    """
    table = np.asarray(values, dtype="float64")
    if len(table) < 2:
        return 0.0
    policies, repeats = table.shape
    if repeats < 2:
        return math.inf
    left = table - table.mean(axis=1, keepdims=True) - table.mean(axis=0, keepdims=True) + table.mean()
    degrees = (policies - 1) * (repeats - 1)
    variance = float((left**2).sum()) / degrees
    return _studentized_range(policies, degrees) * math.sqrt(variance / repeats)


@cache
def _studentized_range(policies: int, degrees: int) -> float:
    return float(stats.studentized_range.ppf(_CONFIDENCE, policies, degrees))
