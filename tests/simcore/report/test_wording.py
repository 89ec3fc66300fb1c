import math

import pytest
from support.results import measured, noisy_result

from simcore.report import compare
from simcore.report.wording import latency_unit, number, percent, verdict, warnings


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0"),
        (0.012345, "0.0123"),
        (1.2345, "1.23"),
        (12.345, "12.3"),
        (123.45, "123"),
        (12345.6, "12,346"),
        (-2.5, "-2.50"),
        (math.nan, "-"),
        (math.inf, "-"),
    ],
)
def test_number(value: float, text: str) -> None:
    assert number(value) == text


@pytest.mark.parametrize(
    ("share", "text"),
    [
        (0.0, "0%"),
        (0.0004, "0.04%"),
        (-0.0004, "-0.04%"),
        (-1e-9, "0.00%"),
        (0.031, "3.1%"),
        (-0.072, "-7.2%"),
        (0.31, "31%"),
        (0.9997, "99.97%"),
        (0.999999, "99.99%"),
        (1.0, "100%"),
        (math.nan, "-"),
    ],
)
def test_percent(share: float, text: str) -> None:
    assert percent(share) == text


def test_latencies_are_shown_in_one_unit_a_column() -> None:
    assert latency_unit([0.1, math.nan, 9.0]).format(0.1) == "100"
    assert latency_unit([0.1, 63.0]).format(63.0) == "63.0"
    assert latency_unit([]).name == "ms"


def test_verdict_names_winner_ties_and_losers() -> None:
    runs = [
        measured(noisy_result(slower=slower, luck=luck, policy=policy))
        for luck, (policy, slower) in enumerate({"random": 1.3, "least_request": 1.0, "power_of_two": 1.0}.items())
    ]
    best, ties, losers = verdict(compare(runs))

    assert "is best: mean E2E" in best
    assert "(95% CI " in best
    assert ties in {
        "least_request and power_of_two are not significantly different.",
        "power_of_two and least_request are not significantly different.",
    }
    assert losers.startswith("random is 30% slower (95% CI ")


def test_verdict_on_goodput_and_on_lost_requests() -> None:
    slow = noisy_result(policy="slow", slower=2.0, luck=1)
    dropped = slow.requests["request_id"] % 4 == 0
    slow.requests.loc[dropped, "status"] = "rejected"
    slo = {"ttft_s": 0.05}
    lines = verdict(compare([measured(noisy_result(policy="fast"), slo), measured(slow, slo)]))

    assert lines[0].startswith("fast is best: goodput ")
    assert "slow is " in lines[1]
    assert "% worse (95% CI" in lines[1]
    assert lines[2].startswith("slow lost 25% of the requests")


def test_verdict_of_one_policy_claims_no_victory() -> None:
    (line,) = verdict(compare([measured(noisy_result())]))

    assert line.startswith("random: mean E2E ")


def test_warnings_that_differ_in_percentages_only_are_said_once() -> None:
    said = {
        ("a", 0): ["p was extrapolated in 2.5% of steps, at most by 10%", "3 were left out"],
        ("a", 1): ["p was extrapolated in 10.0% of steps, at most by 10%"],
        ("b", 0): ["q was extrapolated in 1% of steps"],
        ("b", 1): ["p was extrapolated in 3.5% of steps, at most by 10%", "4 were left out"],
    }
    runs = [
        measured(noisy_result(policy=policy, seed=seed, requests=50, warnings=list(texts)))
        for (policy, seed), texts in said.items()
    ]

    assert sorted(warnings(compare(runs))) == [
        ("3 of 4 runs", "p was extrapolated in 2.5% to 10.0% of steps, at most by 10%"),
        ("a, seed 0", "3 were left out"),
        ("b, seed 0", "q was extrapolated in 1% of steps"),
        ("b, seed 1", "4 were left out"),
    ]
