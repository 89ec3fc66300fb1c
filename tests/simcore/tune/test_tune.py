"""``simroute tune``: what is searched, what is found, and what is said of it."""

import csv
import json
import math
import signal
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from ruamel.yaml import YAML
from support.cli import invoke, sim, tiny

from simcore.cli.run_tune import _Progress
from simcore.errors import UserError
from simcore.scenario import ControllerSpec, PolicySpec
from simcore.statistics import paired_difference_over_seeds
from simcore.tune.evaluate import Score
from simcore.tune.held_back import HeldBack
from simcore.tune.space import space_of

POLICIES = '''\
from policies import Policy, Reject, Route, Span


class Lopsided(Policy):
    """All to the first server by default, which is wrong."""

    search = {"share": Span(0.0, 1.0)}

    def __init__(self, rng, share: float = 1.0):
        super().__init__(rng)
        self.share = share

    def choose(self, request, cluster):
        return Route(cluster.servers[0 if self.rng.random() < self.share else -1].server_id)


class Useless(Lopsided):
    def choose(self, request, cluster):
        return Route(cluster.servers[request.request_id % 2].server_id)


class Dropping(Lopsided):
    """Serves all by default; one that serves none has no latency."""

    def choose(self, request, cluster):
        if self.rng.random() >= self.share:
            return Reject("dropped")
        return Route(cluster.servers[request.request_id % 2].server_id)


class Untuned(Policy):
    def choose(self, request, cluster):
        return Route(cluster.servers[0].server_id)
'''
BUSY = ("--set", "workload.arrivals.rate_rps=60", "--set", "workload.duration_s=6")
QUICK = ("--seeds", "0,1", "--held-back-seeds", "10..13", "--jobs", "1", "--quiet")


def tune(folder: Path, policy: str, *options: str, objective: str = "mean_e2e_s", trials: int = 12) -> Result:
    (folder / "mine.py").write_text(POLICIES)
    name = f"{folder / 'mine.py'}:{policy}" if policy[0].isupper() else policy
    words = ("--scenario", tiny(folder), "--policy", name, "--objective", objective, "--trials", str(trials))
    return invoke("tune", *words, "--out", str(folder / "out"), *BUSY, *QUICK, *options)


def results(folder: Path) -> Path:
    (found,) = (folder / "out").iterdir()
    return found


def trials(folder: Path) -> list[dict[str, str]]:
    with (results(folder) / "trials.csv").open() as stream:
        return list(csv.DictReader(stream))


def test_what_is_wrong_by_default_is_put_right_and_the_gain_shown(tmp_path: Path) -> None:
    result = tune(tmp_path, "Lopsided")
    assert result.exit_code == 0, result.stderr
    assert "Gain: mean_e2e_s" in result.stdout
    document = json.loads((results(tmp_path) / "tune.json").read_text())
    assert 0.3 < document["best"]["params"]["share"] < 0.7
    held = document["held_back"]
    assert held["gain"] is True
    assert held["difference"]["absolute"]["high"] < 0
    assert len(held["best"]["values"]) == len(held["default"]["values"]) == 4
    table = trials(tmp_path)
    assert [row["trial"] for row in table] == [str(number) for number in range(13)]
    assert table[0]["share"] == "1.0", "the default comes first"
    best = min(table, key=lambda row: float(row["mean_e2e_s"]))
    assert float(best["share"]) == document["best"]["params"]["share"]
    assert float(best["mean_e2e_s"]) == pytest.approx((float(best["seed_0"]) + float(best["seed_1"])) / 2)


def test_the_best_goes_into_a_scenario_and_gives_what_was_said(tmp_path: Path) -> None:
    tune(tmp_path, "Lopsided")
    text = (results(tmp_path) / "best.yaml").read_text()
    policies = YAML(typ="safe").load(text)["policies"]
    scenario = YAML(typ="safe").load((results(tmp_path) / "config.yaml").read_text()) | {"policies": policies}
    with (tmp_path / "tuned.yaml").open("w") as stream:
        YAML().dump(scenario, stream)
    told = sim("--scenario", str(tmp_path / "tuned.yaml"), "--seed", "0", "--json", "--no-out")
    found = min(trials(tmp_path), key=lambda row: float(row["mean_e2e_s"]))
    run = json.loads(told.stdout)["runs"][0]
    assert run["latencies"]["e2e_s"]["mean"] == pytest.approx(float(found["seed_0"]), rel=1e-12)
    assert f"share={found['share']}" in text.splitlines()[1], "as the command line takes it"


def test_the_same_seed_tries_the_same_and_another_seed_other_things(tmp_path: Path) -> None:
    texts = []
    for number, seed in enumerate(("5", "5", "6")):
        folder = tmp_path / str(number)
        folder.mkdir()
        tune(folder, "Lopsided", "--seed", seed, trials=4)
        texts.append((results(folder) / "trials.csv").read_text())
    assert texts[0] == texts[1] != texts[2]


def test_a_parameter_without_effect_brings_no_gain(tmp_path: Path) -> None:
    result = tune(tmp_path, "Useless", trials=3)
    assert "No gain: none of 3 settings was better than the default" in result.stdout
    assert json.loads((results(tmp_path) / "tune.json").read_text())["held_back"] is None


def test_what_loses_requests_is_out_where_the_lost_have_no_latency(tmp_path: Path) -> None:
    tune(tmp_path, "Dropping", trials=6)
    notes = [row["note"] for row in trials(tmp_path)]
    assert notes[0] == ""
    assert all("of the requests, the default 0.00%" in note for note in notes[1:])
    assert json.loads((results(tmp_path) / "tune.json").read_text())["best"]["trial"] == 0


def test_a_controller_is_searched_beside_the_policy(tmp_path: Path) -> None:
    result = tune(tmp_path, "Untuned", "--controller", "aimd_ttft:interval_s=1,max_cap=64", trials=3)
    assert result.exit_code == 0, result.stderr
    row = trials(tmp_path)[0]
    assert row["controller.target_s"] == "0.5"
    assert "controller.interval_s" not in row, "given, so it stays"
    best = YAML(typ="safe").load((results(tmp_path) / "best.yaml").read_text())
    assert best["controller"]["params"]["interval_s"] == 1


def test_the_keys_of_a_mapping_are_searched() -> None:
    space = space_of(PolicySpec(name="llm_d"), None, tunes_controller=False)
    assert space.defaults() == {"scorers.prefix": 3.0, "scorers.queue": 2.0, "scorers.kv": 2.0}
    setting = space.setting({"scorers.prefix": 1.0, "scorers.queue": 4.0, "scorers.kv": 2.0})
    assert setting.policy.params == {"scorers": {"prefix": 1.0, "queue": 4.0, "kv": 2.0}}


def test_what_is_given_is_not_searched() -> None:
    given = PolicySpec(name="parameter_aware", params={"queue_weight": 2})
    space = space_of(given, ControllerSpec(name="aimd_ttft"), tunes_controller=False)
    assert list(space.defaults()) == ["credit_weight"]
    assert space.setting({"credit_weight": 0.5}).policy.params == {"queue_weight": 2, "credit_weight": 0.5}
    with pytest.raises(UserError, match="every parameter that could be searched is given"):
        space_of(PolicySpec(name="vllm_score", params={"queued_weight": 2}), None, tunes_controller=False)


def score(*values: float) -> Score:
    return Score(values, 0.0)


@pytest.mark.parametrize(
    ("best", "maximize", "verdict"),
    [
        ((0.79, 1.8, 2.81), False, "Gain: p99_ttft_s 2 -> 1.8 (-10.0%) on 3 held-back seeds; difference -0.2"),
        ((0.79, 1.8, 2.81), True, "Worse: "),
        ((1.1, 1.9, 3.0), False, "No gain shown: "),
        ((0.7, 1.8, 2.9), False, "No gain shown: "),
        ((1.1, 2.1, 3.11), True, "Gain: "),
    ],
)
def test_the_verdict_is_the_intervals(best: tuple[float, ...], maximize: bool, verdict: str) -> None:
    """With two degrees of freedom t is 4.303: differences of -0.3, -0.2 and -0.1 are -0.2 +- 0.25."""
    default = (1.0, 2.0, 3.0)
    held = HeldBack((7, 8, 9), score(*default), score(*best), paired_difference_over_seeds(best, default), maximize)
    assert held.verdict("p99_ttft_s").startswith(verdict)


def test_ctrl_c_keeps_what_was_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def show(self: _Progress, trial: Any, best: Any) -> None:
        if trial.number == 3:
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(_Progress, "show", show)
    result = tune(tmp_path, "Lopsided", trials=50)
    assert result.exit_code == 130
    assert "interrupted: this is what was found in 3 settings" in result.stderr
    assert "Not tested: stopped after 3 settings" in result.stdout
    assert len(trials(tmp_path)) == 4
    assert json.loads((results(tmp_path) / "tune.json").read_text())["interrupted"] is True


def test_a_budget_ends_the_search(tmp_path: Path) -> None:
    result = invoke(
        *("tune", "--scenario", tiny(tmp_path), "--policy", "vllm_score", "--objective", "p99_ttft_s", "--no-out"),
        *("--budget", "1s", "--json", *QUICK, *BUSY),
    )
    assert result.exit_code == 0, result.stderr
    document = json.loads(result.stdout)
    assert document["folder"] is None
    assert 0 <= document["trials"] < 1000
    assert math.isfinite(document["default"]["value"])


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--policy", "random"), "policy random: there is nothing to tune"),
        (("--policy", "parameter_awar"), "did you mean parameter_aware"),
        (("--policy", "parameter_aware", "--objective", "p99_ttft"), "unknown metric 'p99_ttft'"),
        (("--policy", "parameter_aware", "--objective", "utilisation"), "say which way is better"),
        (
            ("--policy", "parameter_aware", "--held-back-seeds", "1..5"),
            "--held-back-seeds: 1, 2 would be searched with",
        ),
        (("--policy", "parameter_aware", "--held-back-seeds", "7"), "at least two"),
        (("--policy", "parameter_aware", "--objective", "goodput_rps", "--set", "slo={}"), "it needs an slo"),
        (("--policy", "random", "--controller", "fixed_schedule"), "nothing to tune"),
        (("--policy", "random", "--controller", "aimd"), "unknown controller 'aimd'"),
        (
            (
                "--policy",
                "vllm_score",
                "--controller",
                "aimd_ttft",
                "--set",
                "control=[{at_s: 1, max_running_requests: 3}]",
            ),
            "control changes caps, too",
        ),
    ],
)
def test_mistakes_are_told_before_the_search(options: tuple[str, ...], said: str, tmp_path: Path) -> None:
    words = ("tune", "--scenario", tiny(tmp_path), "--objective", "p99_ttft_s", "--out", str(tmp_path / "out"))
    result = invoke(*words, *options)
    assert result.exit_code == 2
    assert said in result.stderr
    assert not (tmp_path / "out").exists()


def test_without_optuna_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    result = tune(tmp_path, "Lopsided")
    assert result.exit_code == 2
    assert "simroute tune needs optuna" in result.stderr
    assert "pip install 'simroute[tune]'" in result.stderr
