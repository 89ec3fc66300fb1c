import json
import math

import pytest
from support.results import make_result, measured, noisy_result

from simcore.errors import UserError
from simcore.report import MeasuredRun, compare

SLO = {"ttft_s": 0.1, "tpot_s": None}


def three(slo: dict[str, float | None] | None = None, seed: int = 0, requests: int = 2000) -> list[MeasuredRun]:
    speeds = {"random": 1.3, "least_request": 1.0, "power_of_two": 1.0}
    return [
        measured(noisy_result(slower=slower, luck=luck, policy=policy, seed=seed, requests=requests), slo)
        for luck, (policy, slower) in enumerate(speeds.items())
    ]


def test_best_first_with_what_is_significant() -> None:
    comparison = compare(three())
    second, worst = comparison.contenders[1:]

    assert comparison.rank_by.name == "mean_e2e_s"
    assert worst.policy == "random"
    assert comparison.best.against_best is None
    assert second.against_best is not None
    assert not second.against_best.significant
    assert worst.against_best is not None
    assert worst.against_best.significant
    assert worst.against_best.relative.low < 0.3 < worst.against_best.relative.high


def test_estimates_agree_with_the_summary() -> None:
    for contender in compare(three(SLO)).contenders:
        summary = contender.runs[0].summary
        assert contender.estimates["goodput_rps"].value == pytest.approx(summary.goodput_rps)
        assert contender.estimates["slo_attainment"].value == pytest.approx(summary.slo_attainment)
        assert contender.estimates["mean_ttft_s"].value == pytest.approx(summary.latencies["ttft_s"].mean)
        assert contender.estimates["p99_e2e_s"].value == pytest.approx(summary.latencies["e2e_s"].p99)


def test_goodput_ranks_where_there_is_an_slo_and_more_is_better() -> None:
    comparison = compare(three(SLO))
    goodput = [contender.estimates["goodput_rps"].value for contender in comparison.contenders]

    assert comparison.rank_by.name == "goodput_rps"
    assert goodput == sorted(goodput, reverse=True)
    worst = comparison.contenders[-1].against_best
    assert worst is not None
    assert worst.absolute.high < 0


def test_a_straggler_makes_no_significant_difference_in_goodput() -> None:
    even, straggling = noisy_result(policy="even"), noisy_result(policy="straggling")
    straggling.requests.loc[0, "finished_at"] = straggling.requests["finished_at"].max() + 30.0
    comparison = compare([measured(even, SLO), measured(straggling, SLO)])
    against = comparison.contenders[1].against_best

    assert comparison.best.policy == "even"
    assert against is not None
    assert against.relative.high < -0.05
    assert not against.significant


def test_a_quantile_can_rank() -> None:
    comparison = compare(three(), rank_by="p99_ttft_s")

    assert comparison.contenders[-1].policy == "random"
    assert "p99_ttft_s" in comparison.best.estimates


def test_order_of_the_runs_does_not_matter() -> None:
    runs = three(SLO)

    assert compare(runs).to_dict() == compare(runs[::-1]).to_dict()


def test_seeds_are_paired() -> None:
    runs = [run for seed in range(4) for run in three(seed=seed, requests=400)]
    comparison = compare(runs)
    worst = comparison.contenders[-1]

    assert comparison.seeds == (0, 1, 2, 3)
    assert "4 seeds" in comparison.method
    assert worst.policy == "random"
    assert worst.against_best is not None
    assert worst.against_best.significant
    assert worst.against_best.relative.value == pytest.approx(0.3, abs=0.03)


def test_requests_that_only_one_policy_measured_do_not_break_pairing() -> None:
    first, second = noisy_result(policy="a"), noisy_result(policy="b", slower=1.2, luck=1)
    late = second.requests["request_id"] % 7 == 0
    second.requests.loc[late, "arrived_at"] = math.nan
    against = compare([measured(first), measured(second)]).contenders[1].against_best

    assert against is not None
    assert against.significant
    assert against.relative.value == pytest.approx(0.2, abs=0.05)


def test_a_policy_that_finished_nothing_is_last() -> None:
    nothing = make_result([{"arrived_at": 1.0, "status": "rejected"}] * 50, policy="none")
    comparison = compare([measured(nothing), measured(noisy_result(policy="some", requests=50))])

    last = comparison.contenders[-1]
    assert last.policy == "none"
    assert last.lost() == 1.0
    assert last.against_best is not None
    assert not last.against_best.significant


def test_comparison_is_json() -> None:
    data = json.loads(json.dumps(compare(three(SLO)).to_dict(), allow_nan=False))

    assert list(data) == ["schema_version", "scenario", "seeds", "rank_by", "confidence", "method", "policies"]
    assert [policy["rank"] for policy in data["policies"]] == [1, 2, 3]
    assert data["policies"][0]["against_best"] is None
    assert set(data["policies"][1]["against_best"]) == {"absolute", "relative", "p_value", "significant"}


def test_unknown_metric_and_goodput_without_slo_are_the_users_mistakes() -> None:
    with pytest.raises(UserError, match="unknown metric 'speed'; known are goodput_rps"):
        compare(three(), rank_by="speed")
    with pytest.raises(UserError, match="sets no slo"):
        compare(three(), rank_by="goodput_rps")


def test_runs_that_do_not_belong_together_are_a_defect() -> None:
    runs = three()
    with pytest.raises(ValueError, match="one run for each policy and seed"):
        compare([*runs, runs[0]])
    with pytest.raises(ValueError, match="one run for each policy and seed"):
        compare([*runs, measured(noisy_result(policy="random", seed=1))])
    with pytest.raises(ValueError, match="one scenario"):
        compare([*runs, measured(noisy_result(policy="x", scenario="other"))])


def test_intervals_stay_within_what_can_be() -> None:
    """A share is at most 1, and nothing measured is negative."""
    result = noisy_result(requests=40)
    result.requests.loc[0, "first_token_at"] = result.requests.loc[0, "arrived_at"] + 1.0
    estimates = compare([measured(result, {"ttft_s": 0.5})]).best.estimates

    assert 0.95 < estimates["slo_attainment"].value < 1
    assert estimates["slo_attainment"].high == 1
    assert all(estimate.low >= 0 for estimate in estimates.values())
