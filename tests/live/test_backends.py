"""What each kind of server says, read as it says it."""

import asyncio
import json
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from support.upstreams import ROOT, served

from live.backends import BACKENDS, Backend, BackendError, LiveRequest
from live.replay.launcher import SGLangLaunch, sglang_servers
from live.replay.run import LiveOptions, run_live
from live.upstream.origin import Origin
from policies.ledger import ServerReport
from simcore.errors import UserError
from simcore.scenario import PolicySpec, Scenario

EVERYTHING = frozenset(ServerReport._fields)
ASKED = LiveRequest([11, 12, 13], 4, 4, ignore_eos=True, model="m")


def backend(kind: str, url: str, session: aiohttp.ClientSession) -> Backend:
    return BACKENDS[kind](Origin(url), session)


def read(kind: str, *pieces: bytes) -> Any:
    """A reader that was fed the pieces."""

    async def main() -> Any:
        async with aiohttp.ClientSession() as session:
            reader = backend(kind, "http://127.0.0.1:1", session).reader()
            for piece in pieces:
                reader.feed(piece)
            return reader

    return asyncio.run(main())


def event(document: Any) -> bytes:
    return b"data: " + json.dumps(document).encode() + b"\n\n"


def sglang(ids: list[int], tokens: int, finish: Any = None) -> bytes:
    meta = {"completion_tokens": tokens, "cached_tokens": 2, "finish_reason": finish}
    return event({"text": "x", "output_ids": ids, "meta_info": meta})


def test_sglang_streams_cumulative_or_incremental_give_the_same() -> None:
    done = b"data: [DONE]\n\n"
    stop = {"type": "length", "length": 3}
    cumulative = read(
        "sglang", sglang([5], 1), sglang([5, 6], 2)[:20], sglang([5, 6], 2)[20:], sglang([5, 6, 7], 3, stop), done
    )
    incremental = read("sglang", sglang([5], 1) + sglang([6, 7], 3, stop), done[:5], done[5:])
    for reader in (cumulative, incremental):
        assert reader.output_ids == [5, 6, 7]
        assert (reader.tokens, reader.complete, reader.failure) == (3, True, None)
        assert reader.meta["cached_tokens"] == 2


def test_sglang_aborts_and_errors_in_a_stream_are_failures() -> None:
    abort = {"type": "abort", "message": "The request queue is full.", "status_code": 503}
    assert read("sglang", sglang([], 0, abort)).failure == "The request queue is full."
    assert read("sglang", event({"error": {"message": "too long", "code": 400}})).failure == "too long"


def test_openai_streams_count_events_until_the_usage_says() -> None:
    pieces = [event({"choices": [{"text": text}]}) for text in ("a", "", "b")]
    assert read("openai", *pieces).tokens == 2
    usage = {"completion_tokens": 5, "prompt_tokens": 3, "prompt_tokens_details": {"cached_tokens": 1}}
    reader = read("openai", *pieces, event({"choices": [], "usage": usage}), b"data: [DONE]\n\n")
    assert (reader.tokens, reader.complete, reader.meta["cached_tokens"]) == (5, True, 1)


def test_tgi_streams_are_an_event_a_token_and_end_with_their_text() -> None:
    pieces = [event({"token": {"id": number}, "generated_text": None}) for number in (8, 9)]
    last = event({"token": {"id": 10}, "generated_text": "abc", "details": {"generated_tokens": 3}})
    assert not read("tgi", *pieces).complete
    reader = read("tgi", *pieces, last)
    assert (reader.tokens, reader.output_ids, reader.complete) == (3, [8, 9, 10], True)


@pytest.mark.parametrize("kind", ["sglang", "openai", "tgi"])
def test_what_is_no_event_is_said(kind: str) -> None:
    with pytest.raises(BackendError, match="not JSON"):
        read(kind, b"data: {nonsense\n\n")


def talking(kind: str, app: web.Application, test: Callable[[Backend, str], Awaitable[None]]) -> None:
    async def main() -> None:
        async with TestServer(app) as server, aiohttp.ClientSession() as session:
            url = str(server.make_url("")).rstrip("/")
            await test(backend(kind, url, session), url)

    asyncio.run(main())


def answering(answers: dict[str, Any], *routes: web.RouteDef) -> web.Application:
    """A server with fixed documents, text as it is."""

    async def answer(request: web.Request) -> web.Response:
        document = answers.get(request.path)
        if document is None:
            return web.Response(status=404)
        return web.Response(text=document) if isinstance(document, str) else web.json_response(document)

    app = web.Application()
    app.add_routes(routes)
    app.router.add_route("*", "/{path:.*}", answer)
    return app


def test_vllms_metrics_are_its_report() -> None:
    def metrics(tokens: int, ttft: float) -> str:
        return (
            f'vllm:num_requests_running{{model="m"}} 3\nvllm:num_requests_waiting{{model="m"}} 2\n'
            f"vllm:generation_tokens_total {tokens}\nvllm:time_to_first_token_seconds_sum {ttft}\n"
            f"vllm:time_to_first_token_seconds_count {tokens / 100}\n"
            f"vllm:time_per_output_token_seconds_sum {0.02 * tokens}\n"
            f"vllm:time_per_output_token_seconds_count {tokens}\n"
        )

    answers: dict[str, Any] = {"/v1/models": {"data": [{"id": "m"}]}, "/metrics": metrics(100, 0.5)}

    async def test(server: Backend, _: str) -> None:
        assert (await server.connect()).model == "m"
        assert await server.is_ready()
        first = await server.load(1.0, EVERYTHING)
        answers["/metrics"] = metrics(300, 1.5)
        second = await server.load(3.0, EVERYTHING)
        assert (first.running_requests, first.queued_requests, first.throughput_tps) == (3, 2, 0.0)
        assert (first.mean_ttft_s, first.mean_tpot_s) == (None, None)
        assert (second.throughput_tps, second.mean_ttft_s) == (100.0, 0.5)
        assert second.mean_tpot_s == pytest.approx(0.02)

    talking("openai", answering(answers), test)


@pytest.mark.parametrize(("wanted", "scrapes"), [({"queued_requests"}, 0), ({"mean_tpot_s"}, 1)])
def test_sglangs_metrics_are_scraped_only_for_a_policy_that_decides_on_them(wanted: set[str], scrapes: int) -> None:
    load = dict.fromkeys(("num_running_reqs", "num_waiting_reqs", "num_used_tokens"), 3)
    documents = {
        "/server_info": {"version": "0.5.23"},
        "/model_info": {"served_model_name": "m"},
        "/v1/loads": {"loads": [{**load, "max_total_num_tokens": 100}]},
    }
    scraped = 0

    async def metrics(_: web.Request) -> web.Response:
        nonlocal scraped
        scraped += 1
        later = 100 * scraped
        text = f"sglang:inter_token_latency_seconds_sum {0.02 * later}\n"
        text += f"sglang:inter_token_latency_seconds_count {later}\nsglang:generation_tokens_total 7\n"
        text += f"sglang:time_to_first_token_seconds_sum 1\nsglang:time_to_first_token_seconds_count {scraped}\n"
        return web.Response(text=text)

    async def test(server: Backend, _: str) -> None:
        await server.connect()
        before = scraped
        first = await server.load(1.0, wanted)
        assert first.mean_tpot_s is None
        report = await server.load(3.0, wanted)
        assert report.queued_requests == 3
        assert scraped - before == 2 * scrapes
        assert report.mean_tpot_s == (pytest.approx(0.02) if scrapes else None)
        # Tokens as they come: a hundred, and a first one, in two seconds.
        assert report.throughput_tps == (50.5 if scrapes else 0.0)

    talking("sglang", answering(documents, web.get("/metrics", metrics)), test)


def test_a_server_that_tells_nothing_reports_nothing() -> None:
    async def test(server: Backend, _: str) -> None:
        await server.connect()
        assert server.reports == frozenset()

    talking("openai", answering({"/v1/models": {"data": [{"id": "m"}]}}), test)


@pytest.mark.parametrize(
    ("kind", "answers"), [("sglang", {}), ("openai", {"/v1/models": {"data": []}}), ("tgi", {"/info": {}})]
)
def test_a_server_of_another_kind_is_said(kind: str, answers: dict[str, Any]) -> None:
    async def test(server: Backend, _: str) -> None:
        with pytest.raises(BackendError):
            await server.connect()

    talking(kind, answering(answers), test)


def tgi_app() -> web.Application:
    """As much of TGI as is used."""
    documents = {"/info": {"model_id": "m", "version": "3"}, "/metrics": "tgi_batch_current_size 4\ntgi_queue_size 1\n"}
    return answering({**documents, "/health": " "}, web.post("/generate_stream", _generate_stream))


async def _generate_stream(request: web.Request) -> web.StreamResponse:
    tokens = (await request.json())["parameters"]["max_new_tokens"]
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
    await response.prepare(request)
    for number in range(tokens):
        text = "all of it" if number == tokens - 1 else None
        await response.write(event({"token": {"id": number}, "generated_text": text}).replace(b"data: ", b"data:"))
    return response


def test_tgi_is_served_and_run_against(tmp_path: Path) -> None:
    scenario = Scenario.model_validate(
        {
            "name": "tgi",
            "workload": {
                "arrivals": {"kind": "poisson", "rate_rps": 100},
                "requests": 10,
                "lengths": {"prompt": {"kind": "fixed", "tokens": 5}, "output": {"kind": "fixed", "tokens": 4}},
            },
            "servers": ({"profile": "llama-3.1-8b-h100"},),
        }
    )

    async def test(server: Backend, url: str) -> None:
        await server.connect()
        assert await server.is_ready()
        report = await server.load(1.0, EVERYTHING)
        assert (report.running_requests, report.queued_requests) == (4, 1)
        spec, options = PolicySpec(name="random"), LiveOptions(backend="tgi")
        live = await run_live(scenario, spec, 0, [url], options, tmp_path, lambda _: None)
        assert set(live.result.requests["status"]) == {"finished"}
        assert set(live.result.requests["output_tokens"]) == {4}
        async with served([], servers=[{"url": url, "backend": "tgi"}]) as (router, _):
            body = {"inputs": "hi", "parameters": {"max_new_tokens": 3}}
            async with server.session.post(f"{router}/generate_stream", json=body) as response:
                assert (await response.text()).count("data:") == 3

    talking("tgi", tgi_app(), test)


def test_the_request_id_is_put_in_without_a_change_to_the_rest() -> None:
    async def main() -> None:
        async with aiohttp.ClientSession() as session:
            server = backend("sglang", "http://127.0.0.1:1", session)
            for body in (b'{"a": 1e400, "b":[1 ,2]}', b"{}", b' {"a":1}', b'{"rid":"x","a":1}'):
                sent = server.with_rid(body, json.loads(body), "r" * 32)
                assert json.loads(sent) == {**json.loads(body), "rid": "r" * 32}
            assert server.with_rid(b'{"a": 1.50}', {"a": 1.5}, "r") == b'{"rid":"r","a": 1.50}'

    asyncio.run(main())


STAND_IN = """#!{python}
import os, sys
arguments = sys.argv[1:]
assert arguments[:2] == ["-m", "sglang.launch_server"], arguments
if "--broken" in arguments:
    sys.exit(3)
port = arguments[arguments.index("--port") + 1]
assert os.environ["CUDA_VISIBLE_DEVICES"] in ("0", "1")
os.chdir({root!r})
os.execv({python!r}, [{python!r}, "-m", "simroute", "emulate", "--profile", "llama-3.1-8b-h100", "--port", port])
"""


def stand_in(folder: Path) -> str:
    """Something that is started as SGLang is."""
    file = folder / "python"
    file.write_text(STAND_IN.format(python=sys.executable, root=str(ROOT)))
    file.chmod(0o755)
    return str(file)


def test_sglang_is_started_one_a_gpu_and_stopped(tmp_path: Path) -> None:
    async def main() -> None:
        launch = SGLangLaunch("some/model", python=stand_in(tmp_path), arguments="--context-length 4096", startup_s=60)
        async with aiohttp.ClientSession() as session:
            async with sglang_servers(launch, 2) as urls:
                for url in urls:
                    async with session.get(f"{url}/ready") as response:
                        assert response.status == 200
            for url in urls:
                with pytest.raises(aiohttp.ClientError):
                    await session.get(f"{url}/ready")

    asyncio.run(main())


def test_an_sglang_that_does_not_start_is_said(tmp_path: Path) -> None:
    async def main() -> None:
        launch = SGLangLaunch("some/model", python=stand_in(tmp_path), arguments="--broken", startup_s=30)
        async with sglang_servers(launch, 1):
            pass

    with pytest.raises(UserError, match="ended with 3"):
        asyncio.run(main())


def test_sglang_is_given_a_moment_to_flush() -> None:
    """What it has just finished counts as under way for a moment, and it refuses unless told to wait."""
    waits_s: list[float] = []

    async def flush_cache(request: web.Request) -> web.Response:
        waits_s.append(float(request.query["timeout"]))
        return web.Response(status=400 if len(waits_s) > 1 else 200, text="Timed out waiting for idle state.")

    async def main() -> None:
        app = web.Application()
        app.router.add_post("/flush_cache", flush_cache)
        async with TestServer(app) as server, aiohttp.ClientSession() as session:
            sglang_server = backend("sglang", str(server.make_url("")).rstrip("/"), session)
            await sglang_server.flush()
            with pytest.raises(BackendError, match=r"/flush_cache: 400 Timed out waiting"):
                await sglang_server.flush()

    asyncio.run(main())
    assert waits_s == [2, 2]
