"""The scenarios that ship: each is valid, and its workload, shortened, is served by every policy it compares."""

import json
import os
from itertools import takewhile
from pathlib import Path

import pytest

from simcore.engine import simulate
from simcore.experiment.check import check_experiment, check_workload
from simcore.scenario import PolicySpec, Scenario, load_scenario
from simcore.scenario_file import bundled_scenarios, scenario_text

REPLAYS = {"azure-code": 8_819, "azure-conv": 19_366, "mooncake-conversation": 12_031}
GENERATED = [name for name in bundled_scenarios() if name not in REPLAYS]


@pytest.fixture
def traces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Some requests in the traces' forms, so that the replays run without the traces."""
    azure, mooncake = tmp_path / "traces/azure-2023", tmp_path / "traces/mooncake"
    azure.mkdir(parents=True)
    mooncake.mkdir()
    rows = [f"2023-11-16 18:{minute:02}:46.6805900,{100 + minute},{10 + minute}" for minute in range(5)]
    for name in ("conv", "code"):
        text = "\n".join(["TIMESTAMP,ContextTokens,GeneratedTokens", *rows, ""])
        (azure / f"AzureLLMInferenceTrace_{name}.csv").write_text(text)
    lines = [
        {"timestamp": 1000 * i, "input_length": 1000, "output_length": 10, "hash_ids": [0, i + 1]} for i in range(100)
    ]
    (mooncake / "conversation_trace.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    monkeypatch.setenv("SIMROUTE_DATA", str(tmp_path))


def shortened(name: str) -> Scenario:
    duration = () if name in REPLAYS else ("workload.requests=null", "workload.duration_s=5")
    return load_scenario(name, [*duration, "warmup_s=0"])


@pytest.mark.parametrize("name", bundled_scenarios())
def test_it_runs(name: str, traces: None) -> None:
    scenario = shortened(name)
    check_experiment(scenario)
    requests = len(check_workload(scenario))

    for policy in scenario.policies:
        result = simulate(scenario, policy, seed=0)
        assert len(result.requests) == requests
        assert set(result.requests["status"]) <= {"finished", "rejected"}


@pytest.mark.parametrize("name", bundled_scenarios())
def test_its_file(name: str) -> None:
    """Named as its file, described, and checked by editors when it is copied."""
    scenario = load_scenario(name)

    assert scenario.name == name
    assert scenario.description.endswith(".")
    assert scenario.slo.bounds()
    assert scenario_text(name).startswith("# yaml-language-server: $schema=scenario.schema.json\n#\n")


def test_the_twins_differ_in_batching_alone() -> None:
    static, continuous = (load_scenario(name).model_dump() for name in ("node-static", "node-continuous"))
    (group,), (other,) = static.pop("servers"), continuous.pop("servers")

    assert group["launch"]["batching"] == "static"
    assert {**group, "launch": None} == {**other, "launch": None}
    for scenario in (static, continuous):
        del scenario["name"], scenario["description"]
    assert static == continuous


@pytest.mark.parametrize("name", REPLAYS)
@pytest.mark.skipif("SIMROUTE_DATA" not in os.environ, reason="needs the traces under SIMROUTE_DATA")
def test_it_replays_the_whole_trace(name: str) -> None:
    assert len(check_workload(load_scenario(name))) == REPLAYS[name]
    assert f"{REPLAYS[name]:,}" in load_scenario(name).description


@pytest.mark.skipif("SIMROUTE_DATA" not in os.environ, reason="needs the traces under SIMROUTE_DATA")
def test_an_unlimited_cache_hits_what_the_mooncake_trace_shares() -> None:
    """A prompt's tokens in blocks that an earlier one began with too; published as 36.6% of the blocks."""
    unlimited = ("servers.0.count=1", "servers.0.launch.kv_tokens_capacity=1000000000")
    requests = simulate(
        load_scenario("mooncake-conversation", unlimited), PolicySpec(name="round_robin"), seed=0
    ).requests
    lines = (Path(os.environ["SIMROUTE_DATA"]) / "traces/mooncake/conversation_trace.jsonl").read_text().splitlines()
    seen: set[int] = set()
    blocks = shared_blocks = shared_tokens = 0
    for call in map(json.loads, lines):
        shared = len(list(takewhile(seen.__contains__, call["hash_ids"])))
        seen.update(call["hash_ids"])
        blocks += len(call["hash_ids"])
        shared_blocks += shared
        shared_tokens += min(shared * 512, call["input_length"])

    assert shared_blocks / blocks == pytest.approx(0.366, abs=0.0005)
    # A prompt that is shared whole computes its last token all the same.
    assert shared_tokens - len(lines) <= requests["cached_tokens"].sum() <= shared_tokens
