"""Consistent hashing: keys on a ring of servers, so that a server that comes or goes moves few of them."""

from bisect import bisect_left
from collections.abc import Sequence
from hashlib import blake2b

from .views import ServerView

__all__ = ["HashRing"]


def _position(key: str) -> int:
    return int.from_bytes(blake2b(key.encode(), digest_size=8).digest())


class HashRing:
    """Every server ever seen has ``points`` places on the ring; a key belongs to the first open one from its own."""

    def __init__(self, points: int) -> None:
        self._points = points
        self._members: set[str] = set()
        self._positions: list[int] = []
        self._owners: list[str] = []
        self._shape: tuple[int, str] | None = None

    def find(self, key: str, servers: Sequence[ServerView]) -> ServerView:
        """The key's server among those that are open."""
        shape = (len(servers), servers[-1].server_id)
        if shape != self._shape:
            self._admit(servers)
            self._shape = shape
        at, owners = bisect_left(self._positions, _position(key)), self._owners
        # Nearly always it is the first: a look through the list costs less than a table of who is open.
        first = owners[at % len(owners)]
        for server in servers:
            if server.server_id == first:
                return server
        is_open = {server.server_id: server for server in servers}
        for step in range(1, len(owners)):
            owner = owners[(at + step) % len(owners)]
            if owner in is_open:
                return is_open[owner]
        self._admit(servers)
        return self.find(key, servers)

    def _admit(self, servers: Sequence[ServerView]) -> None:
        """Give places to servers that were never seen before."""
        new = {server.server_id for server in servers} - self._members
        if not new:
            return
        self._members |= new
        points = [(_position(f"{owner}#{point}"), owner) for owner in self._members for point in range(self._points)]
        points.sort()
        self._positions = [position for position, _ in points]
        self._owners = [owner for _, owner in points]
