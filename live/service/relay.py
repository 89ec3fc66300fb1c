"""One client's request at the service: bytes go through as they come, unparsed."""

import asyncio
import re
from typing import Final

from live.routing.flight import Flight
from live.streams import StreamReply
from live.upstream.head import ResponseHead

from .metrics import Ended

__all__ = ["Relay"]

_TAIL_BYTES: Final = 4096
_OUTPUT_TOKENS: Final = re.compile(rb'"(?:completion_tokens|generated_tokens)":\s*(\d+)')
_PROMPT_TOKENS: Final = re.compile(rb'"prompt_tokens":\s*(\d+)')


class Relay:
    """A ``Client`` of one flight. ``begun`` is True once an answer has begun, False when there will be none; ``over``
    is done when the body has ended. ``refused`` and ``failed`` say why there is none.

    ``on_start`` and the first data come before the head has gone out to the client; they wait in ``_early``.
    """

    __slots__ = (
        "_before",
        "_early",
        "_events",
        "_last",
        "_loop",
        "_reply",
        "_slow",
        "begun",
        "broken",
        "failed",
        "first_byte_at",
        "flight",
        "head",
        "over",
        "refused",
        "server_id",
    )

    flight: Flight

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self.begun: asyncio.Future[bool] = loop.create_future()
        self.over: asyncio.Future[None] = loop.create_future()
        self.head: ResponseHead | None = None
        self.server_id = ""
        self.refused: str | None = None
        self.failed: str | None = None
        self.broken: str | None = None
        self.first_byte_at: float | None = None
        self._early: list[bytes] = []
        self._reply: StreamReply | None = None
        self._slow: asyncio.Task[None] | None = None
        self._before = self._last = b""
        self._events = 0

    @property
    def is_stream(self) -> bool:
        """Whether the body is server-sent events."""
        return self.head is not None and self.head.header("content-type").startswith("text/event-stream")

    def attach(self, reply: StreamReply) -> None:
        """The head is out: from now on data goes to the client as it comes."""
        self._reply = reply
        early, self._early = self._early, []
        for data in early:
            self._pass_on(data)

    def note(self, ended: Ended) -> None:
        """Read the token counts from the end of the body; a stream that does not say had one token an event."""
        ended.server_id = self.server_id
        tail = self._before[-_TAIL_BYTES:] + self._last[-_TAIL_BYTES:]
        output, prompt = _last(_OUTPUT_TOKENS, tail), _last(_PROMPT_TOKENS, tail)
        ended.output_tokens = output if output is not None else max(self._events - 1, 0)
        ended.prompt_tokens = prompt or 0

    # -- from the flight (Client) --------------------------------------------------------------------------------

    def on_start(self, server_id: str, head: ResponseHead) -> None:
        """See ``Client``."""
        self.server_id, self.head = server_id, head
        self._answer(begun=True)

    def on_data(self, data: bytes) -> None:
        """See ``Client``."""
        if self.first_byte_at is None:
            self.first_byte_at = self._loop.time()
        self._events += data.count(b"\n\n")
        self._before, self._last = self._last, data
        if self._reply is None:
            self._early.append(data)
        else:
            self._pass_on(data)

    def on_done(self) -> str | None:
        """See ``Client``."""
        self._end()
        return None

    def on_broken(self, reason: str) -> None:
        """See ``Client``."""
        self.broken = reason
        self._end()

    def on_refused(self, reason: str) -> None:
        """See ``Client``."""
        self.refused = reason
        self._answer(begun=False)

    def on_failed(self, reason: str) -> None:
        """See ``Client``."""
        self.failed = reason
        self._answer(begun=False)

    # -- to the client -------------------------------------------------------------------------------------------

    def _pass_on(self, data: bytes) -> None:
        assert self._reply is not None
        if not self._reply.send(data) and self._slow is None and not self.over.done():
            self.flight.pause()
            self._slow = self._loop.create_task(self._wait_for_client())

    async def _wait_for_client(self) -> None:
        assert self._reply is not None
        await self._reply.drained()
        self._slow = None
        self.flight.resume()

    def _answer(self, *, begun: bool) -> None:
        if not self.begun.done():
            self.begun.set_result(begun)

    def _end(self) -> None:
        if not self.over.done():
            self.over.set_result(None)


def _last(pattern: re.Pattern[bytes], text: bytes) -> int | None:
    found = pattern.findall(text)
    return int(found[-1]) if found else None
