import math

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats
from scipy.signal import lfilter

from simcore import statistics


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def correlated(size: int, correlation: float, seed: int) -> NDArray[np.float64]:
    """A stationary AR(1) series of mean 0."""
    noise = rng(seed).normal(size=size + 500)
    return np.asarray(lfilter([1.0], [1.0, -correlation], noise))[500:]


@pytest.mark.parametrize(("correlation", "size"), [(0.0, 400), (0.0, 5000), (0.9, 5000)])
def test_interval_covers_the_mean_as_often_as_it_says(correlation: float, size: int) -> None:
    hits = 0
    for seed in range(80):
        found = statistics.estimate(correlated(size, correlation, seed), rng(seed))
        hits += found.low <= 0 <= found.high

    assert 70 <= hits <= 80


def test_interval_covers_a_quantile() -> None:
    true_p90 = stats.norm.ppf(0.9) / math.sqrt(1 - 0.8**2)
    hits = 0
    for seed in range(60):
        found = statistics.estimate(correlated(4000, 0.8, seed), rng(seed), quantile=0.9)
        hits += found.low <= true_p90 <= found.high

    assert 51 <= hits <= 60


def test_correlation_widens_the_interval() -> None:
    values = correlated(5000, 0.9, 1)
    width = (lambda found: found.high - found.low)(statistics.estimate(values, rng()))
    shuffled = (lambda found: found.high - found.low)(statistics.estimate(rng(2).permutation(values), rng()))

    assert width > 2 * shuffled
    assert statistics.block_count(values) < statistics.block_count(rng(2).permutation(values))


def test_estimate_is_the_plain_statistic_without_nan() -> None:
    values = rng().exponential(size=1000)
    values[::3] = np.nan
    known = values[~np.isnan(values)]

    assert statistics.estimate(values, rng()).value == known.mean()
    assert statistics.estimate(values, rng(), quantile=0.99).value == np.quantile(known, 0.99)


def test_estimates_depend_on_the_seed_alone() -> None:
    values = rng().exponential(size=1000)

    assert statistics.estimate(values, rng(5)) == statistics.estimate(values, rng(5))
    assert statistics.estimate(values, rng(5)) != statistics.estimate(values, rng(6))


@pytest.mark.parametrize("values", [[], [np.nan, np.nan], [1.0], [1.0, np.nan]])
def test_one_value_has_no_interval(values: list[float]) -> None:
    found = statistics.estimate(np.array(values), rng())

    assert math.isnan(found.low)
    assert math.isnan(found.high)


def test_more_confidence_is_a_wider_interval() -> None:
    values = rng().normal(size=500)
    narrow = statistics.estimate(values, rng(), confidence=0.8)
    wide = statistics.estimate(values, rng(), confidence=0.99)

    assert wide.low < narrow.low < narrow.high < wide.high


@pytest.mark.parametrize("quantile", [None, 0.5, 0.99])
def test_a_planted_difference_is_found(quantile: float | None) -> None:
    load = np.exp(correlated(5000, 0.95, 3) * 0.2)
    reference = load * rng(1).uniform(0.9, 1.1, 5000)
    slower = 1.05 * load * rng(2).uniform(0.9, 1.1, 5000)

    found = statistics.paired_difference(slower, reference, rng(), quantile=quantile)

    assert found.p_value < 0.01
    assert found.relative.low <= 0.05 <= found.relative.high
    assert found.absolute.value > 0


def test_no_difference_is_rarely_found() -> None:
    false_finds = 0
    for seed in range(60):
        load = np.exp(correlated(2000, 0.95, seed) * 0.2)
        ours, theirs = (load * rng(1000 * side + seed).uniform(0.9, 1.1, 2000) for side in (1, 2))
        false_finds += statistics.paired_difference(ours, theirs, rng(seed)).p_value < 0.05

    assert false_finds <= 8


def test_pairing_takes_out_the_shared_load() -> None:
    load = np.exp(correlated(5000, 0.99, 3) * 0.2)
    ours, theirs = load * 1.02, load.copy()
    paired = statistics.paired_difference(ours, theirs, rng())
    alone = statistics.estimate(ours, rng())

    assert paired.p_value < 0.001
    assert paired.absolute.high - paired.absolute.low < 0.1 * (alone.high - alone.low)


def test_identical_policies_do_not_differ() -> None:
    values = rng().exponential(size=300)
    found = statistics.paired_difference(values, values, rng())

    assert found.p_value == 1.0
    assert (found.absolute.low, found.absolute.high) == (0.0, 0.0)


def test_paired_samples_of_different_length_are_a_defect() -> None:
    with pytest.raises(ValueError, match="3 and 2"):
        statistics.paired_difference(np.zeros(3), np.zeros(2), rng())


def test_a_difference_without_pairs_is_unknown() -> None:
    found = statistics.paired_difference(np.array([1.0, np.nan]), np.array([np.nan, 2.0]), rng())

    assert found.absolute.value == -1.0
    assert math.isnan(found.p_value)


def test_over_seeds_is_the_t_interval() -> None:
    values = [1.0, 1.2, 0.9, 1.1]
    low, high = stats.t.interval(0.95, 3, loc=np.mean(values), scale=stats.sem(values))
    found = statistics.estimate_over_seeds(values)

    assert (found.value, found.low, found.high) == pytest.approx((np.mean(values), low, high))
    assert math.isnan(statistics.estimate_over_seeds([1.0]).low)


def test_difference_over_seeds_is_the_paired_t_test() -> None:
    ours, theirs = [1.1, 2.2, 3.2, 4.5], [1.0, 2.0, 3.0, 4.0]
    found = statistics.paired_difference_over_seeds(ours, theirs)

    assert found.p_value == pytest.approx(stats.ttest_rel(ours, theirs).pvalue)
    assert found.absolute.value == pytest.approx(0.25)
    assert found.relative.value == pytest.approx(0.1)
    assert found.relative.low < 0.1 < found.relative.high


def test_one_more_draw_is_in_the_interval_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    found = [statistics.difference_from_draws(draws, one) for *draws, one in rng.normal(5.0, 2.0, (4000, 5))]
    assert np.mean([one.low <= 0 <= one.high for one in found]) == pytest.approx(0.95, abs=0.01)
    assert np.mean([one.value for one in found]) == pytest.approx(0.0, abs=0.1)
    assert math.isnan(statistics.difference_from_draws([1.0], 2.0).low)


def test_one_seed_cannot_be_compared_by_seeds() -> None:
    assert math.isnan(statistics.paired_difference_over_seeds([1.0], [2.0]).p_value)


def test_holm() -> None:
    assert statistics.holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert statistics.holm([0.9, 0.8]) == [1.0, 1.0]
    assert statistics.holm([]) == []


def test_holm_counts_comparisons_that_could_not_be_made() -> None:
    adjusted = statistics.holm([math.nan, 0.02])

    assert math.isnan(adjusted[0])
    assert adjusted[1] == pytest.approx(0.04)


def test_a_block_never_splits_small_samples_and_has_limits() -> None:
    assert statistics.block_count(np.arange(10.0)) == 10
    assert statistics.block_count(np.array([1.0])) == 0
    assert statistics.block_count(rng().normal(size=100_000)) == 256
    assert statistics.block_count(np.arange(5000.0)) == 16, "a trend correlates at every length"
