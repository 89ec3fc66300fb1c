"""Streamed HTTP answers that are written from callbacks: no task switch for a piece."""

import asyncio
from collections.abc import Iterable

from aiohttp import HttpVersion11, web
from multidict import CIMultiDict

__all__ = ["StreamReply"]

_FULL_BYTES = 256 * 1024
_DRAIN_POLL_S = 0.02


class StreamReply:
    """An answer on its way to a client. ``length`` is the body's, where it is known; else it goes out in chunks."""

    def __init__(
        self, request: web.Request, status: int, headers: Iterable[tuple[str, str]], length: int | None
    ) -> None:
        self._request = request
        self._transport = request.transport
        self._chunked = length is None and request.version >= HttpVersion11
        self.response = web.StreamResponse(status=status, headers=CIMultiDict(headers))
        if length is not None:
            self.response.content_length = length

    async def open(self) -> None:
        """Send the head."""
        await self.response.prepare(self._request)
        self._transport = self._request.transport

    def send(self, data: bytes) -> bool:
        """Send a piece of the body; False when the client takes it more slowly than it comes: see ``drained``."""
        transport = self._transport
        if transport is None or transport.is_closing() or not data:
            return True
        if self._chunked:
            data = b"%x\r\n%b\r\n" % (len(data), data)
        transport.write(data)
        return transport.get_write_buffer_size() < _FULL_BYTES

    async def drained(self) -> None:
        """Wait until a slow client has caught up, or has gone."""
        while self._transport is not None and not self._transport.is_closing():
            if self._transport.get_write_buffer_size() < _FULL_BYTES // 4:
                return
            await asyncio.sleep(_DRAIN_POLL_S)

    async def end(self) -> web.StreamResponse:
        """Send the end of the body."""
        await self.response.write_eof()
        return self.response

    def cut(self) -> None:
        """Close the connection: a body that its head gave a length cannot end in any other way before it."""
        if self._transport is not None:
            self._transport.close()
