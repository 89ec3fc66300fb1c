"""What a run costs, by hand."""

import json
import math
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from support.engine import flat_profile, fleet, replay, run, scenario
from support.remote import api
from support.results import make_result, measured

from simcore.cost import costs_of_servers
from simcore.errors import UserError
from simcore.manifest import make_manifest
from simcore.run_folder import load_run, write_run
from simcore.scenario import load_scenario

OWN = {"server_id": "s0", "price_per_hour": 3.6}
API = {"server_id": "s1", "input_price_per_million": 10.0, "output_price_per_million": 20.0, "busy_s": math.nan}


def request(server: str, **fields: object) -> dict[str, object]:
    times = {"arrived_at": 0.0, "dispatched_at": 0.0, "first_token_at": 1.0, "finished_at": 2.0}
    return {"server_id": server, "prompt_tokens": 1000, "output_tokens": 500, **times, **fields}


def test_hours_and_tokens() -> None:
    """3.6 an hour over 100 s are 0.1; 2000 prompt and 1000 output tokens are 0.02 + 0.02."""
    result = make_result([request("s0"), request("s1"), request("s1")], servers=[OWN, API], duration_s=100.0)
    cost = measured(result).summary.cost
    assert cost.own == pytest.approx(0.1)
    assert cost.remote == pytest.approx(0.04)
    assert cost.total == pytest.approx(0.14)
    assert cost.per_1k_requests == pytest.approx(0.14 / 3 * 1000)
    assert cost.per_million_output_tokens == pytest.approx(0.14 / 1500 * 1e6)


def test_servers_and_models_have_their_parts() -> None:
    servers = [OWN | {"model": "a"}, API | {"model": "b"}]
    rows = [request("s0", model="a"), request("s1", model="b"), request("s1", model="b")]
    summary = measured(make_result(rows, servers=servers, duration_s=100.0)).summary
    assert [server.cost for server in summary.servers] == pytest.approx([0.1, 0.04])
    assert [(model.model, model.cost.total) for model in summary.models] == [
        ("a", pytest.approx(0.1)),
        ("b", pytest.approx(0.04)),
    ]
    assert summary.models[1].cost.per_1k_requests == pytest.approx(20.0)
    assert summary.models[1].measured["finished"] == 2


def test_what_was_turned_away_is_free_and_what_broke_off_is_not() -> None:
    refused = request("s1", status="rejected", first_token_at=np.nan, finished_at=np.nan, output_tokens=0)
    broken = request("s1", status="failed", finished_at=np.nan, output_tokens=100)
    costs = costs_of_servers(make_result([refused, broken], servers=[API]))
    assert costs.loc["s1", "remote"] == pytest.approx((10 * 1000 + 20 * 100) / 1e6)


def test_the_warm_up_is_paid_for() -> None:
    result = make_result([request("s1"), request("s1", arrived_at=50.0)], servers=[API])
    assert measured(result, warmup_s=10.0).summary.cost == measured(result).summary.cost


def test_without_a_price_there_is_no_cost() -> None:
    summary = measured(make_result([request("s0")])).summary
    told = summary.to_dict()["cost"]
    assert told == dict.fromkeys(("total", "own", "remote", "per_1k_requests", "per_million_output_tokens"))
    assert math.isnan(summary.servers[0].cost)


def test_a_price_of_nothing_is_a_price() -> None:
    cost = measured(make_result([request("s0")], servers=[OWN | {"price_per_hour": 0.0}])).summary.cost
    assert cost.total == cost.per_1k_requests == 0.0


def test_no_finished_request_leaves_the_ratios_open() -> None:
    cost = measured(make_result([request("s0", status="failed")], servers=[OWN])).summary.cost
    assert cost.total > 0
    assert math.isnan(cost.per_1k_requests)


def test_a_run_with_both(tmp_path: Path) -> None:
    """Round robin: two requests each. The own server runs 1.5 s, until the API's second answer."""
    groups = fleet(tmp_path, flat_profile(), api())
    groups[0]["price_per_hour"] = 7200
    result = run(scenario(groups, replay(tmp_path, [(0, 100, 11)] * 4)))
    assert result.duration_s == 1.5
    costs = costs_of_servers(result)
    assert costs.loc["s0", "own"] == pytest.approx(3.0)
    assert costs.loc["s1", "remote"] == pytest.approx((200 * 1 + 22 * 2) / 1e6)
    assert math.isnan(costs.loc["s1", "own"])


def test_an_apis_work_is_unknown_and_left_out_of_the_servers_mean() -> None:
    rows = [request("s0"), request("s1"), request("s1")]
    summary = measured(make_result(rows, servers=[OWN | {"busy_s": 5.0}, API], duration_s=10.0)).summary
    assert summary.utilisation == 0.5
    assert summary.imbalance.requests == 0.0, "one own server: nothing to be out of balance"


@pytest.mark.parametrize("price", ["-1", ".nan", ".inf"])
def test_a_price_that_cannot_be(price: str) -> None:
    with pytest.raises(UserError, match=r"servers\.0\.price_per_hour"):
        load_scenario("quickstart", [f"servers.0.price_per_hour={price}"])


def test_records_of_before_there_were_prices_can_be_read(tmp_path: Path) -> None:
    result, then = make_result([request("s0")]), datetime(2025, 1, 31, tzinfo=UTC)
    manifest = make_manifest(result, command=["simroute"], profiles={}, started_at=then, finished_at=then)
    folder = write_run(tmp_path, result, measured(result), config="name: tiny\n", manifest=manifest)
    table = pq.read_table(folder / "servers.parquet")
    gone = ["model", "price_per_hour", "input_price_per_million", "output_price_per_million"]
    pq.write_table(table.drop_columns(gone), folder / "servers.parquet")
    summary = json.loads((folder / "summary.json").read_text())
    del summary["cost"], summary["models"]
    for server in summary["servers"]:
        del server["model"], server["cost"]
    (folder / "summary.json").write_text(json.dumps(summary))
    stored = load_run(folder)
    assert stored.result.servers["model"].tolist() == [""]
    assert stored.result.servers["price_per_hour"].isna().all()
    assert stored.summary.models == []
    assert math.isnan(stored.summary.cost.total)
