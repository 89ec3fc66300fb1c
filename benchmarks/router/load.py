"""Load for measuring routers: requests at a steady rate, or as many as so many clients can send; prints JSON.

usage: load.py URL SECONDS rate RATE | load.py URL SECONDS clients N

Every event says when the server sent it, on the clock that all processes of a machine share. ``event_ms`` is how long
events were under way, ``ttft_ms`` from sending a request to its first event.
"""

import asyncio
import json
import re
import sys
import time
from typing import cast
from urllib.parse import urlsplit

import numpy as np

BODY = json.dumps(
    {"text": "x" * 400, "sampling_params": {"max_new_tokens": 64, "ignore_eos": True}, "stream": True}
).encode()
SENT_AT = re.compile(rb'"t": +(\d+)')


class Client(asyncio.Protocol):
    """One connection, one request at a time."""

    def __init__(self, load: "Load") -> None:
        self.load = load
        self.busy = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)

    def ask(self) -> None:
        self.busy, self.first = True, True
        self.tail = b""
        self.sent_at = time.monotonic_ns()
        self.transport.write(self.load.request)

    def data_received(self, data: bytes) -> None:
        now, load = time.monotonic_ns(), self.load
        for sent_at in SENT_AT.findall(data):
            load.events.append(now - int(sent_at))
        if self.first and b'"t": ' in data:
            self.first = False
            load.ttft.append(now - self.sent_at)
        self.tail = (self.tail + data)[-40:]
        if self.busy and self.tail.endswith(b"0\r\n\r\n"):
            self.busy = False
            load.ended(self, ok=b"[DONE]" in self.tail)

    def connection_lost(self, exc: Exception | None) -> None:
        if self.busy:
            self.busy = False
            self.load.ended(None, ok=False)


class Load:
    """The clients together."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self.host, self.port = parts.hostname, parts.port
        head = f"POST /generate HTTP/1.1\r\nHost: {parts.netloc}\r\nContent-Type: application/json\r\n"
        self.request = f"{head}Content-Length: {len(BODY)}\r\n\r\n".encode() + BODY
        self.events: list[int] = []
        self.ttft: list[int] = []
        self.late: list[float] = []
        self.idle: list[Client] = []
        self.done = self.failed = self.under_way = self.most = 0
        self.closed_loop = False
        self.over = False

    async def client(self) -> Client:
        loop = asyncio.get_running_loop()
        return (await loop.create_connection(lambda: Client(self), self.host, self.port))[1]

    def ended(self, client: Client | None, *, ok: bool) -> None:
        self.under_way -= 1
        self.done += ok
        self.failed += not ok
        if client is None:
            return
        if self.closed_loop and not self.over:
            self.under_way += 1
            client.ask()
        else:
            self.idle.append(client)

    async def at_rate(self, seconds: float, rate: float) -> None:
        loop = asyncio.get_running_loop()
        start, tasks = loop.time(), set()
        for number in range(int(seconds * rate)):
            due = start + number / rate
            if (wait := due - loop.time()) > 0:
                await asyncio.sleep(wait)
            self.late.append(loop.time() - due)
            self.under_way += 1
            self.most = max(self.most, self.under_way)
            if self.idle:
                self.idle.pop().ask()
            else:
                task = loop.create_task(self.first())
                tasks.add(task)
                task.add_done_callback(tasks.discard)
        deadline = loop.time() + 30
        while self.under_way and loop.time() < deadline:
            await asyncio.sleep(0.05)

    async def first(self) -> None:
        try:
            client = await self.client()
        except OSError:
            self.ended(None, ok=False)
        else:
            client.ask()

    async def by_clients(self, seconds: float, clients: int) -> None:
        self.closed_loop = True
        for client in [await self.client() for _ in range(clients)]:
            self.under_way += 1
            client.ask()
        await asyncio.sleep(seconds)
        self.over = True


def spread(values: list[int]) -> dict[str, float]:
    p50, p99, most = np.quantile(np.asarray(values or [0]) / 1e6, [0.5, 0.99, 1.0])
    return {"p50": round(float(p50), 3), "p99": round(float(p99), 3), "max": round(float(most), 3)}


async def main() -> None:
    url, seconds, kind, amount = sys.argv[1], float(sys.argv[2]), sys.argv[3], float(sys.argv[4])
    load = Load(url)
    started = time.monotonic()
    await (load.at_rate(seconds, amount) if kind == "rate" else load.by_clients(seconds, int(amount)))
    took = time.monotonic() - started
    late_ms = float(np.quantile(load.late, 0.99)) * 1e3 if load.late else None
    result = {
        "requests": load.done,
        "failed": load.failed,
        "unfinished": load.under_way if kind == "rate" else 0,
        "requests_per_s": round(load.done / took, 1),
        "most_under_way": load.most,
        "generator_late_p99_ms": late_ms and round(late_ms, 3),
        "event_ms": spread(load.events),
        "ttft_ms": spread(load.ttft),
    }
    print(json.dumps(result))


asyncio.run(main())
