import json
import math
from dataclasses import replace

import numpy as np
import pytest
from support.results import make_result, noisy_result, request_table

from simcore.errors import UserError
from simcore.metrics import LATENCIES, latencies, observe, spread, summarise, weighted_spread
from simcore.summary import Summary

FIRST = {"arrived_at": 1.0, "dispatched_at": 1.5, "first_token_at": 2.0, "finished_at": 4.0, "output_tokens": 11}
SECOND = {"arrived_at": 2.0, "dispatched_at": 2.0, "first_token_at": 2.1, "finished_at": 2.1, "output_tokens": 1}
THIRD = {"arrived_at": 3.0, "dispatched_at": 3.0, "first_token_at": 3.4, "finished_at": 6.0, "output_tokens": 14}
REJECTED = {"arrived_at": 4.0, "status": "rejected", "reason": "queue full", "server_id": "", "output_tokens": 0}
UNFINISHED = {"arrived_at": 5.0, "dispatched_at": 5.5, "status": "unfinished", "output_tokens": 3}


def test_latencies_by_hand() -> None:
    row = latencies(request_table([FIRST])).iloc[0]

    assert row["router_wait_s"] == pytest.approx(0.5)
    assert row["server_latency_s"] == pytest.approx(2.5)
    assert row["e2e_s"] == pytest.approx(3.0)
    assert row["ttft_s"] == pytest.approx(1.0)
    assert row["server_ttft_s"] == pytest.approx(0.5)
    assert row["tpot_s"] == pytest.approx(0.2)


def test_latencies_of_what_did_not_happen_are_nan() -> None:
    table = latencies(request_table([SECOND, REJECTED, UNFINISHED]))

    assert math.isnan(table["tpot_s"][0])
    assert table["e2e_s"][0] == pytest.approx(0.1)
    assert table.iloc[1].isna().all()
    assert table["router_wait_s"][2] == pytest.approx(0.5)
    assert math.isnan(table["e2e_s"][2])


def test_latency_identities() -> None:
    table = latencies(noisy_result().requests)

    np.testing.assert_allclose(table["e2e_s"], table["router_wait_s"] + table["server_latency_s"])
    np.testing.assert_allclose(table["ttft_s"], table["router_wait_s"] + table["server_ttft_s"])


def test_spread_leaves_out_nan() -> None:
    found = spread(np.array([4.0, np.nan, 1.0, 3.0, 2.0]))

    assert found.count == 4
    assert found.mean == 2.5
    assert found.p50 == 2.5
    assert found.p90 == pytest.approx(3.7)
    assert found.max == 4.0
    assert math.isnan(spread(np.array([np.nan])).p99)


def test_weighted_spread_is_that_of_the_repeated_sample() -> None:
    values, counts = np.array([0.3, 0.1, 9.9, 0.2]), np.array([5, 90, 0, 5])
    repeated = np.repeat(values, counts)

    found = weighted_spread(values, counts)

    assert found.count == 100
    assert found.mean == pytest.approx(repeated.mean())
    for name, quantile in {"p50": 0.5, "p90": 0.9, "p95": 0.95, "p99": 0.99}.items():
        assert getattr(found, name) == np.quantile(repeated, quantile, method="inverted_cdf")
    assert found.max == 0.3


def test_weighted_spread_of_nothing() -> None:
    assert weighted_spread(np.array([1.0]), np.array([0])).count == 0


def test_counts_add_up() -> None:
    rows = [FIRST, SECOND, THIRD, REJECTED, UNFINISHED]
    summary = summarise(make_result(rows), {}, 2.5)

    assert summary.counts == {"finished": 3, "rejected": 1, "failed": 0, "cancelled": 0, "unfinished": 1}
    assert summary.measured == {"finished": 1, "rejected": 1, "failed": 0, "cancelled": 0, "unfinished": 1}
    assert summary.requests == 5
    assert summary.measured_requests == 3


def test_unknown_status_is_a_defect() -> None:
    with pytest.raises(ValueError, match="lost"):
        summarise(make_result([{**FIRST, "status": "lost"}]), {}, 0.0)


def test_rates_over_the_window() -> None:
    summary = summarise(make_result([FIRST, SECOND, THIRD, REJECTED]), {}, 0.0)

    assert summary.window_s == 6.0
    assert summary.request_throughput_rps == pytest.approx(3 / 6)
    assert summary.input_throughput_tps == pytest.approx(300 / 6)
    assert summary.output_throughput_tps == pytest.approx(26 / 6)
    assert summary.concurrency == pytest.approx((2.5 + 0.1 + 3.0) / 6)


def test_warmup_excludes_requests_and_shortens_the_window() -> None:
    summary = summarise(make_result([FIRST, SECOND, THIRD]), {}, 2.0)

    assert summary.window_s == 4.0
    assert summary.latencies["e2e_s"].count == 2
    assert summary.latencies["e2e_s"].mean == pytest.approx((0.1 + 3.0) / 2)
    assert summary.request_throughput_rps == pytest.approx(2 / 4)


def test_no_measured_request_is_said() -> None:
    summary = summarise(make_result([FIRST]), {"ttft_s": 1.0}, 9.0)

    assert summary.window_s == 1.0
    assert summary.measured_requests == 0
    assert "warm-up of 9 s" in summary.warnings[0]
    assert math.isnan(summary.slo_attainment)


def test_all_rejected_is_said() -> None:
    summary = summarise(make_result([REJECTED]), {"ttft_s": 1.0}, 0.0)

    assert summary.warnings == ["no measured request finished: there are no latencies"]
    assert summary.slo_attainment == 0.0
    assert summary.request_throughput_rps == 0.0


@pytest.mark.parametrize(
    ("slo", "met"),
    [
        ({"ttft_s": 0.5}, 2),
        ({"ttft_s": 0.4 + 1e-9}, 2),
        ({"ttft_s": 2.0, "tpot_s": 0.2 + 1e-9}, 3),
        ({"tpot_s": 0.1}, 1),
        ({"e2e_s": 1.0, "tpot_s": None}, 1),
    ],
)
def test_goodput_and_attainment(slo: dict[str, float | None], met: int) -> None:
    summary = summarise(make_result([FIRST, SECOND, THIRD, REJECTED, UNFINISHED]), slo, 0.0)

    assert summary.slo_attainment == pytest.approx(met / 4), "the rejected one misses, the unfinished one is unknown"
    assert summary.goodput_rps == pytest.approx(met / 6)
    assert None not in summary.slo.values()


def test_without_slo_there_is_no_goodput() -> None:
    summary = summarise(make_result([FIRST]), {"ttft_s": None}, 0.0)

    assert math.isnan(summary.goodput_rps)
    assert math.isnan(summary.slo_attainment)


@pytest.mark.parametrize("status", ["failed", "cancelled"])
def test_lost_requests_miss_the_slo_and_have_no_latency(status: str) -> None:
    observed = observe(make_result([{**FIRST, "status": status}]), {"ttft_s": 100.0}, 0.0)

    assert observed["good"].tolist() == [0.0]
    assert observed[list(LATENCIES)].isna().all(axis=None)


def test_observed_requests_stand_in_order_of_arrival() -> None:
    observed = observe(make_result([THIRD, FIRST, SECOND]), {}, 1.5)

    assert observed.index.tolist() == [2, 0]
    assert observed["arrived_at"].tolist() == [2.0, 3.0]


def test_servers_and_balance() -> None:
    rows = [
        {**FIRST, "server_id": "s0", "cached_tokens": 50},
        {**THIRD, "server_id": "s1"},
        {**THIRD, "server_id": "s1", "retractions": 2},
    ]
    servers = [
        {"server_id": "s0", "busy_s": 2.0, "peak_kv_tokens": 100},
        {"server_id": "s1", "busy_s": 6.0, "retractions": 2},
        {"server_id": "idle", "busy_s": 0.0},
    ]
    summary = summarise(make_result(rows, servers=servers), {}, 0.0)
    first, second, idle = summary.servers

    assert (first.requests, second.requests, idle.requests) == (1, 2, 0)
    assert (first.utilisation, second.utilisation, idle.utilisation) == (0.2, 0.6, 0.0)
    assert first.cache_hit_rate == 0.5
    assert math.isnan(idle.cache_hit_rate)
    assert second.output_tokens == 28
    assert summary.retractions == 2
    assert summary.cache_hit_rate == pytest.approx(50 / 300)
    assert summary.utilisation == pytest.approx(0.8 / 3)
    assert summary.imbalance.requests == pytest.approx(np.std([1, 2, 0]) / 1)
    assert summary.imbalance.busy == pytest.approx(np.std([2, 6, 0]) / np.mean([2, 6, 0]))


def test_rejected_requests_do_not_lower_the_hit_rate() -> None:
    summary = summarise(make_result([{**FIRST, "cached_tokens": 50}, REJECTED]), {}, 0.0)

    assert summary.cache_hit_rate == 0.5


def test_summary_keys_are_the_schema() -> None:
    data = summarise(make_result([FIRST], itl={"gap_s": [0.2], "count": [10]}), {"ttft_s": 1.0}, 0.0).to_dict()
    spreads, servers = data["latencies"], data["servers"]
    assert isinstance(spreads, dict)
    assert isinstance(servers, list)

    assert " ".join(data) == (
        "schema_version scenario policy seed kind interrupted duration_s warmup_s window_s counts measured slo "
        "request_throughput_rps input_throughput_tps output_throughput_tps goodput_rps slo_attainment concurrency "
        "cache_hit_rate utilisation retractions imbalance latencies servers warnings oracle "
        "controller cost models"
    )
    assert list(spreads) == [*LATENCIES, "itl_s"]
    assert " ".join(spreads["itl_s"]) == "count mean p50 p90 p95 p99 max"
    assert " ".join(servers[0]) == (
        "server_id profile requests finished prompt_tokens cached_tokens output_tokens cache_hit_rate utilisation "
        "prefill_share decode_share mixed_share steps retractions peak_kv_tokens kv_tokens_capacity peak_running "
        "max_running_requests cap_changes model cost"
    )


def test_summary_survives_json() -> None:
    summary = summarise(make_result([SECOND, REJECTED]), {}, 0.0)
    text = json.dumps(summary.to_dict(), allow_nan=False)

    again = Summary.from_dict(json.loads(text), "summary.json")

    assert math.isnan(again.latencies["tpot_s"].mean)
    assert json.dumps(again.to_dict()) == text


def test_summary_of_another_version_is_refused() -> None:
    data = summarise(make_result([FIRST]), {}, 0.0).to_dict()

    with pytest.raises(UserError, match=r"summary.json: schema_version is 99"):
        Summary.from_dict({**data, "schema_version": 99}, "summary.json")
    with pytest.raises(UserError, match=r"summary.json: seed"):
        Summary.from_dict({**data, "seed": "x"}, "summary.json")


def test_run_warnings_are_kept() -> None:
    result = replace(make_result([FIRST]), warnings=["out of range"])

    assert summarise(result, {}, 0.0).warnings == ["out of range"]
