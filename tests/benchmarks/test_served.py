"""How much longer steps are in serving than a profile says, told from live runs."""

from pathlib import Path

import pandas as pd
import pytest
from click.testing import CliRunner
from served import as_served, steps_longer

from calibrate.drift import scaled_profile
from simcore.engine import simulate
from simcore.profile import ServiceProfile
from simcore.scenario import PolicySpec, load_scenario
from simroute import main

PROFILE = ServiceProfile.load("llama-3.1-8b-h100", Path())
LONGER = 1.2


def served(folder: Path) -> pd.DataFrame:
    """A run on servers whose steps are longer than the profile says."""
    (folder / "now.json").write_text(scaled_profile(PROFILE, (LONGER, LONGER, LONGER, LONGER, 1.0)).to_json())
    return simulate(load_scenario("quickstart", changes(folder)), PolicySpec(name="least_request"), 3).requests


def changes(folder: Path) -> list[str]:
    servers = f"servers=[{{profile: {folder / 'now.json'}, count: 2}}]"
    return [servers, "workload.duration_s=25", "workload.arrivals.rate_rps=12", "warmup_s=0"]


def ended_at(requests: pd.DataFrame, end_s: float) -> pd.DataFrame:
    """The run, had it been ended by then."""
    left = requests[requests["arrived_at"] < end_s].copy()
    left.loc[left["first_token_at"] > end_s, "first_token_at"] = None
    left.loc[left["finished_at"] > end_s, ["status", "server_id", "finished_at"]] = ["unfinished", "", None]
    return left


def test_it_is_found_over_all_servers_and_runs(tmp_path: Path) -> None:
    requests = served(tmp_path)
    assert steps_longer(PROFILE, [requests, requests]) == pytest.approx(LONGER, rel=0.005)


def test_a_run_that_was_ended_tells_it_too(tmp_path: Path) -> None:
    requests = ended_at(served(tmp_path), 12)
    assert (requests["status"] == "unfinished").sum() > 10
    assert steps_longer(PROFILE, [requests]) == pytest.approx(LONGER, rel=0.005)


def test_the_profile_has_steps_as_in_the_runs_of_a_folder(tmp_path: Path) -> None:
    calibrated, runs, file = tmp_path / "calibrated.json", tmp_path / "runs", tmp_path / "as-served.json"
    calibrated.write_text(PROFILE.to_json())
    served(tmp_path)
    words = ["sim", "--scenario", "quickstart", "--out", str(runs)]
    words += [word for change in changes(tmp_path) for word in ("--set", change)]
    for policy in ("random", "least_request"):
        done = CliRunner().invoke(main, [*words, "--policy", policy])
        assert done.exit_code == 0, done.output
    assert as_served(str(calibrated), runs, file) == str(file)
    steps, before = ServiceProfile.load(str(file), tmp_path).steps, PROFILE.steps
    assert steps.decode.base_s == pytest.approx([LONGER * value for value in before.decode.base_s], rel=0.01)
    assert steps.prefill.per_token_s == pytest.approx(LONGER * before.prefill.per_token_s, rel=0.01)


def test_a_run_that_ended_too_early_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="nothing was served in full"):
        steps_longer(PROFILE, [ended_at(served(tmp_path), 0.3)])
