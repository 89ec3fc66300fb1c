"""``simroute sim``: what its options do."""

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from support.cli import document, sim, tiny

from simcore.experiment.board import Board
from simcore.run_folder import load_run

POLICY = """\
from policies import ClusterView, Policy, RequestView, Route


class First(Policy):
    summary = "always the first server"

    def choose(self, request: RequestView, cluster: ClusterView) -> Route:
        return Route(cluster.servers[0].server_id)
"""


def keys(value: Any) -> Any:
    """The shape of a JSON document: its keys, with one element for a list."""
    match value:
        case dict():
            return {name: keys(below) for name, below in value.items()}
        case list():
            return [keys(value[0])] if value else []
        case _:
            return None


def runs_below(folder: Path) -> dict[str, Path]:
    return {path.parent.name: path.parent for path in sorted(folder.glob("**/summary.json"))}


def columns(run: Path) -> pd.DataFrame:
    return pd.read_parquet(run / "requests.parquet")


def test_several_policies_are_compared_best_first(tmp_path: Path) -> None:
    result = sim("--scenario", tiny(tmp_path), "--no-out")

    assert result.exit_code == 0
    assert "Policies by goodput" in result.stdout
    assert "least_request is best" in result.stdout or "random is best" in result.stdout
    assert result.stderr == ""


def test_one_policy_is_told_in_detail(tmp_path: Path) -> None:
    result = sim("--scenario", tiny(tmp_path), "--no-out", "--policy", "round_robin")

    assert "Latencies" in result.stdout
    assert "Servers" in result.stdout
    assert "Policies by" not in result.stdout


def test_the_folder_of_a_comparison(tmp_path: Path) -> None:
    result = sim("--scenario", tiny(tmp_path), "--out", str(tmp_path / "out"))
    (folder,) = (tmp_path / "out").iterdir()

    assert f"Report: {folder}/report.html" in result.stdout
    assert folder.name.endswith("-tiny-comparison")
    assert sorted(path.name for path in folder.iterdir()) == [
        "comparison.json",
        "config.yaml",
        "least_request-seed0",
        "plots",
        "random-seed0",
        "report.html",
    ]
    runs = runs_below(folder)
    first, second = (columns(run) for run in runs.values())
    for column in ("request_id", "arrived_at", "prompt_tokens", "output_tokens"):
        assert first[column].equals(second[column]), "every policy sees the same requests"
    assert json.loads((folder / "comparison.json").read_text())["policies"][0]["rank"] == 1
    manifest = json.loads((runs["random-seed0"] / "manifest.json").read_text())
    scenario = str(tmp_path / "tiny.yaml")
    assert manifest["command"] == ["simroute", "sim", "--scenario", scenario, "--policy", "random", "--seed", "0"]
    assert list(manifest["profiles"]) == ["llama-3.1-8b-l40s"]


def test_the_folder_of_one_run(tmp_path: Path) -> None:
    sim("--scenario", tiny(tmp_path), "--out", str(tmp_path / "out"), "--policy", "random", "--seed", "3")
    (folder,) = (tmp_path / "out").iterdir()
    stored = load_run(folder)

    assert folder.name.endswith("-tiny-random")
    assert (stored.summary.policy, stored.summary.seed) == ("random", 3)
    assert not stored.summary.interrupted


def test_the_written_config_repeats_the_run_from_any_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where it names files relative to the scenario's, and where options changed it."""
    home = tmp_path / "home"
    home.mkdir()
    (home / "first.py").write_text(POLICY)
    text = tiny(home)
    Path(text).write_text(Path(text).read_text().replace("[random, least_request]", "['first.py:First', random]"))
    changed = ("--set", "workload.arrivals.rate_rps=20", "--set", "servers.0.launch.max_running_requests=4")
    assert sim("--scenario", text, "--out", str(tmp_path / "one"), "--seed", "5", *changed).exit_code == 0

    runs = runs_below(tmp_path / "one")
    assert list(runs) == ["First-seed5", "random-seed5"]
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    for name, run in runs.items():
        assert sim("--scenario", str(run / "config.yaml"), "--out", str(tmp_path / name)).exit_code == 0
        (again,) = (tmp_path / name).iterdir()
        for file in ("requests.parquet", "servers.parquet", "timeline.parquet", "itl.parquet", "config.yaml"):
            assert (again / file).read_bytes() == (run / file).read_bytes(), file


def test_the_manifests_command_repeats_the_run(tmp_path: Path) -> None:
    options = ("--policy", "parameter_aware:queue_weight=2", "--set", "workload.duration_s=5", "--seeds", "2,4")
    sim("--scenario", tiny(tmp_path), "--out", str(tmp_path / "one"), *options)
    for name, run in runs_below(tmp_path / "one").items():
        words = json.loads((run / "manifest.json").read_text())["command"]
        assert words[:2] == ["simroute", "sim"]
        assert sim(*words[2:], "--out", str(tmp_path / name)).exit_code == 0
        (again,) = (tmp_path / name).iterdir()
        assert (again / "requests.parquet").read_bytes() == (run / "requests.parquet").read_bytes()


def test_nothing_is_written_without_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scenario = tiny(tmp_path)
    empty = tmp_path / "empty"
    empty.mkdir()
    monkeypatch.chdir(empty)
    result = sim("--scenario", scenario, "--no-out", "--policy", "random")

    assert "Report:" not in result.stdout
    assert list(empty.iterdir()) == []


def test_results_go_to_results_unless_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    sim("--scenario", tiny(tmp_path), "--policy", "random")

    assert len(list((tmp_path / "results").iterdir())) == 1


def test_json_is_one_document_of_a_fixed_shape(tmp_path: Path) -> None:
    found = document("--scenario", tiny(tmp_path), "--no-out")

    assert list(found) == ["schema_version", "interrupted", "folder", "gates_failed", "comparison", "runs"]
    assert (found["schema_version"], found["interrupted"], found["folder"]) == (1, False, None)
    assert list(found["comparison"]["policies"][0]) == [
        "rank",
        "policy",
        "estimates",
        "request_throughput_rps",
        "output_throughput_tps",
        "cache_hit_rate",
        "utilisation",
        "lost_share",
        "cost",
        "against_best",
    ]
    assert [run["policy"] for run in found["runs"]] == [policy["policy"] for policy in found["comparison"]["policies"]]
    assert {"policy", "seed", "latencies", "goodput_rps", "servers", "warnings"} <= set(found["runs"][0])


def test_json_has_the_same_shape_for_one_run_and_for_many(tmp_path: Path) -> None:
    scenario = tiny(tmp_path)
    one = document("--scenario", scenario, "--no-out", "--policy", "random")
    many = document("--scenario", scenario, "--no-out", "--policy", "random", "--seeds", "0..1")

    assert keys(one) == keys(many)
    assert [run["seed"] for run in many["runs"]] == [0, 1]


def test_json_names_the_folder(tmp_path: Path) -> None:
    found = document("--scenario", tiny(tmp_path), "--out", str(tmp_path / "out"), "--policy", "random")

    assert (Path(found["folder"]) / "summary.json").is_file()
    assert json.loads((Path(found["folder"]) / "summary.json").read_text()) == found["runs"][0]


def test_set_changes_the_scenario(tmp_path: Path) -> None:
    options = ("--no-out", "--set", "servers.0.count=3", "--set", "workload.arrivals.rate_rps=20", "--set", "slo={}")
    found = document("--scenario", tiny(tmp_path), "--policy", "random", *options)

    assert len(found["runs"][0]["servers"]) == 3
    assert sum(found["runs"][0]["counts"].values()) > 300
    assert found["comparison"]["rank_by"] == "mean_e2e_s", "without an SLO goodput means nothing"


def test_seeds_are_runs_of_their_own(tmp_path: Path) -> None:
    found = document("--scenario", tiny(tmp_path), "--no-out", "--seeds", "0..1,7")

    assert found["comparison"]["seeds"] == [0, 1, 7]
    assert len(found["runs"]) == 6
    assert "3 seeds" in found["comparison"]["method"]


def test_the_scenarios_seed_counts_where_none_is_given(tmp_path: Path) -> None:
    found = document("--scenario", tiny(tmp_path), "--no-out", "--policy", "random", "--set", "seed=9")

    assert found["comparison"]["seeds"] == [9]


def test_policies_with_parameters_and_from_files(tmp_path: Path) -> None:
    (tmp_path / "first.py").write_text(POLICY)
    wanted = ("parameter_aware", "parameter_aware:queue_weight=2,credit_weight=0.5", f"{tmp_path}/first.py:First")
    found = document(
        "--scenario", tiny(tmp_path), "--no-out", *(word for policy in wanted for word in ("--policy", policy))
    )

    assert {run["policy"] for run in found["runs"]} == {
        "parameter_aware",
        "parameter_aware(queue_weight=2, credit_weight=0.5)",
        "First",
    }
    (first,) = (run for run in found["runs"] if run["policy"] == "First")
    assert [server["requests"] > 0 for server in first["servers"]] == [True, False]


def test_rank_by(tmp_path: Path) -> None:
    found = document("--scenario", tiny(tmp_path), "--no-out", "--rank-by", "p99_e2e_s")
    values = [policy["estimates"]["p99_e2e_s"]["value"] for policy in found["comparison"]["policies"]]

    assert found["comparison"]["rank_by"] == "p99_e2e_s"
    assert values == sorted(values)


def test_exact_steps_change_no_number(tmp_path: Path) -> None:
    options = ("--scenario", tiny(tmp_path), "--no-out", "--policy", "random", "--set", "workload.duration_s=4")
    jumped, stepped = document(*options)["runs"][0], document(*options, "--exact-steps")["runs"][0]

    for statistic, value in jumped["latencies"]["e2e_s"].items():
        assert stepped["latencies"]["e2e_s"][statistic] == pytest.approx(value, abs=1e-9)


def test_an_interrupted_comparison_is_of_the_seeds_that_all_have_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of policies that stopped half-way through a seed, nothing fair could be said with it."""
    report = Board.report

    def stop_in_the_third(self: Board, job: int, share: float) -> None:
        report(self, job, share)
        if job == 2 and share >= 0.5:
            self.stop()

    monkeypatch.setattr(Board, "report", stop_in_the_third)
    options = ("--scenario", tiny(tmp_path), "--seeds", "0..1", "--out", str(tmp_path / "out"), "--json")
    result = sim(*options)
    found = json.loads(result.stdout)

    assert result.exit_code == 130
    assert result.stderr == "simroute: interrupted: these are partial results, of 3 of 4 runs\n"
    assert found["interrupted"]
    assert found["comparison"]["seeds"] == [0]
    assert list(runs_below(tmp_path / "out")) == ["least_request-seed0", "random-seed0", "random-seed1"]


def test_what_the_environment_names_is_relative_to_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And not to the scenario's folder, as what the scenario names is."""
    trace = tmp_path / "data/trace.csv"
    trace.parent.mkdir()
    trace.write_text("TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:15:46.6805900,374,44\n")
    (tmp_path / "sub").mkdir()
    monkeypatch.chdir(tmp_path)
    workload = "workload={trace: {kind: azure-2023, path: '${SIMROUTE_DATA}/trace.csv'}}"
    options = ("--scenario", tiny(tmp_path / "sub"), "--set", workload, "--set", "warmup_s=0", "--no-out")
    result = sim(*options, env={"SIMROUTE_DATA": "data"})

    assert result.exit_code == 0, result.stderr


def test_a_gate_that_holds_fails_with_99_and_says_for_whom(tmp_path: Path) -> None:
    result = sim("--scenario", tiny(tmp_path), "--out", str(tmp_path / "out"), "--fail-on", "mean_e2e_s>0.001")

    assert result.exit_code == 99
    assert "simroute: random: mean_e2e_s is " in result.stderr
    assert "so the gate mean_e2e_s>0.001 fails" in result.stderr
    assert len(list((tmp_path / "out").iterdir())) == 1, "results are written all the same"


def test_a_gate_that_does_not_hold_passes(tmp_path: Path) -> None:
    gates = ("--fail-on", "mean_e2e_s>1000", "--fail-on", "lost_share>0", "--fail-on", "slo_attainment<0.01")

    assert sim("--scenario", tiny(tmp_path), "--no-out", *gates).exit_code == 0


def test_gates_in_json(tmp_path: Path) -> None:
    result = sim("--scenario", tiny(tmp_path), "--no-out", "--json", "--policy", "random", "--fail-on", "p50_e2e_s>0")
    (failed,) = json.loads(result.stdout)["gates_failed"]

    assert result.exit_code == 99
    assert (failed["gate"], failed["policy"]) == ("p50_e2e_s>0", "random")
    assert failed["value"] > 0
