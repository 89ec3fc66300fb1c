"""A drift that was planted in simulated records is found, term by term."""

from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from calibrate.drift import Drift, ServerRecords, fit_drift, scaled_profile
from simcore.engine import simulate
from simcore.errors import UserError
from simcore.profile import ServiceProfile
from simcore.scenario import PolicySpec, load_scenario
from simroute import main

PROFILE = ServiceProfile.load("llama-3.1-8b-h100", Path())


def drift_of(factors: list[float], folder: Path, rate_rps: float) -> Drift:
    (folder / "now.json").write_text(scaled_profile(PROFILE, factors).to_json())
    scenario = load_scenario(
        "quickstart",
        [
            f"servers=[{{profile: {folder / 'now.json'}, count: 2}}]",
            "workload.duration_s=80",
            f"workload.arrivals.rate_rps={rate_rps}",
        ],
    )
    requests = simulate(scenario, PolicySpec(name="least_request"), 3).requests
    return fit_drift([ServerRecords(requests[requests["server_id"] == name], PROFILE) for name in ("s0", "s1")])


@pytest.mark.parametrize("factors", [[1.0, 1.0, 1.0, 1.0, 1.0], [1.15, 1.3, 0.9, 1.2, 1.0], [0.9, 1.0, 1.0, 1.5, 1.0]])
def test_the_planted_factors_are_found_under_load(tmp_path: Path, factors: list[float]) -> None:
    drift = drift_of(factors, tmp_path, 16)
    for term, planted in zip(drift.terms[:4], factors, strict=False):
        assert term.factor == pytest.approx(planted, rel=0.06), term.sentence()
    assert drift.error_after < 0.03
    assert drift.error_after <= drift.error_before + 0.03


def test_the_overhead_shows_on_idle_servers_only(tmp_path: Path) -> None:
    assert not drift_of([1.0] * 5, tmp_path, 16).terms[4].is_known
    overhead = drift_of([1.0, 1.0, 1.0, 1.0, 1.6], tmp_path, 1).terms[4]
    assert overhead.factor == pytest.approx(1.6, rel=0.1)
    assert overhead.beyond(0.1)


def test_what_the_last_token_takes_is_no_drift(tmp_path: Path) -> None:
    slow_to_end = PROFILE.model_copy(update={"requests": PROFILE.requests.model_copy(update={"last_token_s": 0.5})})
    (tmp_path / "it.json").write_text(slow_to_end.to_json())
    scenario = load_scenario(
        "quickstart",
        [
            f"servers=[{{profile: {tmp_path / 'it.json'}, count: 1}}]",
            "workload.duration_s=80",
            "workload.arrivals.rate_rps=8",
        ],
    )
    requests = simulate(scenario, PolicySpec(name="least_request"), 3).requests
    drift = fit_drift([ServerRecords(requests, slow_to_end)])
    assert drift.error_before < 0.001
    assert drift.terms[0].factor == pytest.approx(1.0, rel=0.06)


def test_a_drift_counts_only_where_it_is_certain(tmp_path: Path) -> None:
    base = drift_of([1.15, 1.0, 1.0, 1.0, 1.0], tmp_path, 16).terms[0]
    assert base.beyond(0.1)
    assert not base.beyond(0.2)


def test_a_run_of_few_requests_is_refused() -> None:
    scenario = load_scenario("quickstart", ["workload.duration_s=1"])
    requests = simulate(scenario, PolicySpec(name="random"), 0).requests.head(9)
    with pytest.raises(UserError, match="50 are needed"):
        fit_drift([ServerRecords(requests, PROFILE)])


def test_answers_that_came_all_at_once_tell_nothing_and_spoil_nothing() -> None:
    scenario = load_scenario("quickstart", ["workload.duration_s=40", "workload.arrivals.rate_rps=16"])
    requests = simulate(scenario, PolicySpec(name="random"), 0).requests
    requests = requests[requests["server_id"] == "s0"].sort_values("dispatched_at")
    whole = requests.copy()
    held_up = whole.index[::10]
    whole.loc[held_up, "first_token_at"] = whole.loc[held_up, "finished_at"]
    drift = fit_drift([ServerRecords(whole, PROFILE)])
    assert drift.requests == len(requests) - len(held_up)
    without = fit_drift([ServerRecords(requests.drop(held_up), PROFILE)])
    assert drift.terms == without.terms

    whole["first_token_at"] = whole["finished_at"]
    with pytest.raises(UserError, match="has 0 finished requests whose tokens came one after another; 50 are needed"):
        fit_drift([ServerRecords(whole, PROFILE)])


def test_the_command_refits_and_warns(tmp_path: Path) -> None:
    (tmp_path / "now.json").write_text(scaled_profile(PROFILE, [1.3, 1, 1, 1, 1]).to_json())
    simulated = CliRunner().invoke(
        main,
        [
            *("sim", "--scenario", "quickstart", "--policy", "random", "--out", str(tmp_path / "runs")),
            *("--set", f"servers=[{{profile: {tmp_path / 'now.json'}, count: 3}}]", "--set", "workload.duration_s=60"),
        ],
    )
    assert simulated.exit_code == 0, simulated.output
    (run,) = (tmp_path / "runs").iterdir()
    done = CliRunner().invoke(
        main,
        ["calibrate", "--from-run", str(run), "--profile", "llama-3.1-8b-h100", "--out", str(tmp_path / "refit")],
    )
    assert done.exit_code == 0, done.output
    assert "warning: llama-3.1-8b-h100 has drifted by more than 10%: decode base" in done.output
    refit = ServiceProfile.load("profile.json", tmp_path / "refit")
    ratio = np.array(refit.steps.decode.base_s) / np.array(PROFILE.steps.decode.base_s)
    assert ratio == pytest.approx([1.3] * len(ratio), rel=0.05)
