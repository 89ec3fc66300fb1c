"""Fleets of several models: requests go to servers of their model, by shares or by a trace's column."""

import json
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.engine import column, fixed_lengths, flat_profile, fleet, replay, run, scenario
from support.remote import api
from support.scenarios import Case, cases

from policies import PolicyError, make_policy
from policies.needs import needs_reports
from simcore.engine import simulate
from simcore.errors import UserError
from simcore.experiment.check import check_experiment
from simcore.records import RunResult
from simcore.scenario import PolicySpec, Scenario

A, B = flat_profile(name="fa", model="a"), flat_profile(name="fb", model="b")


def workload(requests: int = 200, **sections: Any) -> dict[str, object]:
    arrivals = {"kind": "poisson", "rate_rps": 50}
    return {"arrivals": arrivals, "requests": requests, "lengths": fixed_lengths(10, 5), **sections}


def model_of_server(result: RunResult) -> dict[str, str]:
    return dict(zip(result.servers["server_id"], result.servers["model"], strict=True))


def strays(result: RunResult) -> int:
    """Requests on a server of another model."""
    sent = result.requests[result.requests["server_id"] != ""]
    return int((sent["server_id"].map(model_of_server(result)) != sent["model"]).sum())


def test_shares_and_servers_by_model(tmp_path: Path) -> None:
    shares = {"a": 3, "b": 1}
    result = run(scenario(fleet(tmp_path, A, B, count=2), workload(2000, models=shares)))
    assert result.requests["model"].value_counts(normalize=True)["a"] == pytest.approx(0.75, abs=0.03)
    assert strays(result) == 0
    counts = result.requests.groupby("model")["server_id"].value_counts()
    assert abs(counts["a", "s0"] - counts["a", "s1"]) <= 1, "each model's servers in turn, whatever the others get"
    assert abs(counts["b", "s2"] - counts["b", "s3"]) <= 1


def test_a_shares_draw_leaves_the_rest_of_the_workload_alone(tmp_path: Path) -> None:
    one = run(scenario(fleet(tmp_path, A), workload()))
    two = run(scenario(fleet(tmp_path, A, B), workload(models={"a": 1, "b": 1})))
    assert column(one, "arrived_at") == column(two, "arrived_at")


def test_a_session_stays_with_its_model(tmp_path: Path) -> None:
    sessions = {
        "turns": {"kind": "fixed", "turns": 3},
        "think_s": {"kind": "fixed", "time_s": 0},
        "message": {"kind": "fixed", "tokens": 5},
    }
    result = run(scenario(fleet(tmp_path, A, B), workload(90, sessions=sessions, models={"a": 1, "b": 1})))
    assert (result.requests.groupby("session_id")["model"].nunique() == 1).all()
    assert result.requests["model"].nunique() == 2


def test_a_group_serves_under_another_name(tmp_path: Path) -> None:
    servers = [{**group, "model": "chat"} for group in fleet(tmp_path, A, api(model="theirs"))]
    result = run(scenario(servers, workload(20)))
    assert set(result.servers["model"]) == set(result.requests["model"]) == {"chat"}


def test_a_traces_model_column(tmp_path: Path) -> None:
    rows = ["Timestamp,Model,Request tokens,Response tokens", "2,GPT-4,10,5", "0,ChatGPT,10,5", "1,ChatGPT,10,5"]
    (tmp_path / "trace.csv").write_text("\n".join([*rows, ""]))
    trace = {"kind": "burstgpt", "path": str(tmp_path / "trace.csv"), "models": {"ChatGPT": "a", "GPT-4": "b"}}
    result = run(scenario(fleet(tmp_path, A, B), {"trace": trace}))
    assert column(result, "model") == ["a", "a", "b"], "in order of time"
    assert strays(result) == 0

    trace["models"] = {"ChatGPT": "a"}
    with pytest.raises(UserError, match=r"trace\.csv:2: column 'Model': 'GPT-4' is none of trace\.models \(ChatGPT\)"):
        run(scenario(fleet(tmp_path, A), {"trace": trace}))


def test_a_trace_without_the_column(tmp_path: Path) -> None:
    section = replay(tmp_path, [(0, 5, 5)])
    section["trace"] = {**section["trace"], "models": {"ChatGPT": "m"}}  # type: ignore[dict-item]
    with pytest.raises(UserError, match="column 'Model': missing; the header has Timestamp, Request tokens"):
        run(scenario(fleet(tmp_path), section))


def test_shares_over_a_trace(tmp_path: Path) -> None:
    section = replay(tmp_path, [(at, 5, 5) for at in range(40)], models={"a": 1, "b": 1})
    result = run(scenario(fleet(tmp_path, A, B), section))
    assert set(column(result, "model")) == {"a", "b"}


@pytest.mark.parametrize(
    ("models", "message"),
    [
        (None, "the servers serve a, b: say in workload.models which of them requests ask for"),
        ({"a": 1, "c": 1}, "workload.models: no server serves 'c'; there are a, b"),
    ],
)
def test_a_model_that_nobody_serves_is_a_mistake(tmp_path: Path, models: dict[str, float] | None, message: str) -> None:
    wrong = scenario(fleet(tmp_path, A, B), workload(**({} if models is None else {"models": models})))
    for refuse in (lambda: check_experiment(wrong), lambda: run(wrong)):
        with pytest.raises(UserError, match=message):
            refuse()


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ({"models": {}}, "at least 1 item"),
        ({"models": {"a": 0}}, "greater than 0"),
        ({"models": {"a": -1}}, "greater than 0"),
        ({"models": {"": 1}}, "at least 1 character"),
    ],
)
def test_shares_that_cannot_be(tmp_path: Path, sections: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        scenario(fleet(tmp_path, A), workload(**sections))


def test_shares_and_a_column_exclude_each_other(tmp_path: Path) -> None:
    section = replay(tmp_path, [(0, 5, 5)], models={"a": 1})
    section["trace"] = {**section["trace"], "models": {"ChatGPT": "a"}}  # type: ignore[dict-item]
    with pytest.raises(ValueError, match=r"'models' draws what 'trace.models' reads"):
        scenario(fleet(tmp_path, A), section)


# -- remote APIs -----------------------------------------------------------------------------------------------------


def test_an_api_by_its_limit_makes_requests_wait_at_the_router(tmp_path: Path) -> None:
    section = replay(tmp_path, [(0, 10, 11)] * 4)
    result = run(scenario(fleet(tmp_path, api(requests_per_minute=2)), section))
    assert column(result, "dispatched_at") == [0, 0, 30, 60]
    assert column(result, "first_token_at") == [0.5, 0.5, 30.5, 60.5]
    assert column(result, "finished_at") == [1.5, 1.5, 31.5, 61.5]
    assert set(column(result, "status")) == {"finished"}
    assert set(column(result, "attempts")) == {1}


def test_what_the_router_reckons_wrong_the_api_sends_back_and_it_waits(tmp_path: Path) -> None:
    """600 tokens a minute: the router knows of the prompts' 100 a request, the API counts 600 with the answer's limit:
    the account is even after the first, and overdrawn by a minute's after the second."""
    section = replay(tmp_path, [(0, 100, 500)] * 3, expected_output={"kind": "none"})
    result = run(scenario(fleet(tmp_path, api(tokens_per_minute=600)), section))
    assert column(result, "dispatched_at") == pytest.approx([0, 0, 60])
    assert set(column(result, "status")) == {"finished"}
    assert set(column(result, "attempts")) == {1}


def test_an_api_that_is_full_in_a_way_the_router_does_not_know_of_rejects(tmp_path: Path) -> None:
    """As a server whose queue is full: the cap that the router had is taken away while the requests run."""
    section = replay(tmp_path, [(0.1, 10, 11), (0.2, 10, 11)])
    lifted = [{"at_s": 0, "max_running_requests": None}]
    result = run(scenario(fleet(tmp_path, api(max_running_requests=1)), section, control=lifted))
    assert column(result, "status") == ["finished", "rejected"]
    assert column(result, "reason") == ["", "the API's rate limit is reached"]


def test_an_apis_cap_is_the_routers(tmp_path: Path) -> None:
    section = replay(tmp_path, [(0, 10, 11), (0, 10, 11)])
    result = run(scenario(fleet(tmp_path, api(max_running_requests=1)), section))
    assert column(result, "dispatched_at") == [0, 1.5]


def test_local_first_overflows_to_the_api(tmp_path: Path) -> None:
    """One slot, three requests of a second each: what is predicted for the own server is above half a second from the
    second request on, once the first token of the first has told."""
    section = replay(tmp_path, [(0, 10, 2000), (0.5, 10, 2000), (4, 10, 10), (4.1, 10, 10), (4.2, 10, 10)])
    groups = fleet(tmp_path, flat_profile(), api())
    policy = PolicySpec(name="local_first", params={"max_wait_s": 0.5})
    result = simulate(scenario(groups, section), policy, seed=0)
    assert column(result, "server_id")[0] == "s0"
    assert "s1" in column(result, "server_id")
    assert set(column(result, "status")) == {"finished"}


def test_a_policy_that_needs_reports_is_refused_beside_an_api(tmp_path: Path) -> None:
    with pytest.raises(PolicyError, match=r"least_kv needs .*kv_tokens_used.*, which this run does not provide"):
        run(scenario(fleet(tmp_path, flat_profile(), api()), workload(5)), "least_kv")


def test_the_timeline_and_the_servers_table_tell_of_an_api_what_is_known(tmp_path: Path) -> None:
    result = run(scenario(fleet(tmp_path, api()), replay(tmp_path, [(0, 10, 11)])))
    (row,) = result.servers.to_dict("records")
    assert row["profile"] == "api"
    assert row["busy_s"] != row["busy_s"]
    assert (row["prefill_tokens"], row["decode_tokens"], row["kv_tokens_capacity"]) == (10, 10, 0)
    assert result.itl.to_dict("list") == {"gap_s": [0.1], "count": [10]}
    assert result.requests["server_queue_s"].isna().all(), "an API does not tell"
    assert result.timeline["running"].max() == 1


# -- whatever happens ------------------------------------------------------------------------------------------------


def mixed(case: Case, limits: dict[str, float], folder: Path) -> Scenario:
    """The case's fleet serving two models in turn, with an API for each, and requests for both."""
    made = case.scenario(folder)
    groups = [{**group.model_dump(exclude_unset=True), "model": "ab"[i % 2]} for i, group in enumerate(made.servers)]
    for model in "ab":
        path = folder / f"api-{model}.json"
        path.write_text(api(model=model, output_tps=200, **limits).to_json())
        groups.append({"profile": str(path)})
    document = json.loads(made.model_dump_json(exclude_unset=True)) | {"servers": groups}
    document["workload"]["models"] = {"a": 2, "b": 1}
    return Scenario.model_validate(document)


@given(
    case=cases(),
    limits=st.fixed_dictionaries(
        {
            "requests_per_minute": st.sampled_from([None, 30, 600]),
            "tokens_per_minute": st.sampled_from([None, 20_000]),
            "max_running_requests": st.sampled_from([None, 2]),
        }
    ),
)
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
def test_no_request_lands_at_a_server_of_another_model(case: Case, limits: dict[str, float]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        made = mixed(case, limits, Path(folder))
        if needs_reports(make_policy(case.policy, {}, 0)):
            with pytest.raises(PolicyError, match="which this run does not provide"):
                run(made, case.policy, seed=case.seed)
            return
        result = run(made, case.policy, seed=case.seed)
    assert strays(result) == 0
    assert set(result.requests["status"]) <= {"finished", "rejected", "failed", "cancelled"}
    assert set(result.requests["model"]) <= {"a", "b"}
