"""What the router service keeps in memory does not grow with the requests that it has seen."""

import asyncio
import gc
import io
import sys
import tracemalloc
from contextlib import AsyncExitStack
from pathlib import Path
from typing import IO

import aiohttp
import pytest
from support.upstreams import ROOT, ask, emulated, generate_body, until

from live.routing.event_log import EventLog, RouterSetup, replay
from live.service.app import running_service
from live.service.config import ServiceConfig
from live.service.serving import listen
from policies import RequestView
from policies.router import Dispatch

_KEPT = 12_000
"""Bytes that do not count: tables grow by steps."""

_REMEMBERED = 8
"""Requests that the dashboard shows, here: fewer than are sent before the first look."""

_EACH = 40


def kept_bytes() -> int:
    """What the router's own code and the metrics it feeds hold at the moment."""
    gc.collect()
    # CPython looks up "__match_args__" by a new string in each match of a class, and its cache of lookups keeps up to
    # 4,096 of them, which are none of the router's.
    sys._clear_type_cache()
    ours = [str(ROOT / folder / "*") for folder in ("live/routing", "live/service", "live/upstream", "policies")]
    where = [tracemalloc.Filter(True, pattern) for pattern in (*ours, "*/prometheus_client/*")]
    return sum(trace.size for trace in tracemalloc.take_snapshot().filter_traces(where).traces)


async def requests_of_all_kinds(url: str, session: aiohttp.ClientSession, numbers: range) -> None:
    """Finished ones, each of a session of its own, and as many of each other end."""
    for number in numbers:
        assert (await ask(session, url, 1, routing_key=f"session-{number}"))[0] == 200
        assert (await ask(session, url, 1, model=f"made-up-{number}"))[0] == 404
        async with session.post(f"{url}/generate", data=b"{") as response:
            assert response.status == 400
        async with session.post(f"{url}/generate", json=generate_body(2000)) as response:
            await response.content.readline()


async def growth(log: IO[str]) -> int:
    """Bytes that requests of all kinds leave behind, once what is bounded is full."""
    async with asyncio.timeout(60), AsyncExitStack() as stack:
        urls = await stack.enter_async_context(emulated(2))
        session = await stack.enter_async_context(aiohttp.ClientSession())
        servers = tuple({"url": url} for url in urls)
        config = ServiceConfig.model_validate({"servers": servers, "port": 0, "report_interval_s": 0.05})
        service = await stack.enter_async_context(running_service(config, log))
        url = f"http://127.0.0.1:{await listen(service, config, stack)}"
        seen = []
        for numbers in (range(10), range(10, 10 + _EACH)):
            await requests_of_all_kinds(url, session, numbers)
            await until(lambda: service.fleet.driver.requests == 0)
            # Lines that wait for the file's buffer to be full are no growth.
            log.flush()
            seen.append(kept_bytes())
        return seen[1] - seen[0]


def test_nothing_is_kept_of_requests_that_have_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("live.service.metrics._RECENT", _REMEMBERED)
    log = tmp_path / "events.jsonl"
    tracemalloc.start()
    try:
        with log.open("w", encoding="utf-8") as stream:
            assert asyncio.run(growth(stream)) < _KEPT
    finally:
        tracemalloc.stop()
    # The event log is not in memory, so it is in the file: all of it.
    assert replay(log).decisions == 2 * (10 + _EACH)


class Sink(io.StringIO):
    """Writes nothing down, and counts."""

    characters = 0

    def write(self, text: str) -> int:
        self.characters += len(text)
        return len(text)


def test_the_event_log_goes_to_its_file_line_by_line() -> None:
    sink = Sink()
    log = EventLog(sink, RouterSetup((), "random", {}, seed=0))
    tracemalloc.start()
    try:
        for number in range(2000):
            view = RequestView(number, "m", 100, 10, float(number))
            log.event("arrival", float(number), (view,), [Dispatch(number, "s0", 1)])
        kept, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert sink.characters > 100_000 > 10 * kept
