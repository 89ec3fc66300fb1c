"""The router service, when nothing goes wrong."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import IO, Any

import aiohttp
import pytest
from support.upstreams import MODEL, Chaos, ask, emulated, generate_body, profile, served, until

from live.routing.event_log import replay
from live.service.app import Service, running_service
from live.service.config import ServiceConfig, load_config
from live.service.serving import listen
from policies import PolicyError
from simcore.errors import UserError

ADMIN = {"Authorization": "Bearer admin-key"}


def run(
    test: Callable[[str, Service, aiohttp.ClientSession], Awaitable[None]],
    count: int = 2,
    speed: float = 10.0,
    **config: Any,
) -> None:
    async def main() -> None:
        async with (
            asyncio.timeout(40),
            emulated(count, speed=speed) as urls,
            served(urls, **config) as (url, service),
            aiohttp.ClientSession() as session,
        ):
            await test(url, service, session)

    asyncio.run(main())


def run_admin(
    test: Callable[[str, Service, aiohttp.ClientSession], Awaitable[None]],
    monkeypatch: pytest.MonkeyPatch,
    **config: Any,
) -> None:
    monkeypatch.setenv("TEST_ADMIN", "admin-key")
    run(test, admin_key_env="TEST_ADMIN", **config)


def test_bytes_go_through_as_the_server_sent_them() -> None:
    async def main() -> None:
        async with emulated() as (url,), aiohttp.ClientSession() as session:
            chaos = Chaos(url)
            async with chaos.running() as between, served([between]) as (router, _):
                body = json.dumps({**generate_body(5), "unknown_field": {"a": [1, 2.50, "\u00fc"]}}).encode()
                async with session.post(f"{router}/generate?x=1%202", data=body) as response:
                    text = await response.read()
                    assert response.headers["X-Simroute-Server"] == "s0"
                assert text.endswith(b"data: [DONE]\n\n")
                sent = chaos.bodies[0]
                # Our rid is put in front; the rest is the client's, byte for byte.
                assert sent.startswith(b'{"rid":"')
                assert sent[len(b'{"rid":"') + 32 :] == b'",' + body[1:]
                assert b"/generate?x=1%202 " in chaos.heads[0]

    asyncio.run(main())


def test_a_clients_own_rid_gives_way_to_one_of_fixed_length() -> None:
    async def main() -> None:
        async with emulated() as (url,), aiohttp.ClientSession() as session:
            chaos = Chaos(url)
            async with chaos.running() as between, served([between]) as (router, _):
                await ask(session, router, rid="a", other=1)
                sent = json.loads(chaos.bodies[0])
                assert len(sent["rid"]) == 32
                assert sent["other"] == 1

    asyncio.run(main())


def test_headers_and_keys_stay_on_their_side(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEST_CLIENT", "one,two")
    monkeypatch.setenv("TEST_SERVER", "the-servers-own")

    async def main() -> None:
        async with emulated(api_key="the-servers-own") as (url,), aiohttp.ClientSession() as session:
            chaos = Chaos(url)
            async with chaos.running() as between:
                entry = {"url": between, "api_key_env": "TEST_SERVER"}
                async with served([], servers=[entry], api_key_env="TEST_CLIENT") as (router, _):
                    for headers, status in (
                        ({}, 401),
                        ({"Authorization": "Bearer three"}, 401),
                        ({"Authorization": "Bearer two"}, 200),
                        ({"X-API-Key": "one", "Cookie": "c=1", "Connection": "X-Hop", "X-Hop": "1", "X-Ok": "2"}, 200),
                    ):
                        async with session.post(
                            f"{router}/generate", json=generate_body(), headers=headers
                        ) as response:
                            assert response.status == status
                            assert "the-servers-own" not in await response.text()
                            assert "simroute-emulator" not in response.headers["Server"]
                    head = chaos.heads[-1].decode().lower()
                    assert "authorization: bearer the-servers-own" in head
                    assert "x-ok: 2" in head
                    for gone in ("one", "cookie", "x-hop", "accept-encoding", "x-api-key"):
                        assert gone not in head

    asyncio.run(main())


@pytest.mark.parametrize(
    ("path", "body", "status", "said"),
    [
        ("/generate", b"{", 400, "not JSON"),
        ("/generate", b"[]", 400, "not a JSON object"),
        ("/v1/completions", json.dumps({"model": "gpt-9", "prompt": "a"}).encode(), 404, "gpt-9"),
        ("/generate_stream", b'{"inputs": "a"}', 404, "not every server"),
        ("/generate", b'{"text": "' + b"x" * 3000 + b'"}', 413, "larger"),
    ],
)
def test_mistakes_are_told(path: str, body: bytes, status: int, said: str) -> None:
    async def test(url: str, service: Service, session: aiohttp.ClientSession) -> None:
        async with session.post(url + path, data=body) as response:
            assert response.status == status
            assert said in (await response.json())["error"]["message"]
        assert service.metrics.outcomes == {"rejected": 1}

    run(test, max_body_bytes=2000)


def test_whole_answers_and_the_list_of_models() -> None:
    async def test(url: str, service: Service, session: aiohttp.ClientSession) -> None:
        body = {"model": MODEL, "messages": [{"role": "user", "content": "hi"}], "max_tokens": 6}
        async with session.post(f"{url}/v1/chat/completions", json=body) as response:
            assert (await response.json())["usage"]["completion_tokens"] == 6
        async with session.get(f"{url}/v1/models") as response:
            assert [card["id"] for card in (await response.json())["data"]] == [MODEL]
        for path in ("/health", "/ready", "/model_info", "/server_info"):
            async with session.get(url + path) as response:
                assert response.status == 200

    run(test)


def test_metrics_count_requests_and_tokens() -> None:
    async def test(url: str, service: Service, session: aiohttp.ClientSession) -> None:
        await asyncio.gather(*(ask(session, url, 7) for _ in range(4)))
        await ask(session, url, 7, model="nobody")
        async with session.get(f"{url}/metrics") as response:
            text = await response.text()
        labels = f'model="{MODEL}"'
        assert f'simroute_requests_total{{{labels},outcome="finished"}} 4.0' in text
        assert 'simroute_errors_total{kind="no_model"} 1.0' in text
        for server in ("s0", "s1"):
            assert f'simroute_output_tokens_total{{{labels},server="{server}"}} 14.0' in text
            assert f'simroute_ttft_seconds_count{{{labels},server="{server}"}} 2.0' in text
            assert f'simroute_tpot_seconds_count{{{labels},server="{server}"}} 2.0' in text
            assert f'simroute_in_flight_requests{{server="{server}"}} 0.0' in text
            assert f'simroute_breaker_state{{server="{server}"}} 0.0' in text

    run(test, policy="round_robin")


def test_admin_is_closed_without_its_key(monkeypatch: pytest.MonkeyPatch) -> None:
    async def closed(url: str, service: Service, session: aiohttp.ClientSession) -> None:
        async with session.get(f"{url}/admin/servers", headers=ADMIN) as response:
            assert response.status == 401

    async def wrong(url: str, service: Service, session: aiohttp.ClientSession) -> None:
        async with session.get(f"{url}/admin/servers", headers={"Authorization": "Bearer no"}) as response:
            assert response.status == 401

    run(closed)
    run_admin(wrong, monkeypatch)


def test_a_cap_holds_at_once_and_reaches_the_server(monkeypatch: pytest.MonkeyPatch) -> None:
    async def test(url: str, service: Service, session: aiohttp.ClientSession) -> None:
        state = service.fleet.driver.servers["s0"]
        asked = [asyncio.create_task(ask(session, url, 60 + 20 * number)) for number in range(16)]
        await until(lambda: state.in_flight_requests == 16)

        async def cap(limit: int | None) -> dict[str, Any]:
            body = {"max_running_requests": limit}
            async with session.patch(f"{url}/admin/servers/s0", json=body, headers=ADMIN) as response:
                assert response.status == 200
                answer: dict[str, Any] = await response.json()
                return answer

        assert (await cap(4))["pushed"] is True
        asked += [asyncio.create_task(ask(session, url, 200)) for _ in range(12)]
        await until(lambda: state.in_flight_requests <= 4)
        assert service.fleet.driver.queued_requests > 0
        await cap(12)
        assert 4 < state.in_flight_requests <= 12
        answers = await asyncio.gather(*asked)
        assert all(status == 200 and text.endswith("[DONE]\n\n") for status, text in answers)
        assert service.metrics.outcomes == {"finished": 28}
        server = service.fleet.members["s0"].backend
        assert (await server.get_json("/v1/loads"))["loads"][0]["max_running_requests"] == 12

    run_admin(test, monkeypatch, count=1, speed=1.0)


def test_servers_join_drain_and_leave_while_requests_run(monkeypatch: pytest.MonkeyPatch) -> None:
    async def test(url: str, service: Service, session: aiohttp.ClientSession) -> None:
        async with emulated() as (third,):
            entry = {"url": third, "id": "new", "weight": 2.0}
            async with session.post(f"{url}/admin/servers", json=entry, headers=ADMIN) as response:
                assert response.status == 201
            async with session.post(f"{url}/admin/servers", json=entry, headers=ADMIN) as response:
                assert response.status == 400
            asked = [asyncio.create_task(ask(session, url, 300)) for _ in range(9)]
            servers = service.fleet.driver.servers
            assert servers["new"].weight == 2.0
            await until(lambda: servers["new"].in_flight_requests == 3)
            async with session.delete(f"{url}/admin/servers/new", headers=ADMIN) as response:
                assert response.status == 409
            asked += [asyncio.create_task(ask(session, url)) for _ in range(6)]
            answers = await asyncio.gather(*asked)
            assert all(text.endswith("[DONE]\n\n") for _, text in answers)
            async with session.delete(f"{url}/admin/servers/new", headers=ADMIN) as response:
                assert response.status == 204
            assert list(service.fleet.members) == ["s0", "s1"]
        assert (await ask(session, url))[0] == 200

    run_admin(test, monkeypatch, policy="round_robin", speed=2.0)


def test_the_policy_is_switched_under_load_and_the_log_proves_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("TEST_ADMIN", "admin-key")
    log = tmp_path / "events.jsonl"

    async def main(stream: IO[str]) -> None:
        async with AsyncExitStack() as stack:
            urls = await stack.enter_async_context(emulated(2))
            session = await stack.enter_async_context(aiohttp.ClientSession())
            servers = tuple({"url": url, "max_running_requests": 3} for url in urls)
            given = {"servers": servers, "admin_key_env": "TEST_ADMIN", "port": 0}
            config = ServiceConfig.model_validate(given)
            service = await stack.enter_async_context(running_service(config, stream))
            url = f"http://127.0.0.1:{await listen(service, config, stack)}"

            async def switch(policy: str) -> int:
                async with session.patch(f"{url}/admin/policy", json={"name": policy}, headers=ADMIN) as response:
                    return response.status

            asked = []
            for policy in ("parameter_aware", "random", "shortest_job_first", "power_of_two"):
                asked += [asyncio.create_task(ask(session, url, 40)) for _ in range(10)]
                await asyncio.sleep(0.05)
                assert await switch(policy) == 200
            assert await switch("nonsense") == 400
            answers = await asyncio.gather(*asked)
            assert all(text.endswith("[DONE]\n\n") for _, text in answers)
            assert service.metrics.outcomes == {"finished": 40}

    with log.open("w") as stream:
        asyncio.run(main(stream))
    proof = replay(log)
    assert proof.differences == ()
    assert proof.decisions == 40


def test_a_policy_that_needs_what_servers_do_not_tell_is_refused_at_the_start() -> None:
    async def main() -> None:
        async with emulated() as (url,), AsyncExitStack() as stack:
            servers = [{"url": url, "backend": "openai"}]
            await stack.enter_async_context(served([], servers=servers, policy="parameter_aware"))

    with pytest.raises(PolicyError, match=r"parameter_aware needs .*which this run does not provide"):
        asyncio.run(main())


def test_a_server_that_is_not_there_is_said() -> None:
    async def main() -> None:
        async with served(["http://127.0.0.1:1"]):
            pass

    with pytest.raises(UserError, match=r"http://127.0.0.1:1 cannot be used as a server of kind sglang"):
        asyncio.run(main())


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("servers: []\n", "servers"),
        ("servers:\n  - url: http://a\n    id: x\n  - url: http://b\n    id: x\n", "two servers have the id 'x'"),
        ("servers:\n  - url: http://a\nqueue_limt: 3\n", "servers.yaml:3: queue_limt: unknown key"),
    ],
)
def test_mistakes_in_the_file_are_told_with_their_line(tmp_path: Path, text: str, said: str) -> None:
    file = tmp_path / "servers.yaml"
    file.write_text(text)
    with pytest.raises(UserError) as caught:
        load_config(file, {})
    assert said in str(caught.value)


def test_openai_servers_and_sglang_ones_side_by_side() -> None:
    async def main() -> None:
        async with emulated(2, profile=profile()) as urls, aiohttp.ClientSession() as session:
            servers = [{"url": urls[0]}, {"url": urls[1], "backend": "openai", "remote": True}]
            async with served([], servers=servers, policy="round_robin") as (url, service):
                assert [server.remote for server in service.fleet.driver.servers.values()] == [False, True]
                for _ in range(4):
                    body = {"model": MODEL, "prompt": "hello", "max_tokens": 3, "stream": True}
                    async with session.post(f"{url}/v1/completions", json=body) as response:
                        assert (await response.text()).endswith("data: [DONE]\n\n")
                async with session.post(f"{url}/generate", json=generate_body()) as response:
                    assert response.status == 404
                assert service.metrics.outcomes == {"finished": 4, "rejected": 1}

    asyncio.run(main())
