"""What controllers share that hold a cap of its own for each server, between two bounds."""

from abc import abstractmethod
from collections.abc import Sequence

from policies.errors import PolicyError
from policies.parameters import Search, Span
from policies.views import ServerView

from .base import Cap, Controller

__all__ = ["BOUNDS", "BOUNDS_SEARCH", "Adaptive"]

BOUNDS = {
    "interval_s": "time between two decisions",
    "min_cap": "no cap is lower",
    "max_cap": "no cap is higher, nor higher than the one the server begins with; where it begins",
}
BOUNDS_SEARCH: dict[str, Search] = {"interval_s": Span(0.5, 20.0, log=True), "max_cap": Span(8, 512, log=True)}


class Adaptive(Controller):
    """A server begins with its configured cap, or ``max_cap`` where that is lower or there is none."""

    def __init__(self, interval_s: float, min_cap: int, max_cap: int) -> None:
        if not interval_s > 0:
            raise PolicyError(f"{self.name}: interval_s must be above 0, not {interval_s:g}")
        if not 1 <= min_cap <= max_cap:
            raise PolicyError(f"{self.name}: 1 <= min_cap <= max_cap must hold, not {min_cap} and {max_cap}")
        self.interval_s = interval_s
        self._min_cap = min_cap
        self._max_cap = max_cap
        self._caps: dict[str, int] = {}
        self._ceilings: dict[str, int] = {}

    @abstractmethod
    def next_cap(self, server: ServerView, cap: int, now: float) -> int:
        """The cap after ``cap``; kept within the bounds by the caller."""

    def changed(self, server_id: str, cap: int, now: float) -> None:
        """The server's cap is another from now on."""

    def cap_of(self, server_id: str) -> int | None:
        """The cap that this controller gave, None before its first decision."""
        return self._caps.get(server_id)

    def decide(self, now: float, servers: Sequence[ServerView]) -> list[Cap]:
        """See ``Controller``."""
        here = {server.server_id for server in servers}
        for gone in self._caps.keys() - here:
            del self._caps[gone], self._ceilings[gone]
        return [cap for server in servers if (cap := self._decide_one(server, now)) is not None]

    def _decide_one(self, server: ServerView, now: float) -> Cap | None:
        server_id = server.server_id
        cap = self._caps.get(server_id)
        if cap is None:
            configured = server.max_running_requests
            ceiling = self._max_cap if configured is None else min(configured, self._max_cap)
            self._caps[server_id] = self._ceilings[server_id] = ceiling
            return Cap(server_id, ceiling) if ceiling != configured else None
        ceiling = self._ceilings[server_id]
        wanted = min(max(self.next_cap(server, cap, now), min(self._min_cap, ceiling)), ceiling)
        if wanted == cap:
            return None
        self._caps[server_id] = wanted
        self.changed(server_id, wanted, now)
        return Cap(server_id, wanted)
