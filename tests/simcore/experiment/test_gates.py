import math

import pytest
from support.results import make_result, measured, noisy_result

from simcore.errors import UserError
from simcore.experiment.gates import Gate, failures, parse_gate
from simcore.experiment.metric_values import metric_names
from simcore.report import Comparison, compare

SLO = {"ttft_s": 0.1}


def comparison(*slower: float, seeds: int = 1) -> Comparison:
    return compare(
        [
            measured(noisy_result(policy=f"p{factor:g}", slower=factor, requests=200, seed=seed), SLO)
            for factor in slower
            for seed in range(seeds)
        ]
    )


@pytest.mark.parametrize(
    ("text", "gate"),
    [
        ("p99_ttft_s>0.2", Gate("p99_ttft_s", ">", 0.2)),
        (" goodput_rps <= 1e1 ", Gate("goodput_rps", "<=", 10.0)),
        ("lost_share>=0", Gate("lost_share", ">=", 0.0)),
        ("cache_hit_rate<.5", Gate("cache_hit_rate", "<", 0.5)),
        ("p99_itl_s>inf", Gate("p99_itl_s", ">", math.inf)),
    ],
)
def test_a_gate_is_a_metric_a_sign_and_a_limit(text: str, gate: Gate) -> None:
    assert parse_gate(text, has_slo=True) == gate


def test_a_gate_is_shown_as_it_was_given() -> None:
    assert str(parse_gate("p99_ttft_s >0.2", has_slo=True)) == "p99_ttft_s>0.2"


@pytest.mark.parametrize(
    "text", ["", "p99_ttft_s", "p99_ttft_s=1", "lost_share>", "lost_share>x", "lost_share>nan", ">1"]
)
def test_what_is_no_gate(text: str) -> None:
    with pytest.raises(UserError, match="give it as METRIC>VALUE"):
        parse_gate(text, has_slo=True)


def test_an_unknown_metric() -> None:
    with pytest.raises(UserError, match=r"unknown metric 'p99_tft_s'; known are .*; did you mean p99_ttft_s\?"):
        parse_gate("p99_tft_s>1", has_slo=True)


@pytest.mark.parametrize("metric", ["goodput_rps", "slo_attainment"])
def test_what_is_good_has_to_be_said(metric: str) -> None:
    with pytest.raises(UserError, match=f"{metric} needs an slo"):
        parse_gate(f"{metric}<1", has_slo=False)


@pytest.mark.parametrize(
    ("sign", "limit", "fails"),
    [(">", -1, True), (">", 0, False), (">=", 0, True), ("<", 1, True), ("<", 0, False), ("<=", 0, True)],
)
def test_signs(sign: str, limit: float, fails: bool) -> None:
    assert bool(failures([Gate("lost_share", sign, limit)], comparison(1.0))) == fails


def test_every_policy_has_to_pass() -> None:
    found = comparison(1.0, 3.0)
    values = {one.policy: one.estimates["mean_e2e_s"].value for one in found.contenders}
    (failed,) = failures([Gate("mean_e2e_s", ">", values["p1"] * 2)], found)

    assert (failed.policy, failed.value) == ("p3", pytest.approx(values["p3"]))
    assert str(failed).startswith("p3: mean_e2e_s is ")


def test_over_several_seeds_the_mean_counts() -> None:
    found = comparison(1.0, seeds=3)
    each = [run.summary.latencies["ttft_s"].p99 for run in found.best.runs]
    (failed,) = failures([Gate("p99_ttft_s", ">", 0)], found)

    assert failed.value == pytest.approx(sum(each) / 3)


def test_what_was_not_measured_is_no_pass() -> None:
    nothing = compare([measured(make_result([{"arrived_at": 1.0, "status": "rejected"}] * 50))])
    (failed,) = failures([Gate("p99_ttft_s", ">", 1e9)], nothing)

    assert math.isnan(failed.value)
    assert str(failed) == "random: p99_ttft_s could not be measured, so the gate p99_ttft_s>1e+09 fails"


@pytest.mark.parametrize("metric", metric_names())
def test_every_metric_has_a_value(metric: str) -> None:
    result = noisy_result(requests=100, itl={"gap_s": [0.01, 0.02], "count": [5, 5]})
    (failed,) = failures([Gate(metric, ">=", -1.0)], compare([measured(result, SLO)]))

    assert math.isfinite(failed.value)
