"""A scenario's ``control``: changes at given times, while requests run."""

from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from policies import PolicyError
from simcore.engine import simulate
from simcore.errors import UserError
from simcore.experiment.check import check_experiment
from simcore.scenario import PolicySpec, Scenario, load_scenario, resolved_yaml

WORKLOAD = {
    "arrivals": {"kind": "poisson", "rate_rps": 40},
    "duration_s": 10,
    "lengths": {"prompt": {"kind": "fixed", "tokens": 100}, "output": {"kind": "fixed", "tokens": 50}},
}


def scenario(*control: dict[str, Any]) -> Scenario:
    servers = ({"profile": "llama-3.1-8b-h100", "count": 2},)
    return Scenario.model_validate({"name": "c", "workload": WORKLOAD, "servers": servers, "control": control})


def requests(given: Scenario, policy: str = "round_robin") -> pd.DataFrame:
    frame = simulate(given, PolicySpec(name=policy), 3).requests
    assert set(frame["status"]) == {"finished"}
    return frame


def test_a_drained_server_gets_nothing_until_it_is_back() -> None:
    frame = requests(
        scenario({"at_s": 2, "server": "s1", "draining": True}, {"at_s": 6, "server": "s1", "draining": False})
    )
    away = frame["dispatched_at"].between(2, 6, inclusive="neither")
    assert set(frame[away]["server_id"]) == {"s0"}
    assert set(frame[~away]["server_id"]) == {"s0", "s1"}


def test_with_all_servers_drained_requests_wait_and_none_is_lost() -> None:
    frame = requests(scenario({"at_s": 2, "draining": True}, {"at_s": 5, "draining": False}))
    assert not frame["dispatched_at"].between(2, 5, inclusive="neither").any()
    assert (frame["arrived_at"].between(2, 5)).any()


def test_a_policy_takes_over_at_its_time() -> None:
    before = requests(scenario())
    after = requests(scenario({"at_s": 5, "policy": "random"}))
    early = before["arrived_at"] < 5
    assert (before[early]["server_id"] == after[early]["server_id"]).all()
    assert (before[~early]["server_id"] != after[~early]["server_id"]).any()


def test_a_policy_that_takes_over_gets_its_reports() -> None:
    served = requests(scenario({"at_s": 5, "policy": {"name": "parameter_aware", "params": {"queue_weight": 2.0}}}))
    assert (served["status"] == "finished").all()


def test_what_a_later_policy_needs_is_checked_at_the_start() -> None:
    given = scenario({"at_s": 5, "policy": "shortest_job_first"}).model_copy()
    blind = Scenario.model_validate(
        {**given.model_dump(exclude_unset=True), "workload": {**WORKLOAD, "expected_output": {"kind": "none"}}}
    )
    with pytest.raises(PolicyError, match="expected_output_tokens"):
        simulate(blind, PolicySpec(name="random"), 0)
    with pytest.raises(PolicyError, match="unknown policy"):
        check_experiment(scenario({"at_s": 5, "policy": "nonsense"}))


@pytest.mark.parametrize(
    ("action", "said"),
    [
        ("{at_s: 1}", "exactly one"),
        ("{at_s: 1, draining: true, max_running_requests: 3}", "exactly one"),
        ("{at_s: 1, draining: null}", "exactly one"),
        ("{at_s: 1, server: s0, policy: random}", "leave out 'server'"),
        ("{at_s: 1, server: s7, draining: true}", "no server 's7'"),
    ],
)
def test_an_action_is_one_change(action: str, said: str, tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    file.write_text(
        "name: c\nworkload:\n  arrivals: {kind: poisson, rate_rps: 1}\n  requests: 1\n  lengths: "
        "{prompt: {kind: fixed, tokens: 1}, output: {kind: fixed, tokens: 1}}\n"
        f"servers: [{{profile: llama-3.1-8b-h100}}]\ncontrol:\n  - {action}\n"
    )
    with pytest.raises(UserError, match=said):
        load_scenario(str(file))


def test_the_resolved_scenario_can_be_read_again(tmp_path: Path) -> None:
    given = scenario(
        {"at_s": 1, "max_running_requests": None}, {"at_s": 2, "draining": True}, {"at_s": 3, "policy": "random"}
    )
    file = tmp_path / "resolved.yaml"
    file.write_text(resolved_yaml(given))
    assert load_scenario(str(file)).control == given.control
