"""One server's address, and the connections kept open to it."""

import asyncio
import ssl
from urllib.parse import urlsplit

from simcore.errors import UserError

from .connection import Connection, Receiver
from .head import ResponseHead

__all__ = ["Exchange", "Origin"]


class Origin:
    """Opens connections to one server and uses them again. ``url`` is http or https, with nothing behind the port but a
    path that all requests share. Raises UserError for any other."""

    def __init__(self, url: str, *, connect_timeout_s: float = 5.0) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.username:
            raise UserError(f"{url!r} is not a server's address: give it as http://host:port")
        self.url = url.rstrip("/")
        self.host = parts.netloc
        self.base_path = parts.path.rstrip("/")
        self._hostname = parts.hostname
        self._port = parts.port or (443 if parts.scheme == "https" else 80)
        self._ssl = ssl.create_default_context() if parts.scheme == "https" else None
        self._timeout_s = connect_timeout_s
        self._idle: list[Connection] = []

    async def open(self) -> Connection:
        """A new connection. Raises OSError and TimeoutError."""
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(self._timeout_s):
            _, connection = await loop.create_connection(
                lambda: Connection(self), self._hostname, self._port, ssl=self._ssl
            )
        return connection

    async def prepare(self, connections: int) -> None:
        """Open so many beforehand, for requests that will be sent all at once. Raises OSError and TimeoutError."""
        for connection in await asyncio.gather(*(self.open() for _ in range(connections))):
            # As of any that waits, the server may close it just as it is used.
            connection.used = True
            self.take_back(connection)

    def idle(self) -> Connection | None:
        """A connection that waits, or None."""
        while self._idle:
            connection = self._idle.pop()
            if connection.alive:
                return connection
        return None

    def take_back(self, connection: Connection) -> None:
        """See ``ConnectionOwner``."""
        self._idle.append(connection)

    def forget(self, connection: Connection) -> None:
        """See ``ConnectionOwner``."""
        if connection in self._idle:
            self._idle.remove(connection)

    def close(self) -> None:
        """Close idle connections."""
        while self._idle:
            self._idle.pop().close()


class Exchange:
    """One request and its answer, which ``receiver`` gets. ``start`` once; ``cancel`` at any time."""

    def __init__(self, origin: Origin, request: bytes, receiver: Receiver) -> None:
        self._origin = origin
        self._request = request
        self._receiver = receiver
        self._connection: Connection | None = None
        self._opening: asyncio.Task[None] | None = None
        self._over = False

    def start(self) -> None:
        """Send the request; the answer comes to the receiver."""
        connection = self._origin.idle()
        if connection is None:
            self._opening = asyncio.get_running_loop().create_task(self._open())
        else:
            self._connection = connection
            connection.send(self._request, self)

    def cancel(self) -> None:
        """Drop it; the receiver is not called again."""
        self._over = True
        if self._opening is not None:
            self._opening.cancel()
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def pause(self) -> None:
        """Let the server wait."""
        if self._connection is not None:
            self._connection.pause()

    def resume(self) -> None:
        """Go on."""
        if self._connection is not None:
            self._connection.resume()

    async def _open(self) -> None:
        try:
            connection = await self._origin.open()
        except (OSError, TimeoutError) as error:
            self._opening = None
            detail = str(error) or "timed out"
            self.on_lost(f"cannot connect to {self._origin.host}: {detail}")
            return
        self._opening = None
        self._connection = connection
        connection.send(self._request, self)

    # -- from the connection (Receiver) --------------------------------------------------------------------------

    def on_head(self, head: ResponseHead) -> None:
        """See ``Receiver``."""
        self._receiver.on_head(head)

    def on_body(self, data: bytes) -> None:
        """See ``Receiver``."""
        self._receiver.on_body(data)

    def on_end(self) -> None:
        """See ``Receiver``."""
        self._connection = None
        if not self._over:
            self._over = True
            self._receiver.on_end()

    def on_lost(self, reason: str) -> None:
        """See ``Receiver``. A connection kept open may have been closed by the server just as it was used: then the
        request has not been read, and goes out once more on a new one."""
        connection, self._connection = self._connection, None
        if self._over:
            return
        if connection is not None and connection.used and not connection.heard:
            self._opening = asyncio.get_running_loop().create_task(self._open())
            return
        self._over = True
        self._receiver.on_lost(reason)
