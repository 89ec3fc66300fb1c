"""Faults and run-time control, once against real SGLang servers: what tests/live does with emulated ones.

usage: faults.py URL PID URL PID   (each PID leads its server's process group; the first server is killed at the end)

Prints JSON: for each case whether it went as it should, and what was seen.
"""

import asyncio
import itertools
import json
import os
import signal
import sys
import tempfile
from collections import Counter
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import aiohttp

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from support.upstreams import Chaos, ask, generate_body, until  # noqa: E402

from live.routing.event_log import replay  # noqa: E402
from live.service.app import Service, running_service  # noqa: E402
from live.service.config import ServiceConfig  # noqa: E402
from live.service.serving import listen  # noqa: E402

ADMIN = {"Authorization": "Bearer admin"}


def complete(text: str) -> bool:
    return text.endswith("data: [DONE]\n\n") and '"error"' not in text


def broken(text: str) -> bool:
    return "[DONE]" not in text and '"error"' in text.rstrip().rsplit("\n\n", 1)[-1]


class Bench:
    """Two servers, the first behind a proxy, and the router."""

    def __init__(self, urls: list[str], pids: list[int]) -> None:
        self.urls = urls
        self.pids = pids
        self.found: dict[str, dict[str, Any]] = {}
        self.asked = 0

    async def run(self, log: Path) -> None:
        os.environ["FAULTS_ADMIN"] = "admin"
        async with AsyncExitStack() as stack:
            self.session = await stack.enter_async_context(aiohttp.ClientSession())
            self.chaos = Chaos(self.urls[0])
            between = await stack.enter_async_context(self.chaos.running())
            settings = {
                "servers": ({"url": between}, {"url": self.urls[1]}),
                "port": 0,
                "policy": "round_robin",
                "admin_key_env": "FAULTS_ADMIN",
                "first_byte_timeout_s": 5.0,
                "idle_timeout_s": 5.0,
                "breaker_failures": 50,
                "health_interval_s": 0.5,
            }
            config = ServiceConfig.model_validate(settings)
            stream = stack.enter_context(log.open("w"))
            self.service: Service = await stack.enter_async_context(running_service(config, stream))
            self.url = f"http://127.0.0.1:{await listen(self.service, config, stack)}"
            for case in (
                self.before_the_first_byte,
                self.slow_first_byte,
                self.mid_stream,
                self.hang,
                self.slow_client,
                self.client_gone,
                self.switch_policy,
                self.cap,
                self.down_and_back,
                self.drain_one,
                self.kill,
            ):
                try:
                    async with asyncio.timeout(90):
                        await case()
                except (AssertionError, TimeoutError, aiohttp.ClientError) as error:
                    self.note(case.__name__, ok=False, seen=f"{type(error).__name__}: {error}")
                self.chaos.mode = "pass"
            await until(lambda: self.service.fleet.driver.requests == 0)
            outcomes = dict(self.service.metrics.outcomes)
            self.note("counts add up", ok=sum(outcomes.values()) == self.asked, seen={"asked": self.asked, **outcomes})

    def note(self, case: str, *, ok: bool, seen: Any) -> None:
        self.found[case.replace("_", " ")] = {"ok": ok, "seen": seen}
        print(case, ok, seen, file=sys.stderr, flush=True)

    async def ask(self, tokens: int = 8) -> tuple[int, str]:
        self.asked += 1
        return await ask(self.session, self.url, tokens)

    async def patch(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        async with self.session.patch(self.url + path, json=body, headers=ADMIN) as response:
            assert response.status == 200
            answer: dict[str, Any] = await response.json()
            return answer

    async def running(self, server: int) -> int:
        async with self.session.get(f"{self.urls[server]}/v1/loads") as response:
            return int((await response.json())["loads"][0]["num_running_reqs"])

    async def before_the_first_byte(self) -> None:
        for mode in ("reset", "refuse", "garbage"):
            self.chaos.mode = mode
            answers = await asyncio.gather(*(self.ask() for _ in range(6)))
            good = sum(complete(text) for _, text in answers)
            self.note(f"{mode} before the first byte", ok=good == 6, seen=f"{good} of 6 served by the other server")

    async def slow_first_byte(self) -> None:
        self.chaos.mode = "slow"
        answers = [await self.ask() for _ in range(2)]
        good = sum(complete(text) for _, text in answers)
        self.note("slow first byte", ok=good == 2, seen=f"{good} of 2 complete")

    async def mid_stream(self) -> None:
        for mode in ("reset_late", "garbage_late"):
            self.chaos.mode = mode
            answers = [await self.ask(40) for _ in range(2)]
            kinds = Counter("broken" if broken(text) else "complete" for _, text in answers)
            self.note(mode.replace("_late", " in mid-stream"), ok=kinds == {"broken": 1, "complete": 1}, seen=kinds)

    async def hang(self) -> None:
        tasks = [asyncio.create_task(self.ask(100)) for _ in range(2)]
        await asyncio.sleep(1.5)
        os.killpg(self.pids[0], signal.SIGSTOP)
        late = [asyncio.create_task(self.ask()) for _ in range(2)]
        texts = [text for _, text in await asyncio.gather(*tasks, *late)]
        os.killpg(self.pids[0], signal.SIGCONT)
        kinds = Counter("broken" if broken(text) else "complete" for text in texts)
        await until(lambda: self.service.fleet.members["s0"].ready, 30)
        self.note("hang (SIGSTOP)", ok=kinds == {"broken": 1, "complete": 3}, seen=kinds)

    async def slow_client(self) -> None:
        self.asked += 1
        async with self.session.post(f"{self.url}/generate", json=generate_body(40)) as response:
            text = b""
            async for line in response.content:
                text += line
                await asyncio.sleep(0.02)
        self.note("slow client", ok=complete(text.decode()), seen=f"{len(text)} bytes")

    async def client_gone(self) -> None:
        self.asked += 1
        async with self.session.post(f"{self.url}/generate", json=generate_body(1000)) as response:
            before = [0, 0]
            while sum(before) == 0:
                await response.content.readline()
                before = [await self.running(server) for server in (0, 1)]
        loop = asyncio.get_running_loop()
        left_at = loop.time()
        while any([await self.running(server) for server in (0, 1)]):
            await asyncio.sleep(0.05)
            assert loop.time() - left_at < 20, "the request runs on"
        seen = f"free after {loop.time() - left_at:.2f} s"
        self.note("client gone", ok=sum(before) == 1, seen=seen)

    async def switch_policy(self) -> None:
        tasks = []
        for policy in ("parameter_aware", "shortest_job_first", "power_of_two", "round_robin"):
            tasks += [asyncio.create_task(self.ask(20)) for _ in range(6)]
            await asyncio.sleep(0.3)
            await self.patch("/admin/policy", {"name": policy})
        good = sum(complete(text) for _, text in await asyncio.gather(*tasks))
        self.note("policy switch under load", ok=good == 24, seen=f"{good} of 24 complete")

    async def cap(self) -> None:
        await self.patch("/admin/servers/s0", {"draining": True})
        pushed = [(await self.patch("/admin/servers/s1", {"max_running_requests": 16}))["pushed"]]
        tasks = [asyncio.create_task(self.ask(30 + 5 * number)) for number in range(36)]
        await asyncio.sleep(1.0)
        at_16 = await self.running(1)
        pushed.append((await self.patch("/admin/servers/s1", {"max_running_requests": 4}))["pushed"])
        series = [await self.running(1)]
        while series[-1] > 4:
            await asyncio.sleep(0.1)
            series.append(await self.running(1))
        monotone = all(after <= before for before, after in itertools.pairwise(series))
        pushed.append((await self.patch("/admin/servers/s1", {"max_running_requests": 12}))["pushed"])
        most = 0
        while not all(task.done() for task in tasks):
            most = max(most, await self.running(1))
            await asyncio.sleep(0.1)
        texts = [text for _, text in await asyncio.gather(*tasks)]
        retracted = sum('"num_retractions":0' not in text.replace(" ", "") for text in texts)
        good = sum(map(complete, texts))
        await self.patch("/admin/servers/s1", {"max_running_requests": None})
        await self.patch("/admin/servers/s0", {"draining": False})
        seen = {"at 16": at_16, "to 4": series, "at 12, most": most, "complete": good, "retracted": retracted}
        ok = all(pushed) and monotone and 4 < most <= 12 and good == 36 and retracted == 0
        self.note("cap 16, 4, 12 under load", ok=ok, seen=seen)

    async def down_and_back(self) -> None:
        for pid in self.pids:
            os.killpg(pid, signal.SIGSTOP)
        members = self.service.fleet.members.values()
        await until(lambda: not any(member.ready for member in members), 30)
        status, _ = await self.ask()
        for pid in self.pids:
            os.killpg(pid, signal.SIGCONT)
        await until(lambda: all(member.ready for member in members), 60)
        after, text = await self.ask()
        self.note(
            "all servers down and back", ok=(status, after, complete(text)) == (503, 200, True), seen=[status, after]
        )

    async def drain_one(self) -> None:
        task = asyncio.create_task(self.ask(40))
        await asyncio.sleep(0.5)
        for server in ("s0", "s1"):
            await self.patch(f"/admin/servers/{server}", {"draining": True})
        status, _ = await self.ask()
        _, text = await task
        for server in ("s0", "s1"):
            await self.patch(f"/admin/servers/{server}", {"draining": False})
        self.note(
            "drain", ok=status == 503 and complete(text), seen=f"{status} while draining, the running one complete"
        )

    async def kill(self) -> None:
        tasks = [asyncio.create_task(self.ask(60)) for _ in range(8)]
        await asyncio.sleep(1.5)
        os.killpg(self.pids[0], signal.SIGKILL)
        kinds = Counter("broken" if broken(text) else "complete" for _, text in await asyncio.gather(*tasks))
        after = [complete(text) for _, text in [await self.ask() for _ in range(4)]]
        seen = {**kinds, "then complete": sum(after)}
        self.note("kill -9 in mid-stream", ok=kinds == {"broken": 4, "complete": 4} and all(after), seen=seen)


async def main() -> None:
    urls, pids = sys.argv[1::2], [int(pid) for pid in sys.argv[2::2]]
    bench = Bench(urls, pids)
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "events.jsonl"
        await bench.run(log)
        proof = replay(log)
    bench.note("replay of the event log", ok=not proof.differences, seen=f"{proof.decisions} decisions identical")
    print(json.dumps(bench.found, indent=1))


asyncio.run(main())
