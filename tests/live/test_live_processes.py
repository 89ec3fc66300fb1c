"""The commands as processes: what signals do."""

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest
from support.upstreams import ROOT, ask, emulated, generate_body, until

from simcore.run_folder import load_run


@asynccontextmanager
async def command(*words: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """``simroute WORDS`` as a process."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "simroute",
        *words,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def address(process: asyncio.subprocess.Process) -> str:
    """Where ``simroute serve`` says that it serves."""
    assert process.stderr is not None
    line = (await process.stderr.readline()).decode()
    assert "simroute serves on" in line, line
    return line.split()[3]


def test_sigterm_lets_what_is_under_way_end_and_turns_the_rest_away(tmp_path: Path) -> None:
    async def main() -> None:
        async with asyncio.timeout(60), emulated(speed=1.0) as (url,), aiohttp.ClientSession() as session:
            config, log = tmp_path / "servers.yaml", tmp_path / "events.jsonl"
            config.write_text(f"port: 0\nservers:\n  - url: {url}\n")
            async with command("serve", "--config", str(config), "--event-log", str(log)) as process:
                router = await address(process)
                async with session.post(f"{router}/generate", json=generate_body(150)) as response:
                    first = await response.content.readline()
                    process.send_signal(signal.SIGTERM)
                    await asyncio.sleep(0.2)
                    status, _ = await ask(session, router)
                    assert status == 503
                    rest = await response.text()
                assert first.startswith(b"data: ")
                assert rest.endswith("data: [DONE]\n\n")
                assert await process.wait() == 0
            assert '"e":"finish"' in log.read_text()

    asyncio.run(main())


def test_a_second_signal_ends_at_once_and_says_what_was_cut(tmp_path: Path) -> None:
    async def main() -> None:
        async with asyncio.timeout(60), emulated(speed=1.0) as (url,), aiohttp.ClientSession() as session:
            config = tmp_path / "servers.yaml"
            config.write_text(f"port: 0\nservers:\n  - url: {url}\n")
            async with command("serve", "--config", str(config)) as process:
                router = await address(process)
                async with session.post(f"{router}/generate", json=generate_body(4000)) as response:
                    await response.content.readline()
                    process.send_signal(signal.SIGTERM)
                    await asyncio.sleep(0.3)
                    process.send_signal(signal.SIGINT)
                    assert await process.wait() == 1
                assert process.stderr is not None
                assert b"1 requests were cut" in await process.stderr.read()

    asyncio.run(main())


_BROKEN = """
from policies import Policy, Route

class Broken(Policy):
    name = "broken"

    def choose(self, request, cluster):
        return Route(cluster.servers[0].server_id)

    def on_finish(self, request, server, now):
        raise ValueError("a mistake of its author's")
"""


def test_a_policy_that_raises_ends_the_service_and_what_waits_with_it(tmp_path: Path) -> None:
    async def main() -> None:
        async with asyncio.timeout(60), emulated() as (url,), aiohttp.ClientSession() as session:
            (tmp_path / "broken.py").write_text(_BROKEN)
            config = tmp_path / "servers.yaml"
            server = f"  - url: {url}\n    max_running_requests: 1\n"
            config.write_text(f"port: 0\npolicy: {tmp_path / 'broken.py'}:Broken\nservers:\n{server}")
            async with command("serve", "--config", str(config)) as process:
                router = await address(process)
                asked = [ask(session, router, tokens) for tokens in (20, 4000, 4000)]
                answers = await asyncio.gather(*asked, return_exceptions=True)
                # Without the service's end the last would wait as long as nothing else happens.
                assert [isinstance(answer, aiohttp.ClientError) for answer in answers] == [False, True, True]
                _, said = await process.communicate()
                assert process.returncode == 1
                assert b"simroute: routing failed with 2 requests under way" in said
                assert b"ValueError: a mistake of its author's" in said

    asyncio.run(main())


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_keeps_what_a_live_run_has_and_stops_its_emulators(tmp_path: Path, number: int) -> None:
    async def main() -> tuple[int, dict[str, object]]:
        words = ["--scenario", "quickstart", "--emulate", "2", "--policy", "random", "--json", "--out", str(tmp_path)]
        overrides = ["--set", "workload.arrivals.rate_rps=10", "--set", "warmup_s=0"]
        async with asyncio.timeout(90), command("live", *words, *overrides) as process:
            log = Path("/proc") / str(process.pid) / "task" / str(process.pid) / "children"
            await until(lambda: len(log.read_text().split()) == 1, within_s=30)
            emulator = int(log.read_text())
            # Once its start is over, a run takes the signal as the wish to end.
            await asyncio.sleep(4)
            process.send_signal(number)
            out, said = await process.communicate()
            assert not Path(f"/proc/{emulator}").exists()
            assert b"child process" not in said
            return process.returncode or 0, json.loads(out)

    code, document = asyncio.run(main())
    assert code == 130
    assert document["interrupted"] is True
    stored = load_run(Path(str(document["folder"])))
    assert stored.result.interrupted
    counts = stored.result.requests["status"].value_counts()
    assert counts["unfinished"] > 0
    assert counts.sum() == len(stored.result.requests)


def test_a_taken_port_is_said(tmp_path: Path) -> None:
    async def main() -> tuple[int | None, bytes]:
        async with emulated() as (url,):
            port = url.rpartition(":")[2]
            async with command("emulate", "--profile", "llama-3.1-8b-h100", "--port", port) as process:
                _, err = await process.communicate()
                return process.returncode, err

    code, err = asyncio.run(main())
    assert code == 2
    assert b"cannot listen on 127.0.0.1" in err
