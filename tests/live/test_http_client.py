"""The HTTP client of the relays."""

import asyncio
from contextlib import suppress
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from live.upstream.chunks import ChunkReader
from live.upstream.head import BadResponseError, ResponseHead, parse_head, request_bytes
from live.upstream.origin import Exchange, Origin
from simcore.errors import UserError


def chunked(pieces: list[bytes]) -> bytes:
    return b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"


@settings(max_examples=60, deadline=None)
@given(st.lists(st.binary(min_size=1, max_size=40), max_size=6), st.lists(st.integers(1, 30), min_size=1, max_size=40))
def test_chunks_come_apart_however_they_are_cut(pieces: list[bytes], cuts: list[int]) -> None:
    raw, reader, found, at = chunked(pieces), ChunkReader(), b"", 0
    for cut in [*cuts, len(raw)]:
        found += reader.feed(raw[at : at + cut])
        at = min(at + cut, len(raw))
        if at == len(raw):
            break
    assert found == b"".join(pieces)
    assert reader.done


@pytest.mark.parametrize("raw", [b"zz\r\nab\r\n", b"-5\r\nab", b"2\r\nabXX", b"0\r\n\r\nmore", b"5" * 5000])
def test_what_is_no_chunk_is_said(raw: bytes) -> None:
    reader = ChunkReader()
    with pytest.raises(BadResponseError):
        reader.feed(raw)


@pytest.mark.parametrize(
    "head",
    [b"HTTP/2 200 OK", b"garbage", b"HTTP/1.1 2xx OK", b"HTTP/1.1 200 OK\r\nno colon", b"HTTP/1.1 200 OK\r\n a: b"],
)
def test_what_is_no_head_is_said(head: bytes) -> None:
    with pytest.raises(BadResponseError):
        parse_head(head)


def test_a_request_has_its_length_and_host() -> None:
    raw = request_bytes("POST", "/a?b=c", "host:1", [("X-Y", "z")], b"body")
    assert raw == b"POST /a?b=c HTTP/1.1\r\nHost: host:1\r\nContent-Length: 4\r\nX-Y: z\r\n\r\nbody"


@dataclass
class Answer:
    """A receiver that keeps everything."""

    body: bytes = b""
    statuses: list[int] = field(default_factory=list)
    lost: str | None = None
    over: asyncio.Event = field(default_factory=asyncio.Event)

    def on_head(self, head: ResponseHead) -> None:
        self.statuses.append(head.status)

    def on_body(self, data: bytes) -> None:
        self.body += data

    def on_end(self) -> None:
        self.over.set()

    def on_lost(self, reason: str) -> None:
        self.lost = reason
        self.over.set()


def exchange(*answers: bytes, close_after: int = 10, ask: int = 1, prepared: int = 0) -> tuple[list[Answer], int]:
    """Ask a server that answers each request with the next of ``answers``, and closes after ``close_after`` of them."""

    async def main() -> tuple[list[Answer], int]:
        left, connections = list(answers), 0
        serving: list[asyncio.Task[None] | None] = []

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            nonlocal connections
            connections += 1
            serving.append(asyncio.current_task())
            try:
                for _ in range(close_after):
                    await reader.readuntil(b"\r\n\r\n")
                    for byte in left.pop(0) if left else b"":
                        writer.write(bytes([byte]))
                    await writer.drain()
            except (asyncio.IncompleteReadError, ConnectionError):
                pass
            writer.close()
            with suppress(ConnectionError):
                await writer.wait_closed()

        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        origin = Origin(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
        await origin.prepare(prepared)
        found = []
        for _ in range(ask):
            answer = Answer()
            Exchange(origin, request_bytes("GET", "/", origin.host, [], b""), answer).start()
            async with asyncio.timeout(10):
                await answer.over.wait()
            found.append(answer)
        origin.close()
        server.close()
        await asyncio.gather(*filter(None, serving))
        return found, connections

    return asyncio.run(main())


def test_a_connection_is_used_again() -> None:
    one = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi"
    two = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 404 Not Found\r\nTransfer-Encoding: chunked\r\n\r\n" + chunked(
        [b"no"]
    )
    answers, connections = exchange(one, two, ask=2)
    assert [(answer.statuses, answer.body) for answer in answers] == [([200], b"hi"), ([404], b"no")]
    assert connections == 1


def test_a_connection_opened_beforehand_is_used() -> None:
    answers, connections = exchange(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi", prepared=3)
    assert answers[0].body == b"hi"
    assert connections == 3


def test_a_connection_opened_beforehand_may_be_closed_as_it_is_used() -> None:
    answers, connections = exchange(b"", b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi", close_after=1, prepared=1)
    assert answers[0].body == b"hi"
    assert connections == 2


def test_a_body_without_length_ends_with_its_connection() -> None:
    answers, connections = exchange(b"HTTP/1.1 200 OK\r\n\r\nall of it", close_after=1, ask=1)
    assert answers[0].body == b"all of it"
    assert answers[0].lost is None
    assert connections == 1


def test_a_connection_that_was_closed_while_idle_costs_nothing() -> None:
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi"
    answers, connections = exchange(answer, answer, answer, close_after=1, ask=3)
    assert [one.body for one in answers] == [b"hi"] * 3
    assert connections == 3


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhi", "in the middle of its answer"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhi", "in the middle of its answer"),
        (b"\x00\x01\x02\x03\x04\x05\x06\x07", "garbage"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n", "garbage"),
        (b"", "before its answer"),
    ],
)
def test_a_lost_answer_says_how(answer: bytes, said: str) -> None:
    answers, _ = exchange(answer, close_after=1)
    assert said in (answers[0].lost or "")


def test_no_server_is_said() -> None:
    async def main() -> str | None:
        answer = Answer()
        Exchange(Origin("http://127.0.0.1:1"), b"", answer).start()
        await answer.over.wait()
        return answer.lost

    assert "cannot connect to 127.0.0.1:1" in (asyncio.run(main()) or "")


@pytest.mark.parametrize("url", ["127.0.0.1:30000", "ftp://host", "http://", "http://user:key@host"])
def test_what_is_no_address_is_said(url: str) -> None:
    with pytest.raises(UserError, match="not a server's address"):
        Origin(url)
