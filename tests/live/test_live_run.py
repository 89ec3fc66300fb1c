"""``simroute live``: a scenario in real time leaves what a simulation leaves, and proves its decisions."""

import asyncio
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from support.upstreams import Chaos, emulated, profile, run_until_servers_vanish

from live.replay.prompts import PromptTokens
from live.replay.run import LiveOptions, LiveRun, run_live
from live.routing.air import Timeouts
from live.routing.event_log import replay
from live.upstream.origin import Origin
from policies import PolicyError, policy_descriptions
from simcore.errors import UserError
from simcore.records import REQUEST_DTYPES, SERVER_DTYPES
from simcore.run_folder import load_run
from simcore.scenario import PolicySpec, Scenario
from simcore.workload import build_workload
from simroute import main as simroute

LENGTHS = {
    "prompt": {"kind": "uniform", "max_tokens": 200, "range_ratio": 0.2},
    "output": {"kind": "uniform", "max_tokens": 30, "range_ratio": 0.2},
}


def scenario(workload: Mapping[str, Any] | None = None, **sections: Any) -> Scenario:
    arrivals = {"arrivals": {"kind": "poisson", "rate_rps": 40}, "requests": 40, "lengths": LENGTHS}
    return Scenario.model_validate(
        {
            "name": "small",
            "workload": arrivals | dict(workload or {}),
            "servers": ({"profile": "llama-3.1-8b-h100", "count": 2},),
        }
        | sections
    )


def run(
    given: Scenario, folder: Path, policy: str = "least_request", count: int = 2, speed: float = 5.0, **options: Any
) -> LiveRun:
    async def main() -> LiveRun:
        async with asyncio.timeout(60), emulated(count, speed=speed) as urls:
            spec, settings = PolicySpec(name=policy), LiveOptions(speed=speed, **options)
            return await run_live(given, spec, given.seed, urls, settings, folder, lambda _: None)

    return asyncio.run(main())


def finished(result: LiveRun) -> pd.DataFrame:
    """The requests, all of which must have ended well, with their times in order."""
    requests = result.result.requests
    assert set(requests["status"]) == {"finished"}, requests[["status", "reason"]].value_counts()
    times = requests[["arrived_at", "dispatched_at", "first_token_at", "finished_at"]].to_numpy()
    assert (np.diff(times, axis=1) >= 0).all()
    return requests


def test_connections_are_open_before_the_clients_of_a_closed_loop_begin(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[int] = []
    prepare = Origin.prepare

    async def counted(origin: Origin, connections: int) -> None:
        opened.append(connections)
        await prepare(origin, connections)

    monkeypatch.setattr(Origin, "prepare", counted)
    finished(run(scenario({"arrivals": {"kind": "closed_loop", "max_concurrency": 6}, "requests": 12}), tmp_path))
    assert opened == [6, 6]


def test_a_server_that_takes_no_more_connections_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def refused(origin: Origin, connections: int) -> None:
        raise TimeoutError

    monkeypatch.setattr(Origin, "prepare", refused)
    with pytest.raises(UserError, match=r"http://127\.0\.0\.1:\d+ takes no 1 connections at once: timed out"):
        run(scenario(), tmp_path)


@pytest.mark.parametrize("policy", [description.name for description in policy_descriptions()])
def test_every_policy_serves_every_request_and_its_log_repeats(policy: str, tmp_path: Path) -> None:
    """Two servers, and what any policy looks at: shared prefixes, sessions, bounds, weights and a remote server."""
    given = scenario(
        {
            "prefixes": {"groups": 3, "system_prompt": {"kind": "fixed", "tokens": 300}},
            "sessions": {
                "turns": {"kind": "fixed", "turns": 2},
                "think_s": {"kind": "fixed", "time_s": 0.1},
                "message": {"kind": "fixed", "tokens": 20},
            },
        },
        router={"report_interval_s": 0.2},
        servers=(
            {"profile": "llama-3.1-8b-h100", "weight": 2.0},
            {"profile": "llama-3.1-8b-h100", "remote": True},
        ),
        slo={"ttft_s": 0.5, "tpot_s": 0.05},
    )
    live = run(given, tmp_path, policy)
    requests = finished(live)
    workload = build_workload(given.workload, np.random.SeedSequence(0).spawn(3)[0], base_dir=Path())
    assert (requests["prompt_tokens"] == workload.prompt_tokens).all()
    assert (requests["output_tokens"] == workload.output_tokens).all()
    assert (requests["attempts"] == 1).all()
    assert list(requests.columns) == list(REQUEST_DTYPES)
    servers = live.result.servers
    assert list(servers.columns) == list(SERVER_DTYPES)
    assert servers["prefill_tokens"].sum() + servers["cached_tokens"].sum() == requests["prompt_tokens"].sum()
    assert servers["decode_tokens"].sum() == (requests["output_tokens"] - 1).sum()
    assert live.result.itl["count"].sum() == (requests["output_tokens"] - 1).sum()
    proof = replay(tmp_path / "events.jsonl")
    assert proof.differences == ()
    assert proof.decisions == 40


def test_each_decision_is_kept_with_its_view(tmp_path: Path) -> None:
    live = run(scenario(), tmp_path, "parameter_aware")
    decisions = [json.loads(line) for line in (tmp_path / "decisions.jsonl").read_text().splitlines()]
    assert len(decisions) == 40
    routed = {decision["request_id"]: decision["route"] for decision in decisions}
    assert [routed[index] for index in range(40)] == live.result.requests["server_id"].tolist()
    for decision in decisions:
        assert {server["server_id"] for server in decision["servers"]} == {"s0", "s1"} == set(decision["scores"])
    loads = [json.loads(line) for line in (tmp_path / "loads.jsonl").read_text().splitlines()]
    assert {load["server_id"] for load in loads} == {"s0", "s1"}
    meta = [json.loads(line) for line in (tmp_path / "meta_info.jsonl").read_text().splitlines()]
    assert len(meta) == 40
    assert all(said["emulator"] == "simroute-emulator" for said in meta)
    notes = json.loads((tmp_path / "live.json").read_text())
    assert notes["emulated"] is True
    assert notes["event_log"]["replay_identical"] is True
    assert any("emulators" in warning for warning in live.result.warnings)


def test_a_closed_loop_never_has_more_in_flight_than_its_clients(tmp_path: Path) -> None:
    given = scenario({"arrivals": {"kind": "closed_loop", "max_concurrency": 5}})
    requests = finished(run(given, tmp_path))
    ends = sorted([(at, 1) for at in requests["arrived_at"]] + [(at, -1) for at in requests["finished_at"]])
    assert max(np.cumsum([change for _, change in ends])) == 5


def test_a_sessions_turns_wait_and_their_prompts_hold_the_answers(tmp_path: Path) -> None:
    sessions = {
        "turns": {"kind": "fixed", "turns": 3},
        "think_s": {"kind": "fixed", "time_s": 0.2},
        "message": {"kind": "fixed", "tokens": 20},
    }
    live = run(scenario({"sessions": sessions, "requests": 12}), tmp_path, count=1)
    requests = finished(live)
    for _, turns in requests.groupby("session_id"):
        assert (turns["arrived_at"].to_numpy()[1:] >= turns["finished_at"].to_numpy()[:-1] + 0.2).all()
        # All that was said before is in the cache, but for the last token, whose KV was never computed.
        said = turns["prompt_tokens"].to_numpy()[:-1] + turns["output_tokens"].to_numpy()[:-1]
        assert (turns["cached_tokens"].to_numpy()[1:] == said - 1).all()


def test_shared_prefixes_are_shared_at_the_server(tmp_path: Path) -> None:
    prefixes = {"groups": 2, "system_prompt": {"kind": "fixed", "tokens": 300}}
    requests = finished(run(scenario({"prefixes": prefixes}), tmp_path, count=1))
    assert (requests["cached_tokens"] >= 300).sum() >= 30


def test_static_batches_start_and_end_together(tmp_path: Path) -> None:
    static = profile(batching="static", static_batch_size=8, static_batch_timeout_s=0.05)

    async def main() -> LiveRun:
        async with emulated(1, profile=static, speed=5.0) as urls:
            return await run_live(
                scenario(), PolicySpec(name="random"), 0, urls, LiveOptions(speed=5.0), tmp_path, lambda _: None
            )

    requests = finished(asyncio.run(main()))
    assert (requests["output_tokens"] > 0).all()


def test_control_caps_the_router_and_the_servers_at_its_time(tmp_path: Path) -> None:
    control = ({"at_s": 0.0, "max_running_requests": 2}, {"at_s": 1.5, "server": "s0", "max_running_requests": 6})
    given = scenario({"arrivals": {"kind": "poisson", "rate_rps": 200}, "requests": 60}, control=control)
    finished(run(given, tmp_path))
    events = [json.loads(line) for line in (tmp_path / "events.jsonl").read_text().splitlines()[1:]]
    caps = [(event["x"], event["t"]) for event in events if event["e"] == "cap"]
    assert [said for said, _ in caps] == [["s0", 2], ["s1", 2], ["s0", 6]]
    assert caps[2][1] >= 1.5
    decisions = [json.loads(line) for line in (tmp_path / "decisions.jsonl").read_text().splitlines()]
    for decision in decisions:
        for server in decision["servers"]:
            assert server["in_flight_requests"] < server["max_running_requests"]


def test_control_drains_and_switches_the_policy_as_in_a_simulation(tmp_path: Path) -> None:
    control = (
        {"at_s": 0.2, "policy": "shortest_job_first"},
        {"at_s": 0.5, "server": "s1", "draining": True},
        {"at_s": 0.8, "policy": "parameter_aware"},
    )
    requests = finished(run(scenario(control=control), tmp_path, speed=1.0))
    events = [json.loads(line) for line in (tmp_path / "events.jsonl").read_text().splitlines()[1:]]
    # A machine under load may be some 10 ms late with it.
    (drained_at,) = [event["t"] for event in events if event["e"] == "health" and event["x"] == ["s1", False]]
    assert drained_at >= 0.5
    assert set(requests[requests["arrived_at"] > drained_at]["server_id"]) == {"s0"}
    assert sum(event["e"] == "policy" for event in events) == 2
    assert replay(tmp_path / "events.jsonl").differences == ()


def test_a_full_router_queue_rejects_and_the_counts_add_up(tmp_path: Path) -> None:
    router = {"queue_limit": 3, "max_running_requests": 2}
    given = scenario({"arrivals": {"kind": "poisson", "rate_rps": 400}}, router=router)
    requests = run(given, tmp_path).result.requests
    counts = requests["status"].value_counts().to_dict()
    assert set(counts) == {"finished", "rejected"}
    assert sum(counts.values()) == 40
    assert set(requests[requests["status"] == "rejected"]["reason"]) == {"the router's queue is full"}


@pytest.mark.parametrize("mode", ["reset_late", "garbage_late", "hang_late"])
def test_what_a_server_loses_is_failed_with_its_cause(mode: str, tmp_path: Path) -> None:
    async def main() -> LiveRun:
        async with emulated(1, speed=1.0) as (url,):
            chaos = Chaos(url)
            chaos.mode = mode
            async with chaos.running() as between:
                given = scenario({"requests": 3, "lengths": {**LENGTHS, "output": {"kind": "fixed", "tokens": 300}}})
                options = LiveOptions(timeouts=Timeouts(idle_s=1.0))
                spec = PolicySpec(name="random")
                return await run_live(given, spec, 0, [between], options, tmp_path, lambda _: None)

    requests = asyncio.run(main()).result.requests
    assert set(requests["status"]) == {"failed"}
    assert requests["reason"].str.startswith("s0: ").all()
    assert (requests["output_tokens"] > 0).all()
    assert replay(tmp_path / "events.jsonl").differences == ()


def test_what_fails_before_its_first_byte_is_sent_again(tmp_path: Path) -> None:
    async def main() -> LiveRun:
        async with emulated(2, speed=5.0) as urls:
            chaos = Chaos(urls[0])
            chaos.mode = "reset"
            async with chaos.running() as between:
                spec, options = PolicySpec(name="round_robin"), LiveOptions(speed=5.0)
                servers = [between, urls[1]]
                return await run_live(scenario(), spec, 0, servers, options, tmp_path, lambda _: None)

    live = asyncio.run(main())
    requests = finished(live)
    assert set(requests["server_id"]) == {"s1"}
    assert (requests["attempts"] > 1).any()


def test_a_late_generator_makes_the_run_invalid(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("live.replay.validity.LATE_S", 0.0)
    live = run(scenario({"requests": 5}), tmp_path)
    assert live.invalid is not None
    assert "the generator was late" in live.invalid
    assert json.loads((tmp_path / "live.json").read_text())["valid"] is False


def test_what_cannot_be_run_is_said_before_anything_is_sent(tmp_path: Path) -> None:
    async def main(url: str, backend: str) -> None:
        options = LiveOptions(backend=backend)
        await run_live(scenario(), PolicySpec(name="parameter_aware"), 0, [url], options, tmp_path, lambda _: None)

    async def without_metrics() -> None:
        async with emulated() as (url,):
            await main(url, "openai")

    with pytest.raises(UserError, match="cannot be used as a sglang server"):
        asyncio.run(main("http://127.0.0.1:1", "sglang"))
    with pytest.raises(PolicyError, match="which this run does not provide"):
        asyncio.run(without_metrics())


def test_prompts_share_what_the_workload_says_they_share() -> None:
    prefixes = {"groups": 2, "system_prompt": {"kind": "fixed", "tokens": 50}}
    workload = build_workload(
        scenario({"prefixes": prefixes}).workload, np.random.SeedSequence(1).spawn(3)[0], base_dir=Path()
    )
    prompts = PromptTokens(workload, 1)
    ids = [prompts.ids(request_id) for request_id in range(len(workload))]
    assert [len(prompt) for prompt in ids] == workload.prompt_tokens.tolist()
    assert len({tuple(prompt[:50]) for prompt in ids}) == 2
    assert len({tuple(prompt[50:]) for prompt in ids}) == len(ids)
    assert min(map(min, ids)) >= 1000
    assert max(map(max, ids)) < 32000
    assert PromptTokens(workload, 2).ids(0) != ids[0]


def test_the_command_line_starts_emulators_and_leaves_a_folder(tmp_path: Path) -> None:
    file = tmp_path / "small.yaml"
    file.write_text(
        "name: small\n"
        "workload:\n"
        "  arrivals: {kind: poisson, rate_rps: 20}\n"
        "  requests: 10\n"
        "  lengths: {prompt: {kind: fixed, tokens: 100}, output: {kind: fixed, tokens: 10}}\n"
        "servers: [{profile: llama-3.1-8b-h100, count: 2}]\n"
    )
    command = ["live", "--scenario", str(file), "--emulate", "3", "--policy", "round_robin", "--json"]
    done = CliRunner().invoke(simroute, [*command, "--out", str(tmp_path / "results"), "--speed", "2"])
    # A machine under load may make the generator late, which is told by the exit code and nothing else.
    assert done.exit_code in (0, 99), done.output
    stored = load_run(Path(json.loads(done.stdout)["folder"]))
    assert stored.result.kind == "live"
    assert stored.result.requests["status"].tolist() == ["finished"] * 10
    assert sorted(set(stored.result.requests["server_id"])) == ["s0", "s1", "s2"]
    assert (stored.path / "events.jsonl").is_file()
    assert (stored.path / "live.json").is_file()
    assert "--emulate" in stored.manifest["command"]  # type: ignore[operator]


def test_a_run_whose_servers_are_gone_ends_with_what_there_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("live.replay.command.run_live", run_until_servers_vanish)
    command = ["live", "--scenario", "quickstart", "--emulate", "2", "--policy", "random", "--policy", "round_robin"]
    settings = ["--set", "workload.arrivals.rate_rps=20", "--set", "warmup_s=0", "--speed", "4"]
    done = CliRunner().invoke(simroute, [*command, *settings, "--json", "--out", str(tmp_path)])
    assert done.exit_code == 99, done.output
    assert "random: the run is invalid: no server was ready for 1 s: http://127.0.0.1" in done.stderr
    assert "round_robin" not in done.stderr
    document = json.loads(done.stdout)
    assert document["interrupted"] is True
    run_folder = Path(document["folder"]) / "random-seed0"
    requests = load_run(run_folder).result.requests
    assert {"finished", "unfinished"} <= set(requests["status"])
    notes = json.loads((run_folder / "live.json").read_text())
    assert notes["invalid_because"].startswith("no server was ready")


@pytest.mark.parametrize("options", [[], ["--emulate", "1", "--servers", "http://a"], ["--launch", "1"]])
def test_where_the_servers_are_must_be_said_once(options: list[str]) -> None:
    done = CliRunner().invoke(simroute, ["live", "--scenario", "quickstart", *options])
    assert done.exit_code == 2
    assert "--" in done.stderr


BROKEN = """\
from policies import Policy, Route

class {name}(Policy):
    needs = frozenset({{"queued_requests"}})

    def choose(self, request, cluster):
        {choose}
        return Route(cluster.servers[0].server_id)

    def {hook}:
        raise ZeroDivisionError("of the policy's own")
"""


@pytest.mark.parametrize(
    ("choose", "hook", "error", "message"),
    [
        ("1 / (request.request_id < 3)", "unused(self)", ZeroDivisionError, "division by zero"),
        ("return Route('gpu-1')", "unused(self)", PolicyError, "Broken routed request 0 to the unknown server 'gpu-1'"),
        ("pass", "on_dispatch(self, request, server, now)", ZeroDivisionError, "of the policy's own"),
        ("pass", "on_first_token(self, request, server, now)", ZeroDivisionError, "of the policy's own"),
        ("pass", "on_finish(self, request, server, now)", ZeroDivisionError, "of the policy's own"),
        ("pass", "on_report(self, server, now)", ZeroDivisionError, "of the policy's own"),
    ],
)
def test_a_policys_mistake_ends_the_run_at_once(
    choose: str, hook: str, error: type[Exception], message: str, tmp_path: Path
) -> None:
    file = tmp_path / "broken.py"
    file.write_text(BROKEN.format(name="Broken", choose=choose, hook=hook))
    with pytest.raises(error, match=message):
        run(scenario(router={"report_interval_s": 0.2}), tmp_path, f"{file}:Broken")
