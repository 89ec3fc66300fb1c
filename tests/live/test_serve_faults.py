"""What goes wrong between clients and servers: nothing is lost silently, and every request has one end."""

import asyncio
import json
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any

import aiohttp
import pytest
from support.upstreams import Chaos, ask, emulated, emulator_process, generate_body, served, until

from live.service.app import Service


@dataclass
class Setting:
    """Two emulators behind proxies, behind a router."""

    url: str
    service: Service
    chaos: list[Chaos]
    emulators: list[str]
    session: aiohttp.ClientSession

    def outcomes(self) -> dict[str, int]:
        return self.service.metrics.outcomes

    async def aborted(self) -> int:
        """Requests that the emulators were told to stop, or whose connection was closed."""
        total = 0
        for url in self.emulators:
            async with self.session.get(f"{url}/metrics") as response:
                text = await response.text()
            total += int(float(text.split("sglang:num_aborted_requests_total")[1].split("\n")[0].split(" ")[-1]))
        return total


@asynccontextmanager
async def setting(count: int = 2, speed: float = 10.0, **config: Any) -> AsyncIterator[Setting]:
    async with AsyncExitStack() as stack:
        emulators = await stack.enter_async_context(emulated(count, speed=speed))
        chaos = [Chaos(url) for url in emulators]
        urls = [await stack.enter_async_context(one.running()) for one in chaos]
        session = await stack.enter_async_context(aiohttp.ClientSession())
        url, service = await stack.enter_async_context(served(urls, **({"policy": "round_robin"} | config)))
        yield Setting(url, service, chaos, emulators, session)


def run(test: Callable[[Setting], Awaitable[None]], **options: Any) -> None:
    """Run ``test``, then see that nothing is left in flight and that every request has ended once."""

    async def main() -> None:
        async with asyncio.timeout(40), setting(**options) as given:
            await test(given)
            driver = given.service.fleet.driver
            await until(lambda: driver.requests == 0)
            assert driver.queued_requests == 0
            assert all(server.in_flight_requests == 0 for server in driver.servers.values())

    asyncio.run(main())


def run_capped(test: Callable[[Setting], Awaitable[None]], **config: Any) -> None:
    """As ``run``, with one server that takes one request at a time."""

    async def capped(given: Setting) -> None:
        given.service.fleet.set_cap("s0", 1)
        await test(given)

    run(capped, count=1, **({"speed": 1.0} | config))


def complete(text: str) -> bool:
    return text.endswith("data: [DONE]\n\n") and '"error"' not in text


def broken(text: str) -> bool:
    """The stream ends with an explicit error, and not with the mark of a complete one."""
    last = text.rstrip().rsplit("\n\n", 1)[-1]
    return "[DONE]" not in text and "error" in json.loads(last.removeprefix("data: "))


@pytest.mark.parametrize("mode", ["reset", "refuse", "garbage"])
def test_a_failure_before_the_first_byte_is_tried_on_another_server(mode: str) -> None:
    async def test(given: Setting) -> None:
        given.chaos[0].mode = mode
        answers = await asyncio.gather(*(ask(given.session, given.url) for _ in range(6)))
        assert all(status == 200 and complete(text) for status, text in answers)
        assert given.outcomes() == {"finished": 6}
        assert given.chaos[0].seen >= 3

    run(test)


@pytest.mark.parametrize("mode", ["reset_late", "garbage_late"])
def test_a_server_lost_in_mid_stream_ends_it_with_an_error_event(mode: str) -> None:
    async def test(given: Setting) -> None:
        given.chaos[0].mode = mode
        status, text = await ask(given.session, given.url, 200)
        assert status == 200
        assert broken(text)
        assert given.outcomes() == {"failed": 1}
        assert given.chaos[0].seen == 1

    run(test, count=1, speed=1.0)


def test_silence_before_the_first_byte_is_tried_elsewhere() -> None:
    async def test(given: Setting) -> None:
        given.chaos[0].mode = "hang"
        status, text = await ask(given.session, given.url)
        assert status == 200
        assert complete(text)
        assert given.chaos[0].seen == given.chaos[1].seen == 1

    run(test, first_byte_timeout_s=1.0)


def test_silence_in_mid_stream_ends_it_with_an_error_event() -> None:
    async def test(given: Setting) -> None:
        given.chaos[0].mode = "hang_late"
        _, text = await ask(given.session, given.url, 2000)
        assert broken(text)
        assert "no byte for" in text
        # The server is told to stop what nobody reads.
        async with asyncio.timeout(10):
            while await given.aborted() == 0:
                await asyncio.sleep(0.02)

    run(test, count=1, idle_timeout_s=1.0, speed=1.0)


def test_a_slow_first_byte_is_waited_for() -> None:
    async def test(given: Setting) -> None:
        given.chaos[0].mode = "slow"
        status, text = await ask(given.session, given.url)
        assert status == 200
        assert complete(text)
        assert given.chaos[0].seen == 1

    run(test, count=1)


def test_all_attempts_failing_is_told_with_the_cause() -> None:
    async def test(given: Setting) -> None:
        for chaos, mode in zip(given.chaos, ("reset", "refuse"), strict=True):
            chaos.mode = mode
        status, text = await ask(given.session, given.url)
        assert status in (502, 503)
        assert "s0" in text or "s1" in text
        assert given.outcomes() == {"failed": 1}
        assert sum(chaos.seen for chaos in given.chaos) == 3

    run(test)


def test_a_burst_of_503_opens_the_breaker_which_closes_again() -> None:
    async def test(given: Setting) -> None:
        given.chaos[0].mode = "refuse"
        for _ in range(8):
            status, _ = await ask(given.session, given.url)
            assert status == 200
        breaker = given.service.fleet.members["s0"].breaker
        assert breaker.state == "open"
        seen = given.chaos[0].seen
        assert seen == 3
        given.chaos[0].mode = "pass"
        await until(lambda: breaker.state == "half_open")
        while breaker.state != "closed":
            status, _ = await ask(given.session, given.url)
            assert status == 200
        assert given.chaos[0].seen > seen

    run(test, breaker_failures=3, breaker_open_s=0.3, breaker_successes=2)


def test_a_client_that_leaves_stops_its_request_at_the_server() -> None:
    async def test(given: Setting) -> None:
        async with given.session.post(f"{given.url}/generate", json=generate_body(4000)) as response:
            await response.content.readline()
        await until(lambda: given.outcomes() == {"cancelled": 1})
        async with asyncio.timeout(10):
            while await given.aborted() == 0:
                await asyncio.sleep(0.02)
        assert await given.aborted() == 1

    run(test, count=1, speed=1.0)


def test_a_client_that_leaves_the_queue_is_forgotten() -> None:
    async def test(given: Setting) -> None:
        servers = given.service.fleet.driver.servers
        first = asyncio.create_task(ask(given.session, given.url, 4000))
        await until(lambda: servers["s0"].in_flight_requests == 1)
        second = asyncio.create_task(ask(given.session, given.url))
        await until(lambda: given.service.fleet.driver.queued_requests == 1)
        second.cancel()
        await until(lambda: given.service.fleet.driver.queued_requests == 0)
        first.cancel()
        await until(lambda: given.outcomes() == {"cancelled": 2})
        assert given.chaos[0].seen == 1

    run_capped(test)


def test_a_full_queue_is_429_and_a_long_wait_504() -> None:
    async def test(given: Setting) -> None:
        driver = given.service.fleet.driver
        first = asyncio.create_task(ask(given.session, given.url, 4000))
        await until(lambda: driver.servers["s0"].in_flight_requests == 1)
        second = asyncio.create_task(ask(given.session, given.url))
        await until(lambda: driver.queued_requests == 1)
        async with given.session.post(f"{given.url}/generate", json=generate_body()) as response:
            assert response.status == 429
            assert response.headers["Retry-After"] == "1"
        status, text = await second
        assert status == 504
        assert "no server had room in time" in text
        first.cancel()
        await until(lambda: given.outcomes() == {"rejected": 2, "cancelled": 1})

    run_capped(test, queue_limit=1, queue_timeout_s=1.0)


def test_a_slow_client_slows_its_server_down_and_gets_everything() -> None:
    async def test(given: Setting) -> None:
        given.chaos[0].mode = "flood"
        async with given.session.post(f"{given.url}/generate", json=generate_body()) as response:
            await asyncio.sleep(0.5)
            held = given.chaos[0].flooded
            await asyncio.sleep(0.2)
            # What fits into the buffers on the way, and no more.
            assert given.chaos[0].flooded == held < 32 << 20
            total = 0
            async for piece in response.content.iter_any():
                total += len(piece)
        assert total == given.chaos[0].flooded == 1024 * (6 + 65528 + 2)
        assert given.outcomes() == {"finished": 1}

    run(test, count=1)


def test_all_servers_down_is_503_and_back_is_200() -> None:
    async def main() -> None:
        async with (
            asyncio.timeout(40),
            emulator_process("--speed", "10") as (process, url),
            served([url]) as (router, service),
            aiohttp.ClientSession() as session,
        ):
            assert (await ask(session, router))[0] == 200
            process.send_signal(signal.SIGSTOP)
            member = service.fleet.members["s0"]
            await until(lambda: not member.ready)
            status, text = await ask(session, router)
            assert status == 503
            assert "no server" in text
            async with session.get(f"{router}/ready") as response:
                assert response.status == 503
            process.send_signal(signal.SIGCONT)
            await until(lambda: member.ready)
            assert (await ask(session, router))[0] == 200
            assert service.metrics.outcomes == {"finished": 2, "rejected": 1}

    asyncio.run(main())


def test_a_killed_server_breaks_its_streams_and_no_others() -> None:
    async def main() -> None:
        async with (
            asyncio.timeout(40),
            emulator_process() as (process, killed),
            emulated(speed=1.0) as (other,),
            served([killed, other], policy="round_robin") as (router, service),
            aiohttp.ClientSession() as session,
        ):
            asked = [asyncio.create_task(ask(session, router, 150)) for _ in range(10)]
            servers = service.fleet.driver.servers
            await until(lambda: servers["s0"].in_flight_requests == 5)
            await asyncio.sleep(0.3)
            process.kill()
            texts = [text for _, text in await asyncio.gather(*asked)]
            assert sum(map(broken, texts)) == 5
            assert sum(map(complete, texts)) == 5
            assert service.metrics.outcomes == {"failed": 5, "finished": 5}
            # Whatever comes now goes to the one that lives.
            answers = await asyncio.gather(*(ask(session, router) for _ in range(6)))
            assert all(status == 200 and complete(text) for status, text in answers)

    asyncio.run(main())


def test_draining_serves_what_is_under_way_and_turns_the_rest_away() -> None:
    async def test(given: Setting) -> None:
        first = asyncio.create_task(ask(given.session, given.url, 100))
        driver = given.service.fleet.driver
        await until(lambda: driver.requests == 1)
        drained = asyncio.create_task(given.service.drain(20))
        await until(lambda: given.service.proxy.draining)
        status, text = await ask(given.session, given.url)
        assert status == 503
        assert "shutting down" in text
        assert await drained == 0
        assert complete((await first)[1])
        assert given.outcomes() == {"rejected": 1, "finished": 1}

    run(test, count=1, speed=1.0)
