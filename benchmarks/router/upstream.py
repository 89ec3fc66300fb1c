"""A trivial server for measuring routers: each request is answered with a stream of events that carry the time.

usage: upstream.py PORT EVENTS INTERVAL_S

A bare epoll loop, because on a small machine the harness takes its time from what it measures.
"""

import json
import select
import socket
import sys
import time
from collections import deque

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
INFO = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (len(INFO), INFO)
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
DATA = b'data: {"text": "%b", "meta_info": {"completion_tokens": %%2d}, "t": %%18d}\n\n' % (b"four" * 10)
DONE = b"data: [DONE]\n\n"
EVENT = b"%x\r\n%b\r\n" % (len(DATA % (1, 1)), DATA)
LAST = b"%x\r\n%b%b\r\n0\r\n\r\n" % (len(DATA % (1, 1)) + len(DONE), DATA, DONE)


class Server:
    """All connections. Streams have one interval, so those due come in the order in which they were queued."""

    def __init__(self, port: int, events: int, interval_s: float) -> None:
        self.events = events
        self.interval_s = interval_s
        self.listener = socket.create_server(("127.0.0.1", port), backlog=4096)
        self.listener.setblocking(False)
        self.epoll = select.epoll()
        self.epoll.register(self.listener, select.EPOLLIN)
        self.connections: dict[int, tuple[socket.socket, bytes]] = {}
        self.due: deque[tuple[float, socket.socket, int]] = deque()

    def run(self) -> None:
        while True:
            wait = max(self.due[0][0] - time.monotonic(), 0.0) if self.due else 1.0
            for number, _ in self.epoll.poll(wait):
                if number == self.listener.fileno():
                    self.accept()
                else:
                    self.read(number)
            now = time.monotonic()
            for _ in range(len(self.due)):
                if self.due[0][0] > now:
                    break
                self.send(*self.due.popleft())

    def accept(self) -> None:
        connection, _ = self.listener.accept()
        connection.setblocking(False)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.connections[connection.fileno()] = (connection, b"")
        self.epoll.register(connection, select.EPOLLIN)

    def read(self, number: int) -> None:
        connection, buffer = self.connections[number]
        try:
            data = connection.recv(65536)
        except OSError:
            data = b""
        if not data:
            self.epoll.unregister(connection)
            del self.connections[number]
            connection.close()
            return
        head, separator, body = (buffer + data).partition(b"\r\n\r\n")
        length = 0
        for line in head.lower().split(b"\r\n"):
            if line.startswith(b"content-length:"):
                length = int(line.split(b":")[1])
        if not separator or len(body) < length:
            self.connections[number] = (connection, buffer + data)
            return
        self.connections[number] = (connection, b"")
        if head.startswith(b"POST"):
            connection.send(HEAD)
            self.send(time.monotonic(), connection, 1)
        else:
            connection.send(INFO)

    def send(self, due: float, connection: socket.socket, number: int) -> None:
        if connection.fileno() < 0:
            return
        last = number == self.events
        try:
            connection.send((LAST if last else EVENT) % (number, time.monotonic_ns()))
        except OSError:
            return
        if not last:
            self.due.append((due + self.interval_s, connection, number + 1))


Server(int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])).run()
