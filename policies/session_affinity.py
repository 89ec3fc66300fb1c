"""Sessions that stay where they are."""

import random
from collections import OrderedDict, defaultdict

from .base import Policy
from .errors import PolicyError
from .least_loaded import in_flight_requests, least
from .views import ClusterView, RequestView, Route, ServerView

__all__ = ["SessionAffinity"]

_CANDIDATES = 2


class SessionAffinity(Policy):
    """The server of the session's last request, for ever: nothing but its being closed moves a session.

    A session remembers up to two servers and uses the first that is open; where none is, or the session is new, one is
    assigned: at ``random``, by ``min_load`` (requests in flight) or by ``min_group`` (sessions with requests in
    flight). What is idle for ``max_idle_s`` is forgotten. A request without a session is assigned anew each time.

    Helps: conversations, whose every turn repeats the last: their cache is always where they go.
    Hurts: sessions that differ in size, and fleets that grow: load is balanced only as sessions begin.
    """

    name = "session_affinity"
    summary = "the server that the session has had, assigned when it began"
    source = "SMG manual.rs"
    parameters = {  # noqa: RUF012
        "assign": "how a new session gets its server: random, min_load or min_group",
        "max_idle_s": "what was idle for so long is forgotten",
        "eviction_interval_s": "time between two looks for idle sessions",
    }
    search = {  # noqa: RUF012
        "assign": ("random", "min_load", "min_group"),
    }

    def __init__(
        self,
        rng: random.Random,
        assign: str = "random",
        max_idle_s: float = 14_400.0,
        eviction_interval_s: float = 60.0,
    ) -> None:
        super().__init__(rng)
        if assign not in ("random", "min_load", "min_group"):
            raise PolicyError(f"policy {self.name}: assign must be random, min_load or min_group, not {assign!r}")
        self.assign = assign
        self.max_idle_s = max_idle_s
        self.eviction_interval_s = eviction_interval_s
        self._homes: OrderedDict[int, tuple[float, list[str]]] = OrderedDict()
        self._evict_at = eviction_interval_s
        self._groups: defaultdict[str, defaultdict[int, int]] = defaultdict(lambda: defaultdict(int))

    def choose(self, request: RequestView, cluster: ClusterView) -> Route:
        session = request.session_id
        if cluster.now >= self._evict_at:
            self._evict(cluster.now)
        if session is not None and session in self._homes:
            for home in self._homes[session][1]:
                for server in cluster.servers:
                    if server.server_id == home:
                        return Route(home)
        return Route(self._assigned(cluster).server_id)

    def _assigned(self, cluster: ClusterView) -> ServerView:
        servers = cluster.servers
        match self.assign:
            case "min_load":
                return least(servers, in_flight_requests, self.rng)
            case "min_group":
                return least(servers, lambda server: len(self._groups[server.server_id]), self.rng)
            case _:
                return servers[int(self.rng.random() * len(servers))]

    def _evict(self, now: float) -> None:
        self._evict_at = now + self.eviction_interval_s
        while self._homes and next(iter(self._homes.values()))[0] < now - self.max_idle_s:
            self._homes.popitem(last=False)

    def on_dispatch(self, request: RequestView, server: ServerView, now: float) -> None:
        session = request.session_id
        if session is None:
            return
        _, homes = self._homes.pop(session, (now, []))
        if server.server_id not in homes:
            homes = [*homes[1 - _CANDIDATES :], server.server_id]
        self._homes[session] = (now, homes)
        self._groups[server.server_id][session] += 1

    def on_finish(self, request: RequestView, server: ServerView, now: float) -> None:
        if request.session_id is not None:
            group = self._groups[server.server_id]
            group[request.session_id] -= 1
            if not group[request.session_id]:
                del group[request.session_id]
