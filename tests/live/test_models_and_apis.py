"""Several models and remote APIs, live: the same decisions as simulated, limits kept, and costs told."""

import asyncio
import json
import time
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from click.testing import CliRunner
from support.remote import api
from support.upstreams import MODEL, emulated, profile, served

from live.replay.launcher import backends_of
from live.replay.run import LiveOptions, LiveRun, run_live
from live.routing.event_log import replay
from live.service.config import ServerEntry
from policies import PolicyError
from simcore.engine import simulate
from simcore.errors import UserError
from simcore.fleet import fleet_profiles
from simcore.run_folder import load_run
from simcore.scenario import PolicySpec, Scenario
from simroute import main as simroute

SPEED = 5.0


def scenario(servers: list[dict[str, Any]], requests: int = 60, **sections: Any) -> Scenario:
    workload = {
        "arrivals": {"kind": "poisson", "rate_rps": 20},
        "requests": requests,
        "lengths": {"prompt": {"kind": "fixed", "tokens": 100}, "output": {"kind": "fixed", "tokens": 12}},
        **sections.pop("workload", {}),
    }
    return Scenario.model_validate({"name": "mixed", "workload": workload, "servers": servers, **sections})


def remote(folder: Path, **fields: Any) -> str:
    path = folder / f"api{len(list(folder.glob('api*')))}.json"
    path.write_text(api(**{"model": MODEL, "output_tps": 50, **fields}).to_json())
    return str(path)


def run(given: Scenario, folder: Path, policy: PolicySpec) -> LiveRun:
    """On emulators of the scenario's servers."""
    profiles = fleet_profiles(given)

    async def main() -> LiveRun:
        async with asyncio.timeout(90), AsyncExitStack() as stack:
            urls = [
                url
                for one in profiles
                for url in await stack.enter_async_context(emulated(1, profile=one, speed=SPEED))
            ]
            options = LiveOptions(speed=SPEED, backends=backends_of(profiles))
            return await run_live(given, policy, given.seed, urls, options, folder, lambda _: None)

    return asyncio.run(main())


def test_models_and_an_api_go_live_where_they_go_simulated(tmp_path: Path) -> None:
    """Round robin looks at no time, so that every single decision must be the same."""
    given = scenario(
        [
            {"profile": "llama-3.1-8b-h100", "count": 2, "price_per_hour": 3.6},
            {"profile": remote(tmp_path)},
            {"profile": "llama-3.1-8b-h100", "model": "other"},
        ],
        workload={"models": {MODEL: 2, "other": 1}},
    )
    live = run(given, tmp_path, PolicySpec(name="round_robin"))
    sim = simulate(given, PolicySpec(name="round_robin"), given.seed)
    for name in ("server_id", "model", "status", "prompt_tokens", "output_tokens", "attempts"):
        assert live.result.requests[name].tolist() == sim.requests[name].tolist(), name
    for name in ("model", "price_per_hour", "input_price_per_million", "prefill_tokens", "decode_tokens"):
        assert live.result.servers[name].astype(str).tolist() == sim.servers[name].astype(str).tolist(), name
    assert live.result.servers["busy_s"].isna().tolist() == [False, False, True, False]
    proof = replay(tmp_path / "events.jsonl")
    assert proof.differences == ()
    assert proof.decisions == 60
    at_api = live.result.requests[live.result.requests["server_id"] == "s2"]
    ttft_s = at_api["first_token_at"] - at_api["dispatched_at"]
    assert ttft_s.min() >= 0.5
    assert ttft_s.median() == pytest.approx(0.5, abs=0.1)
    decoded_s = at_api["finished_at"] - at_api["first_token_at"]
    assert decoded_s.median() == pytest.approx(11 / 50, abs=0.1)


def test_an_apis_limit_makes_requests_wait_as_simulated(tmp_path: Path) -> None:
    """60 a minute, so after the first 60 of a burst one a second: the last of 63 goes some 3 s after the burst."""
    given = scenario(
        [{"profile": remote(tmp_path, requests_per_minute=60)}],
        requests=63,
        workload={"arrivals": {"kind": "constant", "rate_rps": 1000}},
    )
    live = run(given, tmp_path, PolicySpec(name="round_robin"))
    sim = simulate(given, PolicySpec(name="round_robin"), given.seed)
    for result in (live.result, sim):
        requests = result.requests
        assert set(requests["status"]) == {"finished"}, requests["reason"].unique()
        waited = requests["dispatched_at"] - requests["arrived_at"]
        assert waited.iloc[:60].max() < 0.5
        # From the first request's time on, for the account is full until then; live, a busy machine is later.
        went = (requests["dispatched_at"].iloc[60:] - requests["arrived_at"].iloc[0]).tolist()
        latest = 1e-6 if result is sim else 1.5
        assert all(number - 1e-6 <= at <= number + latest for number, at in enumerate(went, 1)), went
    assert replay(tmp_path / "events.jsonl").differences == ()
    events = [json.loads(line) for line in (tmp_path / "events.jsonl").read_text().splitlines()[1:]]
    assert sum(event["e"] == "room" for event in events) >= 3


def test_the_api_sends_back_what_the_router_reckons_wrong(tmp_path: Path) -> None:
    """The router counts 10 tokens of a prompt, the API 10 and 600 for the answer's limit, of 6000 a minute."""
    given = scenario(
        [{"profile": remote(tmp_path, tokens_per_minute=6000)}],
        requests=13,
        workload={
            "arrivals": {"kind": "constant", "rate_rps": 1000},
            "max_new_tokens": 590,
            "expected_output": {"kind": "none"},
        },
    )
    live = run(given, tmp_path, PolicySpec(name="round_robin"))
    requests = live.result.requests
    assert set(requests["status"]) == {"finished"}, requests["reason"].unique()
    assert set(requests["output_tokens"]) == {12}
    assert set(requests["attempts"]) == {1}
    assert (requests["dispatched_at"] - requests["arrived_at"]).max() > 5
    events = [json.loads(line) for line in (tmp_path / "events.jsonl").read_text().splitlines()[1:]]
    assert any(event["e"] == "limited" for event in events)
    assert replay(tmp_path / "events.jsonl").differences == ()


def test_overflow_to_the_api(tmp_path: Path) -> None:
    """One slot at home: what waits there longer than the bound teaches the policy to send the next ones away."""
    given = scenario(
        [
            {"profile": "llama-3.1-8b-h100", "launch": {"max_running_requests": 1}},
            {"profile": remote(tmp_path)},
        ],
        requests=80,
        workload={"arrivals": {"kind": "poisson", "rate_rps": 60}},
    )
    policy = PolicySpec(name="local_first", params={"max_wait_s": 0.05})
    for result in (run(given, tmp_path, policy).result, simulate(given, policy, 0)):
        assert set(result.requests["server_id"]) == {"s0", "s1"}
        assert set(result.requests["status"]) == {"finished"}
    assert replay(tmp_path / "events.jsonl").differences == ()


def test_a_model_that_no_server_serves_is_told_before_the_run(tmp_path: Path) -> None:
    given = scenario([{"profile": "llama-3.1-8b-h100"}], workload={"models": {"other": 1}})
    with pytest.raises(UserError, match=f"workload.models: no server serves 'other'; there are {MODEL}"):
        run(given, tmp_path, PolicySpec(name="round_robin"))


def test_a_policy_that_needs_reports_is_refused_beside_an_api(tmp_path: Path) -> None:
    given = scenario([{"profile": "llama-3.1-8b-h100"}, {"profile": remote(tmp_path)}])
    with pytest.raises(PolicyError, match="least_kv needs"):
        run(given, tmp_path, PolicySpec(name="least_kv"))


def test_the_command_emulates_both_kinds_and_tells_the_cost(tmp_path: Path) -> None:
    scene = tmp_path / "scene.yaml"
    scene.write_text(
        f"""name: mixed
workload:
  arrivals: {{kind: poisson, rate_rps: 20}}
  requests: 20
  lengths: {{prompt: {{kind: fixed, tokens: 50}}, output: {{kind: fixed, tokens: 5}}}}
servers:
  - {{profile: llama-3.1-8b-h100, price_per_hour: 2}}
  - {{profile: {remote(tmp_path)}}}
policies: [round_robin]
"""
    )
    words = ["live", "--scenario", str(scene), "--emulate", "2", "--speed", "5", "--out", str(tmp_path / "out")]
    done = CliRunner().invoke(simroute, [*words, "--quiet"])
    assert done.exit_code in (0, 99), done.output
    assert "per 1,000 requests" in done.output
    (folder,) = (tmp_path / "out").iterdir()
    stored = load_run(folder)
    cost = stored.summary.cost
    assert cost.own == pytest.approx(2 * stored.result.duration_s / 3600)
    assert cost.remote == pytest.approx(10 * (50 * 1 + 5 * 2) / 1e6)


# -- the emulator by itself ------------------------------------------------------------------------------------------

BODY = {"model": MODEL, "prompt": "Hello", "max_tokens": 4}


async def _post(url: str, body: dict[str, Any], path: str = "/v1/completions") -> tuple[int, Any, dict[str, str]]:
    async with aiohttp.ClientSession() as session, session.post(url + path, json=body) as response:
        text = await response.text()
        headers = {name.lower(): value for name, value in response.headers.items()}
        return response.status, json.loads(text) if text.startswith("{") else text, headers


def test_the_emulated_api_speaks_openais_protocol_at_its_pace() -> None:
    async def main() -> None:
        async with emulated(1, profile=api(model=MODEL, first_token_s=0.2, output_tps=20), speed=1.0) as (url,):
            began = time.perf_counter()
            status, answer, _ = await _post(url, BODY)
            took_s = time.perf_counter() - began
            assert status == 200
            assert answer["model"] == MODEL
            assert answer["usage"]["completion_tokens"] == 4
            assert 0.35 <= took_s < 2.0, "0.2 s and three tokens at 20 a second"
            status, answer, _ = await _post(url, BODY | {"stream": True})
            assert answer.count("data: ") >= 4, "token by token"
            assert answer.rstrip().endswith("data: [DONE]")
            status, *_ = await _post(url, {"text": "x"}, "/generate")
            assert status == 404, "which only SGLang has"

    asyncio.run(main())


@pytest.mark.parametrize("stream", [False, True])
def test_above_its_limit_it_answers_429_and_says_for_how_long(stream: bool) -> None:
    async def main() -> None:
        async with emulated(1, profile=api(requests_per_minute=1, first_token_s=0.01), speed=10.0) as (url,):
            assert (await _post(url, BODY))[0] == 200
            status, answer, headers = await _post(url, BODY | {"stream": stream})
            assert status == 429
            assert answer["error"]["code"] == "rate_limit_exceeded"
            assert 4000 < float(headers["retry-after-ms"]) <= 6000, "a minute at ten times the speed"
            assert headers["retry-after"] == str(-(-float(headers["retry-after-ms"]) // 1000)).removesuffix(".0")

    asyncio.run(main())


# -- the service -----------------------------------------------------------------------------------------------------


def test_the_service_serves_each_model_by_its_servers_and_404_otherwise() -> None:
    async def main() -> None:
        other = profile().with_model("other")
        async with emulated(1) as (one,), emulated(1, profile=other) as (two,), served([one, two]) as (url, _):
            for model in (MODEL, "other"):
                status, answer, _ = await _post(url, BODY | {"model": model})
                assert (status, answer["model"]) == (200, model)
            status, answer, _ = await _post(url, BODY | {"model": "unknown"})
            assert status == 404
            assert answer["error"]["code"] == 404
            assert "no server serves the model 'unknown'" in answer["error"]["message"]

    asyncio.run(main())


def test_the_service_keeps_account_of_an_apis_limit() -> None:
    """One request at once, the next after the time that the account takes: never does the API have to refuse one."""

    async def main() -> None:
        given = api(model=MODEL, requests_per_minute=30, first_token_s=0.01, output_tps=1000)
        async with emulated(1, profile=given, speed=1.0) as (url,):
            entry = {"url": url, "backend": "openai", "remote": True, "requests_per_minute": 30, "model": MODEL}
            async with served([], servers=[entry], queue_timeout_s=30.0) as (router, _):
                began = time.perf_counter()
                answers = await asyncio.gather(*(_post(router, BODY) for _ in range(32)))
                assert [status for status, *_ in answers] == [200] * 32
                assert time.perf_counter() - began > 3.9, "thirty at once, then two seconds a request"

    asyncio.run(main())


def test_a_429_of_an_api_whose_limit_the_service_shares_with_others_is_waited_out() -> None:
    async def main() -> None:
        given = api(model=MODEL, requests_per_minute=30, first_token_s=0.01, output_tps=1000)
        async with emulated(1, profile=given, speed=1.0) as (url,):
            entry = {"url": url, "backend": "openai", "requests_per_minute": 30}
            async with served([], servers=[entry], queue_timeout_s=30.0) as (router, _):
                others = await asyncio.gather(*(_post(url, BODY) for _ in range(30)))
                assert [status for status, *_ in others] == [200] * 30, "somebody else, with the same key"
                began = time.perf_counter()
                status, *_ = await _post(router, BODY)
                assert status == 200
                assert time.perf_counter() - began > 0.2, "two seconds a request, less what had passed"

    asyncio.run(main())


def test_clients_have_one_name_for_a_model_that_servers_name_differently() -> None:
    async def main() -> None:
        async with emulated(1) as (own,), emulated(1, profile=api(model="theirs", first_token_s=0.01)) as (their,):
            servers = [
                {"url": own, "model": "chat"},
                {"url": their, "backend": "openai", "model": "chat", "upstream_model": "theirs"},
            ]
            async with served([], servers=servers, policy="round_robin") as (router, _):
                names = [(await _post(router, BODY | {"model": "chat"}))[1]["model"] for _ in range(2)]
                assert names == [MODEL, "theirs"], "each was asked for by its own name"
                assert (await _post(router, BODY | {"model": "theirs"}))[0] == 404

    asyncio.run(main())


def test_only_an_api_has_models_to_choose_from() -> None:
    with pytest.raises(ValueError, match="it needs 'backend: openai'"):
        ServerEntry.model_validate({"url": "http://127.0.0.1:1", "upstream_model": "x"})


@pytest.mark.parametrize("limit", ["requests_per_minute", "tokens_per_minute"])
def test_a_limit_of_nothing_is_refused(limit: str) -> None:
    with pytest.raises(ValueError, match="greater than 0"):
        ServerEntry.model_validate({"url": "http://127.0.0.1:1", limit: 0})


def test_an_api_of_many_models_serves_the_one_that_was_named() -> None:
    async def main() -> None:
        async with emulated(1, profile=api(model=MODEL)) as (url,):
            entry = {"url": url, "backend": "openai", "upstream_model": "missing"}
            with pytest.raises(UserError, match="does not name 'missing'"):
                async with served([], servers=[entry]):
                    pass

    asyncio.run(main())
