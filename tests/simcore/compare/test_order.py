"""Kendall's tau over the pairs that really differ: worked examples."""

import math
from itertools import permutations

import numpy as np
import pytest
from scipy import stats

from simcore.compare.order import compare_orders, honest_difference


def once(**values: float) -> dict[str, list[float]]:
    return {name: [value] for name, value in values.items()}


def test_without_ties_it_is_kendalls_tau() -> None:
    real = once(a=1, b=2, c=3, d=4)
    for values in permutations((1.0, 2.0, 3.0, 4.0)):
        simulated = {name: [value] for name, value in zip("abcd", values, strict=True)}
        expected = stats.kendalltau([1, 2, 3, 4], values).statistic
        assert compare_orders(real, simulated, 0.0).tau == pytest.approx(expected)


def test_a_worked_example_with_ties() -> None:
    # Real: a and b are within 0.5 of each other, so are c and d. Left are ac, ad, bc, bd; the simulation has b after c.
    real, simulated = once(a=1.0, b=1.4, c=3.0, d=3.3), once(a=1, b=3, c=2, d=4)
    order = compare_orders(real, simulated, 0.5)

    assert (order.pairs, order.ties) == (4, 2)
    assert order.tau == (3 - 1) / 4
    (pair,) = order.broken
    assert (pair.first, pair.second) == ("b", "c")
    assert (pair.real, pair.simulated) == pytest.approx((1.6, -1.0))


def test_ties_may_come_in_any_order_in_the_simulation() -> None:
    real = once(a=1.0, b=1.1, c=9.0)

    assert compare_orders(real, once(a=2, b=1, c=9), 0.5).tau == 1.0
    assert compare_orders(real, once(a=2, b=1, c=9), 0.05).tau == pytest.approx(1 / 3)


def test_what_the_simulation_cannot_tell_apart_costs_and_is_named() -> None:
    order = compare_orders(once(a=1, b=2), once(a=5, b=5), 0.0)

    assert order.tau == 0
    assert [(pair.first, pair.second) for pair in order.broken] == [("a", "b")]


def test_a_difference_as_large_as_the_noise_is_a_tie() -> None:
    order = compare_orders(once(a=1, b=2), once(a=2, b=1), 1.0)

    assert (order.pairs, order.ties, order.broken) == (0, 1, ())
    assert math.isnan(order.tau)


def test_policies_that_could_not_be_measured_are_left_out() -> None:
    order = compare_orders(once(a=1, b=2, c=math.nan), once(a=1, b=2, c=0), 0.0)

    assert (order.tau, order.pairs) == (1.0, 1)


def test_the_noise_is_tukeys_of_the_values_less_policy_and_repeat() -> None:
    # Two policies, three repeats; what the repeats share is no noise. Differences 1, 2 and 3 have a deviation of 1.
    shared = np.array([0.0, 100.0, 7.0])
    values = [shared, shared + np.array([1.0, 2.0, 3.0])]

    # For two rows Tukey's is the paired t-test: t(0.975, 2) * 1 / sqrt(3).
    assert honest_difference([list(row) for row in values]) == pytest.approx(4.302653 / math.sqrt(3), rel=1e-3)


def test_more_policies_need_a_larger_difference() -> None:
    rng = np.random.default_rng(0)
    table = rng.normal(size=(6, 3))
    left = table - table.mean(1, keepdims=True) - table.mean(0, keepdims=True) + table.mean()
    error = math.sqrt((left**2).sum() / 10 / 3)

    # The tables of the studentised range have 4.91 for six means and ten degrees of freedom.
    assert honest_difference(table.tolist()) / error == pytest.approx(4.91, abs=0.01)


def test_one_repeat_knows_no_noise_and_none_is_found_where_nothing_varies() -> None:
    assert honest_difference([[1.0], [2.0]]) == math.inf
    assert honest_difference([[1.0, 2.0]]) == 0.0
    assert honest_difference([[1.0, 1.0], [2.0, 2.0]]) == 0.0
    order = compare_orders(once(a=1, b=2), once(a=1, b=2))
    assert (order.pairs, order.ties, order.noise) == (0, 1, math.inf)
