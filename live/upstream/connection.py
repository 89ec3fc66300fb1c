"""One connection to a server, and one exchange on it at a time."""

import asyncio
from typing import Protocol, cast

from .chunks import ChunkReader
from .head import BadResponseError, ResponseHead, parse_head

__all__ = ["Connection", "Receiver"]

_LONGEST_HEAD = 64 * 1024


class Receiver(Protocol):
    """Who wants the answer. After ``on_end`` or ``on_lost`` nothing more is called."""

    def on_head(self, head: ResponseHead) -> None:
        """The final response's head is in."""

    def on_body(self, data: bytes) -> None:
        """A piece of the body, without its transfer coding."""

    def on_end(self) -> None:
        """The body is complete."""

    def on_lost(self, reason: str) -> None:
        """The answer will not be completed."""


class Connection(asyncio.Protocol):
    """Reads answers off a transport. ``owner`` gets it back when an exchange has ended well."""

    def __init__(self, owner: "ConnectionOwner") -> None:
        self.used = False
        self._owner = owner
        self._transport: asyncio.Transport | None = None
        self._receiver: Receiver | None = None
        self._heard = False
        self._buffer = b""
        self._head: ResponseHead | None = None
        self._chunks: ChunkReader | None = None
        self._left = 0

    # -- from the pool -------------------------------------------------------------------------------------------

    @property
    def heard(self) -> bool:
        """Whether anything of the present answer has come."""
        return self._heard

    @property
    def alive(self) -> bool:
        """Whether it can be sent on."""
        return self._transport is not None and not self._transport.is_closing()

    def send(self, request: bytes, receiver: Receiver) -> None:
        """Begin an exchange; the connection is idle and alive."""
        assert self._transport is not None
        assert self._receiver is None
        self._receiver, self._heard, self._head = receiver, False, None
        self._transport.write(request)

    def close(self) -> None:
        """Drop the exchange and the connection; the receiver is not told."""
        self._receiver = None
        if self._transport is not None:
            self._transport.abort()

    def pause(self) -> None:
        """Read nothing until ``resume``: the client is slower than the server."""
        if self._transport is not None:
            self._transport.pause_reading()

    def resume(self) -> None:
        """Read on."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.resume_reading()

    # -- from the transport --------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        if self._receiver is None:
            # A server that speaks without being asked is out of step: nothing more is sent to it on this connection.
            self.close()
            return
        self._heard = True
        try:
            if self._head is None:
                self._on_head_bytes(data)
            else:
                self._on_body_bytes(data)
        except BadResponseError as error:
            self._lose(f"garbage from the server: {error}")

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._owner.forget(self)
        if self._head is not None and not self._head.chunked and self._head.length is None and exc is None:
            self._complete()
        elif self._receiver is not None:
            reason = f": {exc}" if exc else ""
            where = "in the middle of its answer" if self._heard else "before its answer"
            self._lose(f"the server closed the connection {where}{reason}")

    # -- the answer ----------------------------------------------------------------------------------------------

    def _on_head_bytes(self, data: bytes) -> None:
        self._buffer += data
        head, separator, rest = self._buffer.partition(b"\r\n\r\n")
        if not separator:
            if len(self._buffer) > _LONGEST_HEAD or not b"HTTP/1.".startswith(self._buffer[:7]):
                raise BadResponseError(f"the answer begins with {self._buffer[:40]!r}")
            return
        self._buffer = b""
        parsed = parse_head(head)
        if parsed.status < 200:
            if rest:
                self._on_head_bytes(rest)
            return
        self._head = parsed
        self._chunks = ChunkReader() if parsed.chunked else None
        self._left = parsed.length or 0
        assert self._receiver is not None
        self._receiver.on_head(parsed)
        if rest:
            self._on_body_bytes(rest)
        elif parsed.length == 0:
            self._complete()

    def _on_body_bytes(self, data: bytes) -> None:
        head, receiver, chunks = self._head, self._receiver, self._chunks
        if receiver is None or head is None:
            return
        if chunks is not None:
            payload = chunks.feed(data)
            if payload:
                receiver.on_body(payload)
            if chunks.done:
                self._complete()
            return
        receiver.on_body(data)
        if head.length is not None:
            self._left -= len(data)
            if self._left < 0:
                raise BadResponseError(f"the body is {-self._left} bytes longer than its head says")
            if self._left == 0:
                self._complete()

    def _complete(self) -> None:
        receiver, head, self._receiver, self._head = self._receiver, self._head, None, None
        self.used = True
        if head is not None and head.keep_alive and self.alive:
            self._owner.take_back(self)
        elif self._transport is not None:
            self._transport.close()
        if receiver is not None:
            receiver.on_end()

    def _lose(self, reason: str) -> None:
        receiver, self._receiver, self._head = self._receiver, None, None
        if self._transport is not None:
            self._transport.abort()
        if receiver is not None:
            receiver.on_lost(reason)


class ConnectionOwner(Protocol):
    """Where idle connections wait."""

    def take_back(self, connection: Connection) -> None:
        """It is idle and may be used again."""

    def forget(self, connection: Connection) -> None:
        """It is closed."""
