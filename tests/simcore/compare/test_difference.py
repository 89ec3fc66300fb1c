"""Differences of two runs: paired where they had the same requests, of two independent runs otherwise."""

import math

import numpy as np
import pytest
from support.results import noisy_result

from simcore.compare.difference import distance, unpaired
from simcore.compare.quantities import QUANTITIES
from simcore.compare.side import Side
from simcore.metrics import summarise
from simcore.records import RunResult
from simcore.statistics import Estimate

E2E, P99, RATE = QUANTITIES["mean_e2e_s"], QUANTITIES["p99_ttft_s"], QUANTITIES["request_throughput_rps"]


def side(result: RunResult) -> Side:
    return Side.make("it", result, summarise(result, {}, 0.0))


@pytest.mark.parametrize("quantity", QUANTITIES.values(), ids=lambda quantity: quantity.name)
def test_a_run_differs_from_itself_by_nothing(quantity) -> None:  # type: ignore[no-untyped-def]
    run = side(noisy_result(requests=200))
    found = distance(quantity, [run], [run])
    value = quantity.value(run)

    assert found.paired
    assert found.difference.absolute.value == 0 or math.isnan(value)
    for end in (found.difference.absolute.low, found.difference.absolute.high):
        assert end == 0 or math.isnan(end)
    assert found.difference.p_value == 1.0 or math.isnan(found.difference.p_value)


def test_the_same_requests_are_compared_one_by_one() -> None:
    slower, faster = side(noisy_result(slower=1.05, luck=1)), side(noisy_result(luck=2))
    paired = distance(E2E, [slower], [faster])
    other = noisy_result(luck=2)
    other.requests.loc[0, "prompt_tokens"] += 1
    apart = distance(E2E, [slower], [side(other)])

    assert (paired.paired, apart.paired) == (True, False)
    assert paired.difference.absolute.value == pytest.approx(apart.difference.absolute.value)
    # What the requests share does not blur the difference.
    assert paired.difference.p_value < 0.001 < apart.difference.p_value
    assert _reach(paired.difference.absolute) < _reach(apart.difference.absolute) / 5


def test_a_rate_has_no_interval_from_one_run_and_has_one_from_several() -> None:
    ours = [side(noisy_result(slower=2.0, seed=seed, requests=300)) for seed in range(4)]
    theirs = [side(noisy_result(seed=seed, requests=300)) for seed in range(4)]

    assert math.isnan(distance(RATE, ours[:1], theirs[:1]).difference.absolute.low)
    several = distance(RATE, ours, theirs).difference
    assert several.absolute.low < several.absolute.value < several.absolute.high
    by_hand = np.mean([RATE.value(one) - RATE.value(other) for one, other in zip(ours, theirs, strict=True)])
    assert several.absolute.value == pytest.approx(by_hand)


def test_independent_intervals_add_as_squares() -> None:
    found = unpaired(Estimate(10.0, 7.0, 13.0), Estimate(8.0, 4.0, 12.0), 0.95)

    assert found.absolute == Estimate(2.0, 2.0 - 5.0, 2.0 + 5.0)
    # 2 against an error of 5 / 1.96.
    assert found.p_value == pytest.approx(0.4331, abs=1e-4)
    assert found.relative.value == pytest.approx(0.25)
    reach = math.hypot(3.0, 1.25 * 4.0) / 8.0
    assert (found.relative.low, found.relative.high) == pytest.approx((0.25 - reach, 0.25 + reach))


def test_independent_values_without_spread() -> None:
    assert unpaired(Estimate(1.0, 1.0, 1.0), Estimate(1.0, 1.0, 1.0), 0.95).p_value == 1.0
    assert unpaired(Estimate(2.0, 2.0, 2.0), Estimate(1.0, 1.0, 1.0), 0.95).p_value == 0.0
    of_nothing = unpaired(Estimate(1.0, 0.0, 2.0), Estimate(0.0, 0.0, 0.0), 0.95)
    assert math.isnan(of_nothing.relative.value)
    unknown = unpaired(Estimate(1.0, math.nan, math.nan), Estimate(2.0, 1.0, 3.0), 0.95)
    assert math.isnan(unknown.p_value)
    assert unknown.absolute.value == -1.0


def test_a_quantile_has_an_interval_too() -> None:
    found = distance(P99, [side(noisy_result(slower=2.0, luck=1))], [side(noisy_result(luck=2))]).difference

    assert 0.5 < found.relative.low < found.relative.value < found.relative.high
    assert found.relative.value == pytest.approx(1.0, abs=0.25)


def _reach(estimate: Estimate) -> float:
    return estimate.high - estimate.value
