"""What a run is told by: each number agrees with the summary's, and with the mean of what requests have a share in."""

import numpy as np
import pytest
from support.results import make_result, measured, noisy_result

from simcore.compare.quantities import QUANTITIES, find_quantity, quantities_of
from simcore.compare.side import Side, same_workload
from simcore.errors import UserError
from simcore.metrics import summarise
from simcore.records import RunResult

SLO = {"ttft_s": 0.05, "tpot_s": None, "e2e_s": None}


def side(result: RunResult, *, warmup_s: float = 0.0, slo: dict[str, float | None] | None = None) -> Side:
    return Side.make("it", result, summarise(result, SLO if slo is None else slo, warmup_s))


@pytest.fixture
def run() -> Side:
    result = noisy_result(requests=300)
    table = result.requests
    table.loc[:4, "status"] = "failed"
    table.loc[5:9, "status"] = "rejected"
    table.loc[5:9, "dispatched_at"] = np.nan
    table["cached_tokens"] = np.arange(300) % 50
    table["prompt_tokens"] = 50 + np.arange(300) % 70
    table.loc[20:24, "retractions"] = 2
    result.servers["price_per_hour"] = 3.0
    return side(result, warmup_s=0.3)


def test_each_agrees_with_the_summary(run: Side) -> None:
    summary = run.summary
    said = {
        "goodput_rps": summary.goodput_rps,
        "slo_attainment": summary.slo_attainment,
        "request_throughput_rps": summary.request_throughput_rps,
        "input_throughput_tps": summary.input_throughput_tps,
        "output_throughput_tps": summary.output_throughput_tps,
        "concurrency": summary.concurrency,
        "cache_hit_rate": summary.cache_hit_rate,
        "retractions": summary.retractions,
        "utilisation": summary.utilisation,
        "window_s": summary.window_s,
        "imbalance_requests": summary.imbalance.requests,
        "peak_kv_share": 0.5,
        "cost": summary.cost.total,
        "cost_per_1k_requests": summary.cost.per_1k_requests,
        "cost_per_million_output_tokens": summary.cost.per_million_output_tokens,
        "lost_share": sum(summary.measured[s] for s in ("rejected", "failed", "cancelled")) / summary.measured_requests,
    }
    for column, spread in summary.latencies.items():
        said |= {f"{name}_{column}": getattr(spread, name) for name in ("mean", "p50", "p90", "p95", "p99")}

    assert set(said) == set(QUANTITIES)
    for name, value in said.items():
        assert QUANTITIES[name].value(run) == pytest.approx(value, nan_ok=True), name
    assert summary.retractions == 10
    assert 0 < summary.cache_hit_rate < 1


def test_an_slo_is_compared_only_where_all_have_the_same() -> None:
    with_slo, other = side(noisy_result(requests=50)), side(noisy_result(requests=50), slo={"ttft_s": 0.1})
    without = side(noisy_result(requests=50), slo={})

    def has(*sides: Side) -> bool:
        return "goodput_rps" in {quantity.name for quantity in quantities_of(*sides)}

    assert has(with_slo, with_slo)
    assert not has(with_slo, other)
    assert not has(without, without)


def test_an_unknown_name_is_a_users_mistake() -> None:
    with pytest.raises(UserError, match="did you mean mean_ttft_s"):
        find_quantity("mean_tfft_s")


def test_the_same_workload_is_told_by_prompts_and_by_answers_that_both_finished() -> None:
    one = make_result([{"prompt_tokens": 5}, {"prompt_tokens": 7, "output_tokens": 3}])

    assert same_workload(one, make_result([{"prompt_tokens": 5}, {"prompt_tokens": 7, "output_tokens": 3}]))
    assert not same_workload(one, make_result([{"prompt_tokens": 5}]))
    assert not same_workload(one, make_result([{"prompt_tokens": 5}, {"prompt_tokens": 8, "output_tokens": 3}]))
    assert not same_workload(one, make_result([{"prompt_tokens": 5}, {"prompt_tokens": 7, "output_tokens": 4}]))
    cut_short = {"prompt_tokens": 7, "output_tokens": 1, "status": "failed"}
    assert same_workload(one, make_result([{"prompt_tokens": 5}, cut_short]))


def test_measured_rows_stand_in_the_order_of_what_is_observed() -> None:
    result = make_result([{"arrived_at": 5.0}, {"arrived_at": 1.0}, {"arrived_at": 3.0}])
    found = side(result, warmup_s=2.0)

    assert found.measured["request_id"].tolist() == [2, 0] == found.observed.index.tolist()
    assert measured(result, warmup_s=2.0).observed.index.tolist() == [2, 0]
