"""The how-to of one's own policy: its commands run as they stand, in both worlds; its mistakes are told as it says."""

import json
import re
import shlex
from pathlib import Path

import pandas as pd
import pytest
from support.cli import ROOT, TINY, invoke, tiny

from live.routing.event_log import replay

SECTION = (ROOT / "docs/how-to.md").read_text().split("## Write your own policy\n")[1].split("\n## ")[0]
PYTHON, SHELL = (re.findall(rf"```{language}\n(.*?)```", SECTION, re.DOTALL) for language in ("python", "sh"))
COMMANDS = [shlex.split(block.replace("\\\n", " ")) for block in SHELL]
SHORTER = {
    "sim": ["--jobs", "1", "--set", "workload.duration_s=25"],
    "live": ["--speed", "10"],
}
"""The same commands in less time."""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where somebody stands who follows the how-to: the first block is in its file, and docs/ is there."""
    (tmp_path / "my_policy.py").write_text(PYTHON[0])
    (tmp_path / "docs").symlink_to(ROOT / "docs")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_how_to_has_the_worlds_it_speaks_of() -> None:
    assert [words[:2] for words in COMMANDS] == [["simroute", "sim"], ["simroute", "sim"], ["simroute", "live"]]
    assert [block.count("class ") for block in PYTHON] == [1, 1, 1]


@pytest.mark.parametrize("number", range(2))
def test_a_command_of_the_how_to_compares(number: int, folder: Path) -> None:
    done = invoke(*COMMANDS[number][1:], *SHORTER["sim"], "--quiet", "--json")
    assert done.exit_code == 0, done.stderr
    compared = [entry["policy"] for entry in json.loads(done.stdout)["comparison"]["policies"]]
    named = [word for flag, word in zip(COMMANDS[number], COMMANDS[number][1:], strict=False) if flag == "--policy"]
    assert len(compared) == len(named) == 2 + number


def test_the_live_command_of_the_how_to_decides_alike_when_repeated(folder: Path) -> None:
    done = invoke(*COMMANDS[2][1:], *SHORTER["live"], "--quiet", "--json")
    # A machine under load may make the generator late, which is told by the exit code and nothing else.
    assert done.exit_code in (0, 99), done.stderr
    run = Path(json.loads(done.stdout)["folder"])
    assert json.loads((run / "live.json").read_text())["event_log"]["replay_identical"] is True
    proof = replay(run / "events.jsonl")
    assert proof.differences == ()
    assert proof.decisions > 200
    scores = [json.loads(line).get("scores") for line in (run / "decisions.jsonl").read_text().splitlines()]
    assert all(scores), "why, for each decision"


def test_both_worlds_give_the_policy_the_same_requests(folder: Path) -> None:
    """With one request at a time nothing is left to timing: servers and decisions are the same, one by one."""
    alone = ["--set", "workload.arrivals={kind: closed_loop, max_concurrency: 1}", "--set", "workload.requests=15"]
    alone += ["--set", "workload.duration_s=null", "--set", "warmup_s=0", "--quiet", "--json"]
    chosen = []
    for command in (["sim", "--jobs", "1"], ["live", "--emulate", "4", "--speed", "10"]):
        policy = "docs/examples/least_prefill.py:LeastPrefill"
        done = invoke(*command, "--scenario", "quickstart", "--policy", policy, *alone)
        assert done.exit_code in (0, 99), done.stderr
        requests = pd.read_parquet(Path(json.loads(done.stdout)["folder"]) / "requests.parquet")
        chosen.append(requests.sort_values("request_id")["server_id"].tolist())
    assert chosen[0] == chosen[1]
    assert len(set(chosen[0])) > 1, "ties are drawn"


CHOOSE = "    def choose(self, request, cluster):\n        return Route(cluster.servers[0].server_id)\n"
PATIENT = "    def __init__(self, rng, patience: int = 8):\n        super().__init__(rng)\n"


@pytest.mark.parametrize(
    ("content", "given"),
    [
        (None, ""),
        ("import nonsense\n", ""),
        ("class Mine:\n    pass\n", ""),
        ("class Mine(Policy):\n    pass\n", ""),
        ("class Mine(Policy):\n    def __init__(self, rng):\n        pass\n" + CHOOSE, ""),
        ("class Mine(Policy):\n" + PATIENT + CHOOSE, ":patiense=3"),
        ("class Mine(Policy):\n" + PATIENT + CHOOSE, ":patience=long"),
        ('class Mine(Policy):\n    needs = frozenset({"queue_length"})\n' + CHOOSE, ""),
        ("class Mine(Policy):\n" + CHOOSE.replace("cluster.servers[0].server_id", '"gpu-1"'), ""),
        ("class Mine(Policy):\n" + CHOOSE.replace("return ", ""), ""),
    ],
)
@pytest.mark.parametrize("world", [["sim", "--jobs", "1"], ["live", "--emulate", "2"]], ids=["sim", "live"])
def test_mistakes_are_told_as_the_how_to_says(
    content: str | None, given: str, world: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    if content is not None:
        Path("my_policy.py").write_text("from policies import Policy, Route\n" + content)
    done = invoke(*world, "--scenario", tiny(tmp_path, text=TINY), "--policy", f"my_policy.py:Mine{given}", "--quiet")
    assert done.exit_code == 2, done.output
    assert list(Path("results").rglob("*")) == [], "nothing is written"
    (said,) = [line for line in done.stderr.splitlines() if line.startswith("simroute: ")]
    assert f"| `{said.removeprefix('simroute: ')}` |" in SECTION
