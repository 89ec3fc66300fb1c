"""Load for measuring routers: requests at a steady rate, or as many as so many clients can send; prints JSON.

usage: load.py URL SECONDS rate RATE | load.py URL SECONDS clients N

Every event says when the server sent it, on the clock that all processes of a machine share. ``event_ms`` is how long
events were under way, ``ttft_ms`` from sending a request to its first event. A bare epoll loop, as in upstream.py.
"""

import json
import re
import select
import socket
import sys
import time
from array import array
from urllib.parse import urlsplit

import numpy as np

BODY = json.dumps(
    {"text": "x" * 400, "sampling_params": {"max_new_tokens": 64, "ignore_eos": True}, "stream": True}
).encode()
SENT_AT = re.compile(rb'"t": +(\d+)}')


class Client:
    """One connection, one request at a time."""

    __slots__ = ("busy", "first", "sent_at", "socket", "tail")

    def __init__(self, host: str, port: int) -> None:
        self.socket = socket.create_connection((host, port), timeout=10)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.setblocking(False)
        self.busy = self.first = False
        self.sent_at = 0
        self.tail = b""

    def ask(self, request: bytes) -> None:
        self.busy = self.first = True
        self.tail = b""
        self.sent_at = time.monotonic_ns()
        self.socket.send(request)


class Load:
    """The clients together."""

    def __init__(self, url: str, *, closed_loop: bool) -> None:
        parts = urlsplit(url)
        assert parts.hostname is not None
        assert parts.port is not None
        self.address = (parts.hostname, parts.port)
        head = f"POST /generate HTTP/1.1\r\nHost: {parts.netloc}\r\nContent-Type: application/json\r\n"
        self.request = f"{head}Content-Length: {len(BODY)}\r\n\r\n".encode() + BODY
        self.closed_loop = closed_loop
        self.events = array("q")
        self.ttft = array("q")
        self.late = array("d")
        self.clients: dict[int, Client] = {}
        self.idle: list[Client] = []
        self.done = self.failed = self.under_way = self.most = 0
        self.epoll = select.epoll()

    def ask(self) -> None:
        self.under_way += 1
        self.most = max(self.most, self.under_way)
        if self.idle:
            client = self.idle.pop()
        else:
            client = Client(*self.address)
            self.clients[client.socket.fileno()] = client
            self.epoll.register(client.socket, select.EPOLLIN)
        client.ask(self.request)

    def poll(self, wait_s: float) -> None:
        for number, _ in self.epoll.poll(max(wait_s, 0.0)):
            client = self.clients[number]
            try:
                data = client.socket.recv(65536)
            except OSError:
                data = b""
            now = time.monotonic_ns()
            if data:
                self.heard(client, data, now)
            else:
                self.lost(client)

    def heard(self, client: Client, data: bytes, now: int) -> None:
        for sent_at in SENT_AT.findall(data):
            self.events.append(now - int(sent_at))
            if client.first:
                client.first = False
                self.ttft.append(now - client.sent_at)
        client.tail = (client.tail + data)[-40:]
        if client.busy and client.tail.endswith(b"0\r\n\r\n"):
            client.busy = False
            self.under_way -= 1
            ok = b"[DONE]" in client.tail
            self.done += ok
            self.failed += not ok
            self.idle.append(client)
            if self.closed_loop:
                self.ask()

    def lost(self, client: Client) -> None:
        self.epoll.unregister(client.socket)
        del self.clients[client.socket.fileno()]
        client.socket.close()
        if client.busy:
            self.under_way -= 1
            self.failed += 1
        else:
            self.idle.remove(client)

    def at_rate(self, seconds: float, rate: float) -> None:
        start = time.monotonic()
        for number in range(int(seconds * rate)):
            due = start + number / rate
            while (left := due - time.monotonic()) > 0:
                self.poll(left)
            self.late.append(time.monotonic() - due)
            self.ask()
            self.poll(0.0)
        deadline = time.monotonic() + 30
        while self.under_way and time.monotonic() < deadline:
            self.poll(0.1)

    def by_clients(self, seconds: float, clients: int) -> None:
        for _ in range(clients):
            self.ask()
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self.poll(0.1)


def spread(values: "array[int]") -> dict[str, float]:
    p50, p99, most = np.quantile(np.asarray(values) / 1e6, [0.5, 0.99, 1.0])
    return {"p50": round(float(p50), 3), "p99": round(float(p99), 3), "max": round(float(most), 3)}


def main() -> None:
    url, seconds, kind, amount = sys.argv[1], float(sys.argv[2]), sys.argv[3], float(sys.argv[4])
    load = Load(url, closed_loop=kind == "clients")
    started = time.monotonic()
    if kind == "rate":
        load.at_rate(seconds, amount)
    else:
        load.by_clients(seconds, int(amount))
    took = time.monotonic() - started
    result = {
        "requests": load.done,
        "failed": load.failed,
        "unfinished": load.under_way if kind == "rate" else 0,
        "requests_per_s": round(load.done / took, 1),
        "most_under_way": load.most,
        "generator_late_p99_ms": round(float(np.quantile(load.late, 0.99)) * 1e3, 3) if load.late else None,
        "own_cpu_share": round(time.process_time() / took, 3),
        "event_ms": spread(load.events),
        "ttft_ms": spread(load.ttft),
    }
    print(json.dumps(result))


main()
