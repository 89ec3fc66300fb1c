"""Each way in which a server can fail is one clear error."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TypeVar

import numpy as np
import pytest
from aiohttp import web
from support.fake_sglang import FIRST_TOKEN_S, STEP_S, FakeSglang
from support.fast_forward import run_fast_forward

from calibrate.client import Answer, SglangClient
from calibrate.errors import NotSglangError, RefusedError, ServerGoneError
from calibrate.server_facts import read_facts
from simcore.errors import UserError

T = TypeVar("T")


@asynccontextmanager
async def serving(reply: Callable[[web.Request], Awaitable[web.Response]], path: str) -> AsyncIterator[str]:
    """A server that has this endpoint alone."""
    app = web.Application()
    app.add_routes([web.get(path, reply)])
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


def talk(fake: FakeSglang, scene: Callable[[SglangClient], Awaitable[T]], key: str | None = None) -> T:
    async def run() -> T:
        async with fake.serving() as url, SglangClient(url, key) as client:
            return await scene(client)

    return run_fast_forward(run())


async def short_answer(client: SglangClient) -> Answer:
    return await client.generate([11, 12, 13], 5)


def test_an_answer_has_a_time_for_each_token() -> None:
    answer = talk(FakeSglang(), short_answer)
    assert answer.tokens == (1, 2, 3, 4, 5)
    assert answer.ttft_s == pytest.approx(FIRST_TOKEN_S)
    assert np.diff(answer.token_at) == pytest.approx(STEP_S)


def test_facts_come_from_the_server() -> None:
    facts = talk(FakeSglang(), read_facts)
    assert (facts.model, facts.engine_version, facts.kv_tokens_capacity) == ("fake", "0.5.23", 4096)
    assert (facts.context_length, facts.max_prompt_tokens) == (1024, 1017)
    settings = facts.settings
    assert (settings.max_running_requests, settings.chunked_prefill_size, settings.cuda_graph_max_batch) == (2, 64, 0)
    assert not settings.overlap


def test_a_key_is_asked_for_and_sent() -> None:
    with pytest.raises(RefusedError, match=r"401: it wants an API key; name its variable with --api-key-env"):
        talk(FakeSglang(key="k"), read_facts)
    assert talk(FakeSglang(key="k"), read_facts, key="k").model == "fake"


@pytest.mark.parametrize(
    ("fault", "error", "said"),
    [
        ("503", RefusedError, "answers 503, it cannot take requests now: The request queue is full"),
        ("abort", RefusedError, "aborted a request: no room"),
        ("die", ServerGoneError, "generate: the (connection broke|stream broke off)"),
    ],
)
def test_a_failing_generate_says_how(fault: str, error: type[UserError], said: str) -> None:
    with pytest.raises(error, match=said):
        talk(FakeSglang(fault=fault, fault_at=1), short_answer)


def test_a_dead_server_cannot_be_reached() -> None:
    async def run() -> None:
        async with SglangClient("http://127.0.0.1:9") as client:
            assert not await client.is_ready()
            await client.load()

    with pytest.raises(ServerGoneError, match="cannot be reached"):
        asyncio.run(run())


@pytest.mark.parametrize(("pause_s", "connections"), [(1.0, 1), (4.0, 2)])
def test_a_connection_that_a_server_may_be_about_to_close_is_not_used(
    pause_s: float, connections: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SGLang closes one that was idle for 5 s; what is sent at that moment is lost."""
    # aiohttp asks the machine's clock how long a connection was idle, not the event loop's, which runs ahead here.
    monkeypatch.setattr("aiohttp.connector.monotonic", lambda: asyncio.get_running_loop().time())
    ports: set[int] = set()

    async def reply(request: web.Request) -> web.Response:
        assert request.transport is not None
        ports.add(request.transport.get_extra_info("peername")[1])
        return web.json_response({})

    async def run() -> None:
        async with serving(reply, "/nothing") as url, SglangClient(url) as client:
            for _ in range(2):
                await client.get("/nothing")
                await asyncio.sleep(pause_s)

    run_fast_forward(run())
    assert len(ports) == connections


@pytest.mark.parametrize(
    ("answer", "said"),
    [(web.json_response({"version": "1"}), "this is another engine"), (web.Response(text="<html>"), "not answer JSON")],
)
def test_another_engine_is_told_from_sglang(answer: web.Response, said: str) -> None:
    async def reply(request: web.Request) -> web.Response:
        return answer

    async def run() -> None:
        async with serving(reply, "/server_info") as url, SglangClient(url) as client:
            await read_facts(client)

    with pytest.raises(NotSglangError, match=said):
        asyncio.run(run())


def test_a_server_without_the_endpoint_is_another_engine() -> None:
    with pytest.raises(NotSglangError, match="answers 404: this is not an SGLang server"):
        talk(FakeSglang(), lambda client: client.get("/nothing"))
