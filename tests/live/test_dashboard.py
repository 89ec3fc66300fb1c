"""The dashboard in a real browser, and the dashboard for Grafana."""

import asyncio
import json
import re
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from support.upstreams import ROOT, ask, emulated, served, until

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@asynccontextmanager
async def browser(url: str, profile: Path) -> AsyncIterator[Callable[[str], Awaitable[Any]]]:
    """Opens the page; gives what evaluates JavaScript in it, by the DevTools protocol."""
    assert CHROMIUM is not None
    options = ["--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={profile}"]
    remote = ["--remote-debugging-port=0", "--remote-allow-origins=*"]
    process = await asyncio.create_subprocess_exec(
        CHROMIUM, *options, *remote, url, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL
    )
    try:
        port = profile / "DevToolsActivePort"
        await until(lambda: port.is_file() and port.read_text().count("\n") > 0, within_s=30)
        address = f"http://127.0.0.1:{port.read_text().split()[0]}/json/list"
        async with aiohttp.ClientSession() as session:
            pages: list[dict[str, str]] = []
            while not pages:
                async with session.get(address) as response:
                    found = await response.json(content_type=None)
                pages = [page for page in found if page["type"] == "page" and page["url"].startswith(url)]
            async with session.ws_connect(pages[0]["webSocketDebuggerUrl"], max_msg_size=0) as socket:
                yield lambda script: evaluated(socket, script)
    finally:
        process.terminate()
        await process.wait()


async def evaluated(socket: aiohttp.ClientWebSocketResponse, script: str) -> Any:
    await socket.send_json({"id": 1, "method": "Runtime.evaluate", "params": {"expression": script}})
    async for message in socket:
        answer = json.loads(message.data)
        if answer.get("id") == 1:
            return answer["result"]["result"].get("value")
    raise AssertionError("the browser is gone")


async def shown(evaluate: Callable[[str], Awaitable[Any]], wanted: str) -> str:
    """The page's text, once it has what is wanted."""
    async with asyncio.timeout(20):
        while wanted not in (text := str(await evaluate("document.body.innerText"))):
            await asyncio.sleep(0.1)
    return text


@pytest.mark.skipif(CHROMIUM is None, reason="needs a Chromium")
def test_a_browser_shows_servers_requests_and_decisions(tmp_path: Path) -> None:
    async def main() -> None:
        async with (
            emulated(2) as urls,
            served(urls, policy="parameter_aware") as (url, _),
            aiohttp.ClientSession() as session,
        ):
            await asyncio.gather(*(ask(session, url) for _ in range(5)))
            async with browser(f"{url}/dashboard", tmp_path) as evaluate:
                text = await shown(evaluate, "0 queued at the router; 5 finished")
                assert text.count("(emulator)") == 2
                assert await evaluate("document.querySelectorAll('#decisions tbody tr').length") == 5
                # It goes on: what happens later is shown without a reload.
                await ask(session, url)
                await shown(evaluate, "6 finished")

    asyncio.run(main())


@pytest.mark.skipif(CHROMIUM is None, reason="needs a Chromium")
def test_a_browser_is_asked_for_the_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEST_ADMIN", "admin-key")

    async def main() -> None:
        async with (
            emulated() as urls,
            served(urls, admin_key_env="TEST_ADMIN") as (url, _),
            browser(f"{url}/dashboard", tmp_path) as evaluate,
        ):
            await shown(evaluate, "the key is missing or wrong")
            await evaluate("document.getElementById('key').value = 'admin-key'")
            await evaluate("document.getElementById('gate').requestSubmit()")
            await shown(evaluate, "no requests yet")
            assert "the key is missing or wrong" not in await evaluate("document.body.innerText")

    asyncio.run(main())


def test_grafanas_dashboard_asks_for_metrics_that_there_are() -> None:
    async def main() -> str:
        async with (
            emulated(2) as urls,
            served(urls) as (url, _),
            aiohttp.ClientSession() as session,
        ):
            await ask(session, url)
            await ask(session, url, model="none")
            async with session.get(f"{url}/metrics") as response:
                return await response.text()

    metrics = asyncio.run(main())
    dashboard = json.loads((ROOT / "live/service/grafana.json").read_text())
    asked = {
        name
        for panel in dashboard["panels"]
        for target in panel["targets"]
        for name in re.findall(r"simroute_\w+", target["expr"])
    }
    assert len(asked) > 10
    assert {name for name in asked if f"\n{name}" not in metrics} == set()
