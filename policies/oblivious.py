"""Policies that look at no server's state."""

from .base import Policy
from .views import ClusterView, RequestView, Route

__all__ = ["Random", "RoundRobin"]


class Random(Policy):
    """Uniformly at random.

    Helps: as the line that every other policy must beat, and where the router knows nothing.
    Hurts: everywhere else: chance alone gives some server several requests while another has none.
    """

    name = "random"
    summary = "a server uniformly at random"
    source = "every router"

    def choose(self, request: RequestView, cluster: ClusterView) -> Route:
        servers = cluster.servers
        return Route(servers[int(self.rng.random() * len(servers))].server_id)


class RoundRobin(Policy):
    """Cyclic over the servers that may take a request.

    Helps: equal servers, requests of equal size, arrivals at an even pace.
    Hurts: requests of different sizes, servers of different speed, and caches: each prefix comes by everywhere.
    """

    name = "round_robin"
    summary = "the servers in turn"
    source = "every router"
    _next = 0

    def choose(self, request: RequestView, cluster: ClusterView) -> Route:
        turn, self._next = self._next, self._next + 1
        servers = cluster.servers
        return Route(servers[turn % len(servers)].server_id)
