"""A run under other policies: the run itself comes back exactly, and what is changed is all that changes."""

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from support.cli import invoke, sim, tiny
from support.scenarios import Case, cases

from simcore.engine import simulate
from simcore.errors import UserError
from simcore.manifest import make_manifest
from simcore.metrics import observe, summarise
from simcore.records import RunResult
from simcore.report import MeasuredRun
from simcore.run_folder import StoredRun, load_run, write_run
from simcore.scenario import PolicySpec, Scenario, resolved_yaml
from simcore.whatif.counterfactual import what_if
from simcore.whatif.page import trust_line
from simcore.whatif.recorded import recorded_scenario, recorded_workload


def stored(folder: Path, scenario: Scenario, policy: PolicySpec, seed: int) -> StoredRun:
    """A simulated run, written and read back."""
    result = simulate(scenario, policy, seed)
    return kept(folder, result, scenario, policy, seed)


def kept(folder: Path, result: RunResult, scenario: Scenario, policy: PolicySpec, seed: int) -> StoredRun:
    run = MeasuredRun(summarise(result, {}, scenario.warmup_s), observe(result, {}, scenario.warmup_s))
    config = resolved_yaml(scenario.model_copy(update={"policies": (policy,), "seed": seed}))
    now = datetime.now(UTC)
    manifest = make_manifest(result, command=["x"], profiles={}, started_at=now, finished_at=now)
    return load_run(write_run(folder, result, run, config=config, manifest=manifest, with_page=False))


def small(folder: Path, workload: dict[str, object] | None = None, **sections: object) -> Scenario:
    given: dict[str, object] = {
        "arrivals": {"kind": "poisson", "rate_rps": 20},
        "requests": 60,
        "lengths": {"prompt": {"kind": "fixed", "tokens": 100}, "output": {"kind": "uniform", "max_tokens": 60}},
    }
    servers = ({"profile": "llama-3.1-8b-l40s", "count": 2},)
    return Scenario.model_validate(
        {"name": "small", "workload": given | (workload or {}), "servers": servers, **sections}
    )


@given(cases())
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_simulated_run_under_its_own_policy_comes_back_exactly(tmp_path: Path, case: Case) -> None:
    """Sessions, prefixes, closed loops, caps, queue limits, retractions, noise: whatever a run can meet."""
    run = stored(tmp_path, case.scenario(tmp_path), PolicySpec(name=case.policy), case.seed)
    scenario = recorded_scenario(run)
    again = simulate(scenario, scenario.policies[0], run.result.seed, workload=recorded_workload(run, scenario))

    pd.testing.assert_frame_equal(again.requests, run.result.requests, check_exact=True)
    pd.testing.assert_frame_equal(again.servers, run.result.servers, check_exact=True)


def test_it_is_said_to_be_exact_and_the_alternatives_are_what_sim_gives(tmp_path: Path) -> None:
    scenario, own = small(tmp_path), PolicySpec(name="random")
    run = stored(tmp_path, scenario, own, 3)
    found = what_if(run, [PolicySpec(name="least_request")], (), None)

    assert found.exact
    assert trust_line(found) == "The simulation repeats the run exactly, request by request."
    assert {one.error.value for one in found.agreements.values()} == {0.0}
    (other,) = found.alternatives
    direct = simulate(scenario, PolicySpec(name="least_request"), 3)
    pd.testing.assert_frame_equal(other.result.requests, direct.requests, check_exact=True)
    assert {one.policy for one in found.comparison.contenders} == {"random (as it was)", "least_request"}


def test_another_fleet_and_another_cap_change_the_simulation_alone(tmp_path: Path) -> None:
    run = stored(tmp_path, small(tmp_path), PolicySpec(name="least_request"), 0)
    changes = ("servers.0.count=5", "router.max_running_requests=1")
    found = what_if(run, (), changes, None)

    assert found.exact
    (other,) = found.alternatives
    assert other.label == "least_request, servers.0.count=5, router.max_running_requests=1"
    assert len(other.result.servers) == 5
    assert other.result.servers["peak_running"].max() == 1
    assert other.result.requests["arrived_at"].tolist() == run.result.requests["arrived_at"].tolist()


def test_without_anything_to_change_it_says_how_well_the_run_is_reproduced(tmp_path: Path) -> None:
    found = what_if(stored(tmp_path, small(tmp_path), PolicySpec(name="random"), 0), (), (), None)

    assert found.alternatives == ()
    assert found.exact


def test_times_of_arrival_are_those_recorded(tmp_path: Path) -> None:
    """As a live run's generator is late by milliseconds."""
    scenario, policy = small(tmp_path), PolicySpec(name="round_robin")
    result = simulate(scenario, policy, 0)
    late = np.linspace(0.001, 0.002, len(result.requests))
    result.requests["arrived_at"] += late
    run = kept(tmp_path, result, scenario, policy, 0)
    again = what_if(run, (), (), None)

    assert again.twin.result.requests["arrived_at"].tolist() == result.requests["arrived_at"].tolist()
    assert not again.exact


def test_a_closed_loops_arrivals_follow_from_the_answers(tmp_path: Path) -> None:
    closed = {"arrivals": {"kind": "closed_loop", "max_concurrency": 6}}
    run = stored(tmp_path, small(tmp_path, closed), PolicySpec(name="random"), 0)
    (other,) = what_if(run, (), ("servers.0.count=1",), None).alternatives

    assert other.result.requests["arrived_at"].max() > run.result.requests["arrived_at"].max()


def test_behind_a_clients_limit_requests_are_due_when_they_were_due(tmp_path: Path) -> None:
    run = stored(tmp_path, small(tmp_path, {"max_concurrency": 2}), PolicySpec(name="random"), 0)
    workload = recorded_workload(run, recorded_scenario(run))

    assert (workload.arrival_s <= run.result.requests["arrived_at"]).all()
    assert (workload.arrival_s < run.result.requests["arrived_at"] - 0.1).any()


def test_an_interrupted_run_is_refused(tmp_path: Path) -> None:
    scenario, policy = small(tmp_path), PolicySpec(name="random")
    result = replace(simulate(scenario, policy, 0), interrupted=True)
    with pytest.raises(UserError, match="was interrupted: its workload is not whole"):
        what_if(kept(tmp_path, result, scenario, policy, 0), (), (), None)


def test_answers_that_the_model_ended_are_as_long_as_they_were(tmp_path: Path) -> None:
    scenario, policy = small(tmp_path, {"max_new_tokens": 100}), PolicySpec(name="random")
    result = simulate(scenario, policy, 0)
    result.requests.loc[7, "output_tokens"] = 99
    result.requests.loc[8, ["output_tokens", "status"]] = [1, "failed"]
    run = kept(tmp_path, result, scenario, policy, 0)
    workload = recorded_workload(run, recorded_scenario(run))

    assert workload.output_tokens[7] == 99
    # What was cut short is no measure of what would have come.
    assert workload.output_tokens[8] > 1


@pytest.mark.parametrize("change", ["workload.arrivals.rate_rps=9", "warmup_s=3", "slo.ttft_s=1", "seed=4"])
def test_the_requests_and_what_is_measured_of_them_stay(tmp_path: Path, change: str) -> None:
    run = stored(tmp_path, small(tmp_path), PolicySpec(name="random"), 0)
    with pytest.raises(UserError, match="what may change is servers, router, control"):
        what_if(run, (), (change,), None)


def test_records_of_other_requests_are_refused(tmp_path: Path) -> None:
    scenario, policy = small(tmp_path), PolicySpec(name="random")
    result = simulate(scenario, policy, 0)
    result.requests.loc[3, "prompt_tokens"] += 1
    with pytest.raises(UserError, match="not of the requests that its config"):
        what_if(kept(tmp_path, result, scenario, policy, 0), (), (), None)


def test_a_live_run_may_have_had_more_servers_than_its_scenario(tmp_path: Path) -> None:
    scenario, policy = small(tmp_path), PolicySpec(name="random")
    two = stored(tmp_path, scenario, policy, 0)
    two.result.servers.loc[2] = two.result.servers.loc[0]

    assert sum(group.count for group in recorded_scenario(two).servers) == 3


def test_the_profile_can_be_another_for_the_run_and_the_rest(tmp_path: Path) -> None:
    run = stored(tmp_path, small(tmp_path), PolicySpec(name="random"), 0)
    found = what_if(run, [PolicySpec(name="round_robin")], (), "llama-3.1-8b-h200")

    assert not found.exact
    assert found.verdict[0] == "do not trust"
    assert trust_line(found).startswith("The simulation does not reproduce the run as it was: mean TPOT is off by ")
    for side in (found.twin, *found.alternatives):
        assert set(side.result.servers["profile"]) == {"llama-3.1-8b-h200"}


def test_the_command_leaves_a_page_and_tells_json(tmp_path: Path) -> None:
    sim("--scenario", tiny(tmp_path), "--policy", "random", "--out", str(tmp_path / "runs"))
    (run,) = (tmp_path / "runs").iterdir()
    shown = invoke("whatif", str(run), "--policy", "least_request", "--out", str(tmp_path / "out"))
    assert shown.exit_code == 0, shown.stderr
    assert "The simulation repeats the run exactly, request by request." in shown.stdout
    (folder,) = (tmp_path / "out").iterdir()
    assert {"whatif.json", "report.html", "plots"} == {path.name for path in folder.iterdir()}

    refused = invoke("whatif", str(run), "--set", "workload.duration_s=3", "--no-out")
    assert refused.exit_code == 2
