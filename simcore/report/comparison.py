"""Several policies over the same workload: who is best, and by how much for sure."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from simcore import statistics
from simcore.errors import UserError
from simcore.measures import Measure, find_measure
from simcore.pairing import aligned, rng_of
from simcore.statistics import Difference, Estimate
from simcore.summary import Summary, json_safe

__all__ = ["COMPARISON_SCHEMA_VERSION", "SIGNIFICANCE", "Against", "Comparison", "Contender", "MeasuredRun", "compare"]

COMPARISON_SCHEMA_VERSION: Final = 1
SIGNIFICANCE: Final = 0.05
"""Differences with a smaller p-value are called significant."""

_ALWAYS_ESTIMATED: Final = (
    "mean_ttft_s",
    "p99_ttft_s",
    "mean_tpot_s",
    "p99_tpot_s",
    "mean_e2e_s",
    "p99_e2e_s",
    "mean_router_wait_s",
)


@dataclass(frozen=True, slots=True)
class MeasuredRun:
    """What a comparison needs of a run: its summary and its requests as ``metrics.observe`` gives them."""

    summary: Summary
    observed: pd.DataFrame


@dataclass(frozen=True, slots=True)
class Against:
    """A policy less the best one in the ranking metric; ``p_value`` is Holm's, for all policies of the comparison."""

    absolute: Estimate
    relative: Estimate
    p_value: float
    significant: bool


@dataclass(frozen=True, slots=True)
class Contender:
    """A policy, its estimates by the measure's name, and how it stands against the best (None for the best itself)."""

    policy: str
    runs: tuple[MeasuredRun, ...]
    estimates: dict[str, Estimate]
    against_best: Against | None

    def mean(self, field: str) -> float:
        """A number of the summary, averaged over the seeds."""
        return float(np.mean([getattr(run.summary, field) for run in self.runs]))

    def cost(self) -> dict[str, float]:
        """The summaries' cost, averaged over the seeds; NaN where no price was given."""
        costs = [asdict(run.summary.cost) for run in self.runs]
        return {name: float(np.mean([cost[name] for cost in costs])) for name in costs[0]}

    def lost(self) -> float:
        """Share of the measured requests that were rejected, failed or cancelled, over all seeds."""
        total = sum(run.summary.measured_requests for run in self.runs)
        lost = sum(run.summary.measured[status] for run in self.runs for status in ("rejected", "failed", "cancelled"))
        return lost / total if total else 0.0


@dataclass(frozen=True, slots=True)
class Comparison:
    """Best first by ``rank_by``. ``seeds`` are those that every policy ran with."""

    scenario: str
    rank_by: Measure
    seeds: tuple[int, ...]
    confidence: float
    contenders: tuple[Contender, ...]

    @property
    def best(self) -> Contender:
        return self.contenders[0]

    @property
    def has_slo(self) -> bool:
        return bool(self.best.runs[0].summary.slo)

    @property
    def method(self) -> str:
        """How the intervals and differences were made, in words."""
        if len(self.seeds) > 1:
            return f"t-intervals over {len(self.seeds)} seeds, differences paired by seed"
        return "block bootstrap over consecutive requests of one seed, differences paired by request"

    def to_dict(self) -> dict[str, object]:
        """What ``comparison.json`` holds; NaN as None."""
        policies = [
            {
                "rank": rank,
                "policy": contender.policy,
                "estimates": {name: asdict(value) for name, value in contender.estimates.items()},
                "request_throughput_rps": contender.mean("request_throughput_rps"),
                "output_throughput_tps": contender.mean("output_throughput_tps"),
                "cache_hit_rate": contender.mean("cache_hit_rate"),
                "utilisation": contender.mean("utilisation"),
                "lost_share": contender.lost(),
                "cost": contender.cost(),
                "against_best": asdict(contender.against_best) if contender.against_best else None,
            }
            for rank, contender in enumerate(self.contenders, 1)
        ]
        safe = json_safe(
            {
                "schema_version": COMPARISON_SCHEMA_VERSION,
                "scenario": self.scenario,
                "seeds": self.seeds,
                "rank_by": self.rank_by.name,
                "confidence": self.confidence,
                "method": self.method,
                "policies": policies,
            }
        )
        assert isinstance(safe, dict)
        return safe


def compare(runs: Sequence[MeasuredRun], *, rank_by: str | None = None, confidence: float = 0.95) -> Comparison:
    """Rank the policies of ``runs``, which share scenario and workload and have one run a policy and seed.

    ``rank_by`` is a name of ``measures.find_measure``; by default goodput if the scenario sets an SLO, else mean E2E.
    Raises UserError for an unknown metric, or one that needs an SLO where there is none, and ValueError for runs that
    do not belong together.
    """
    by_policy = _by_policy(runs)
    summary = runs[0].summary
    measure = find_measure(rank_by or ("goodput_rps" if summary.slo else "mean_e2e_s"))
    if measure.higher_is_better and not summary.slo:
        raise UserError(f"cannot rank by {measure.name}: scenario {summary.scenario} sets no slo")
    names = dict.fromkeys(
        [measure.name, *(("goodput_rps", "slo_attainment") if summary.slo else ()), *_ALWAYS_ESTIMATED]
    )
    estimates = {
        policy: {name: _estimate(find_measure(name), own, confidence) for name in names}
        for policy, own in by_policy.items()
    }
    order = sorted(by_policy, key=lambda policy: _rank_key(measure, estimates[policy][measure.name]))
    against = _against_best(measure, [by_policy[policy] for policy in order], confidence)
    return Comparison(
        scenario=summary.scenario,
        rank_by=measure,
        seeds=tuple(run.summary.seed for run in by_policy[order[0]]),
        confidence=confidence,
        contenders=tuple(
            Contender(policy, by_policy[policy], estimates[policy], difference)
            for policy, difference in zip(order, against, strict=True)
        ),
    )


def _by_policy(runs: Sequence[MeasuredRun]) -> dict[str, tuple[MeasuredRun, ...]]:
    by_policy: dict[str, tuple[MeasuredRun, ...]] = {}
    for run in sorted(runs, key=lambda run: run.summary.seed):
        by_policy[run.summary.policy] = (*by_policy.get(run.summary.policy, ()), run)
    seeds = {tuple(run.summary.seed for run in own) for own in by_policy.values()}
    if len(seeds) != 1 or len(set(next(iter(seeds)))) != len(next(iter(seeds))):
        raise ValueError("a comparison needs one run for each policy and seed")
    if len({(run.summary.scenario, run.summary.warmup_s, tuple(run.summary.slo.items())) for run in runs}) != 1:
        raise ValueError("a comparison needs runs of one scenario, with one warm-up and one SLO")
    return by_policy


def _rank_key(measure: Measure, estimate: Estimate) -> tuple[bool, float]:
    """Best first; what was not measured (NaN) is last."""
    return np.isnan(estimate.value), -estimate.value if measure.higher_is_better else estimate.value


def _values_over_seeds(measure: Measure, runs: Sequence[MeasuredRun]) -> list[float]:
    return [statistics.statistic(measure.values(run.summary, run.observed), measure.quantile) for run in runs]


def _estimate(measure: Measure, runs: Sequence[MeasuredRun], confidence: float) -> Estimate:
    if len(runs) > 1:
        estimate = statistics.estimate_over_seeds(_values_over_seeds(measure, runs), confidence)
    else:
        values = measure.values(runs[0].summary, runs[0].observed)
        estimate = statistics.estimate(values, rng_of(measure.name), quantile=measure.quantile, confidence=confidence)
    # An interval is symmetric; no measure can be negative, and no share more than 1.
    low, high = np.clip([estimate.low, estimate.high], 0.0, 1.0 if measure.unit == "share" else np.inf)
    return replace(estimate, low=float(low), high=float(high))


def _against_best(
    measure: Measure, ordered: Sequence[Sequence[MeasuredRun]], confidence: float
) -> list[Against | None]:
    differences = [_difference(measure, runs, ordered[0], confidence) for runs in ordered[1:]]
    p_values = statistics.holm([difference.p_value for difference in differences])
    return [None] + [
        Against(difference.absolute, difference.relative, p_value, p_value < SIGNIFICANCE)
        for difference, p_value in zip(differences, p_values, strict=True)
    ]


def _difference(
    measure: Measure, runs: Sequence[MeasuredRun], best: Sequence[MeasuredRun], confidence: float
) -> Difference:
    if len(runs) > 1:
        values, reference = _values_over_seeds(measure, runs), _values_over_seeds(measure, best)
        return statistics.paired_difference_over_seeds(values, reference, confidence)
    difference = _paired(measure, runs[0], best[0], confidence)
    if measure.unit != "req/s":
        return difference
    # A rate's window ends with the last straggler. One run cannot tell that luck from a difference between policies, so
    # the rates differ only where the shares of good requests do, and in the same direction.
    share = _paired(find_measure("slo_attainment"), runs[0], best[0], confidence)
    same_direction = share.absolute.value * difference.absolute.value > 0
    p_value = max(difference.p_value, share.p_value) if same_direction else 1.0
    return replace(difference, p_value=p_value)


def _paired(measure: Measure, run: MeasuredRun, best: MeasuredRun, confidence: float) -> Difference:
    ours, theirs = _aligned(measure, run, best)
    return statistics.paired_difference(
        ours, theirs, rng_of(measure.name), quantile=measure.quantile, confidence=confidence
    )


def _aligned(measure: Measure, run: MeasuredRun, best: MeasuredRun) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    ours = pd.Series(measure.values(run.summary, run.observed), index=run.observed.index)
    return aligned(ours, pd.Series(measure.values(best.summary, best.observed), index=best.observed.index))
