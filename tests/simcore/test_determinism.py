"""The same seed gives the same bytes, in any process and any order; and every policy serves the same requests."""

import hashlib
import json
import os
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from support.cli import ROOT
from support.results import measured

from policies import policy_descriptions
from simcore.engine import simulate
from simcore.experiment.board import Board
from simcore.experiment.jobs import jobs_of, run_jobs
from simcore.manifest import make_manifest
from simcore.records import RunResult
from simcore.run_folder import write_run
from simcore.scenario import PolicySpec, Scenario, load_scenario

POLICIES = [policy.name for policy in policy_descriptions()]
TABLES = ("requests", "servers", "timeline", "itl")

SCENARIO = """\
name: mixed
workload:
  arrivals: {kind: gamma, rate_rps: 20, cv: 2}
  duration_s: 5
  lengths:
    prompt: {kind: lognormal, mean_tokens: 300, cv: 1, max_tokens: 4000}
    output: {kind: lognormal, mean_tokens: 60, cv: 1, max_tokens: 400}
  prefixes: {groups: 4, system_prompt: {kind: uniform, max_tokens: 500}}
  sessions:
    turns: {kind: geometric, mean_turns: 2}
    think_s: {kind: exponential, mean_s: 1}
    message: {kind: uniform, max_tokens: 80}
  expected_output: {kind: noisy, cv: 0.5}
servers:
  - {profile: llama-3.1-8b-h100}
  - {profile: llama-3.1-8b-l40s, count: 2, launch: {max_running_requests: 8}}
router: {max_running_requests: 16, queue_limit: 30}
"""

DIGESTS = """\
import hashlib, json, sys
from simcore.engine import simulate
from simcore.scenario import PolicySpec, load_scenario
scenario = load_scenario(sys.argv[1])
digests = {}
for policy in sys.argv[2:]:
    result = simulate(scenario, PolicySpec(name=policy), 0)
    text = "".join(getattr(result, table).to_json(double_precision=15) for table in ("requests", "servers", "timeline"))
    digests[policy] = hashlib.sha256(text.encode()).hexdigest()
print(json.dumps(digests))
"""


@pytest.fixture
def mixed(tmp_path: Path) -> Scenario:
    """Randomness in every part: arrivals, lengths, prefixes, sessions, expectations and policies."""
    path = tmp_path / "mixed.yaml"
    path.write_text(SCENARIO)
    return load_scenario(str(path))


def written(folder: Path, result: RunResult) -> Path:
    """The run's folder, written at a fixed time."""
    at = datetime(2026, 1, 1, tzinfo=UTC)
    manifest = make_manifest(result, command=["simroute"], profiles={}, started_at=at, finished_at=at)
    return write_run(folder, result, measured(result), config="", manifest=manifest)


def columns(path: Path) -> dict[str, list[bytes]]:
    """A parquet file's columns as the bytes of their buffers."""
    table = pq.read_table(path).combine_chunks()
    return {
        name: [buffer.to_pybytes() for chunk in table[name].chunks for buffer in chunk.buffers() if buffer]
        for name in table.column_names
    }


@pytest.mark.parametrize("policy", ["random", "parameter_aware"])
def test_the_same_seed_gives_the_same_bytes(policy: str, mixed: Scenario, tmp_path: Path) -> None:
    folders = [written(tmp_path / name, simulate(mixed, PolicySpec(name=policy), 3)) for name in ("first", "second")]
    for table in TABLES:
        one, other = (columns(folder / f"{table}.parquet") for folder in folders)
        assert one == other
        files = {hashlib.sha256((folder / f"{table}.parquet").read_bytes()).hexdigest() for folder in folders}
        assert len(files) == 1


@pytest.mark.parametrize("policy", POLICIES)
def test_other_seeds_give_other_requests(policy: str, mixed: Scenario) -> None:
    one, other = (simulate(mixed, PolicySpec(name=policy), seed).requests for seed in (0, 1))
    assert one["arrived_at"].tolist() != other["arrived_at"].tolist()
    assert one["prompt_tokens"].tolist() != other["prompt_tokens"].tolist()


def test_no_hash_of_a_string_gets_into_a_result(mixed: Scenario, tmp_path: Path) -> None:
    """Python hashes strings differently in each process: sets and dicts of them must not decide anything."""
    digests = []
    for hash_seed in ("0", "1", "31337"):
        environment = {**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONPATH": str(ROOT)}
        command = [sys.executable, "-c", DIGESTS, str(tmp_path / "mixed.yaml"), *POLICIES]
        done = subprocess.run(command, capture_output=True, text=True, env=environment, check=True)
        digests.append(json.loads(done.stdout))
    assert digests[0] == digests[1] == digests[2]
    # Here all servers are equal, local and have room.
    nothing_to_do = {"device_aware_weighted", "local_first", "concurrency_gate"}
    others = [digest for policy, digest in digests[0].items() if policy not in nothing_to_do]
    assert len(set(others)) == len(POLICIES) - 3, "each policy decides otherwise"


@pytest.mark.parametrize("name", ["quickstart", "shared-prefix", "overload"])
def test_every_policy_sees_the_same_requests(name: str) -> None:
    """Arrivals, lengths and prefixes; what differs is where they go. Without sessions or a closed loop."""
    scenario = load_scenario(name, ["workload.duration_s=5", "warmup_s=0"])
    tables = [simulate(scenario, PolicySpec(name=policy), 0).requests for policy in POLICIES]
    for table in tables[1:]:
        assert table["arrived_at"].equals(tables[0]["arrived_at"])
        assert table["prompt_tokens"].equals(tables[0]["prompt_tokens"])
        both = (table["status"] == "finished") & (tables[0]["status"] == "finished")
        assert both.sum() > 10
        assert table.loc[both, "output_tokens"].equals(tables[0].loc[both, "output_tokens"])


def test_every_policy_sees_the_same_prefixes() -> None:
    """On one server with room for all, what the cache has does not depend on who decides."""
    scenario = load_scenario(
        "shared-prefix",
        ["workload.duration_s=5", "servers.0.count=1", "servers.0.launch={kv_tokens_capacity: 100000000}"],
    )
    at_once = [policy for policy in POLICIES if policy != "utilization_gate"]
    cached = [simulate(scenario, PolicySpec(name=policy), 0).requests["cached_tokens"].tolist() for policy in at_once]
    assert sum(cached[0]) > 0
    assert all(tokens == cached[0] for tokens in cached)


def test_sessions_turns_have_the_same_lengths_under_every_policy(mixed: Scenario) -> None:
    tables = [simulate(mixed, PolicySpec(name=policy), 0).requests for policy in POLICIES]
    first_turns = ~tables[0]["session_id"].duplicated()
    for table in tables[1:]:
        assert table[["session_id", "prompt_tokens"]].equals(tables[0][["session_id", "prompt_tokens"]])
        assert table.loc[first_turns, "arrived_at"].equals(tables[0].loc[first_turns, "arrived_at"])


def test_the_order_of_the_policies_does_not_matter(mixed: Scenario, tmp_path: Path) -> None:
    """Nor that several run one after another in one process."""
    by_order = []
    for names in (POLICIES, POLICIES[::-1]):
        scenario = mixed.model_copy(update={"policies": tuple(PolicySpec(name=name) for name in names)})
        jobs = jobs_of(scenario, [0])
        board = Board.create(tmp_path / "board", len(jobs))
        outcomes = list(run_jobs(scenario, jobs, board, processes=1, exact_steps=False))
        by_order.append({outcome.job.policy.name: outcome.result for outcome in outcomes})
    for name in POLICIES:
        assert by_order[0][name].requests.equals(by_order[1][name].requests)
        assert by_order[0][name].timeline.equals(by_order[1][name].timeline)
