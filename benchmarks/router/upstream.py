"""A trivial server for measuring routers: each request is answered with a stream of events that carry the time.

usage: upstream.py PORT EVENTS INTERVAL_S
"""

import asyncio
import json
import sys
import time
from typing import cast

INFO = json.dumps(
    {
        "model_path": "bench",
        "served_model_name": "bench",
        "is_generation": True,
        "version": "0.5.23",
        "object": "list",
        "data": [{"id": "bench", "object": "model"}],
        "loads": [
            {"num_running_reqs": 0, "num_waiting_reqs": 0, "num_used_tokens": 0, "max_total_num_tokens": 1000000}
        ],
    }
).encode()
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
DATA = b'data: {"text": "%b", "meta_info": {"completion_tokens": %%2d}, "t": %%18d}\n\n' % (b"four" * 10)
DONE = b"data: [DONE]\n\n"
EVENT = b"%x\r\n%b\r\n" % (len(DATA % (1, 1)), DATA)
LAST = b"%x\r\n%b%b\r\n0\r\n\r\n" % (len(DATA % (1, 1)) + len(DONE), DATA, DONE)


class Upstream(asyncio.Protocol):
    """One connection."""

    def __init__(self, events: int, interval_s: float) -> None:
        self.events = events
        self.interval_s = interval_s
        self.buffer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        self.loop = asyncio.get_running_loop()

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        while b"\r\n\r\n" in self.buffer:
            head, _, rest = self.buffer.partition(b"\r\n\r\n")
            length = 0
            for line in head.lower().split(b"\r\n"):
                if line.startswith(b"content-length:"):
                    length = int(line.split(b":")[1])
            if len(rest) < length:
                return
            self.buffer = rest[length:]
            self.answer(head)

    def answer(self, head: bytes) -> None:
        if head.startswith(b"POST"):
            self.transport.write(HEAD)
            self.send(0, self.loop.time())
        else:
            size = b"Content-Length: %d\r\n" % len(INFO)
            self.transport.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n" + size + b"\r\n" + INFO)

    def send(self, number: int, due: float) -> None:
        if self.transport.is_closing():
            return
        last = number == self.events - 1
        self.transport.write((LAST if last else EVENT) % (number + 1, time.monotonic_ns()))
        if not last:
            due += self.interval_s
            self.loop.call_at(due, self.send, number + 1, due)


async def main() -> None:
    port, events, interval_s = int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])
    server = await asyncio.get_running_loop().create_server(
        lambda: Upstream(events, interval_s), "127.0.0.1", port, backlog=4096
    )
    await server.serve_forever()


asyncio.run(main())
