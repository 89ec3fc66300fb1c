"""Policies that send a request where the router's own ledger shows the least load."""

import random
from collections.abc import Callable, Sequence

from .base import Policy
from .errors import PolicyError
from .views import ClusterView, RequestView, Route, ServerView

__all__ = [
    "LeastOutstandingTokens",
    "LeastRequest",
    "PowerOfTwo",
    "in_flight_requests",
    "in_flight_tokens",
    "kv_use",
    "least",
]


def least(servers: Sequence[ServerView], load: Callable[[ServerView], float], rng: random.Random) -> ServerView:
    """The server of the least load, ties broken at random.

    A tie that always falls to the first server makes it a hot spot at low load (sglang issue 32983).
    """
    best, least_load, ties = servers[0], load(servers[0]), 1
    for server in servers[1:]:
        value = load(server)
        if value < least_load:
            best, least_load, ties = server, value, 1
        elif value == least_load:
            ties += 1
            if rng.random() * ties < 1:
                best = server
    return best


def kv_use(server: ServerView) -> float:
    """The share of its KV tokens that a server has in use, as last reported; 0 before its first report."""
    return (server.kv_tokens_used or 0) / (server.kv_tokens_capacity or 1)


def in_flight_requests(server: ServerView) -> float:
    return server.in_flight_requests


def in_flight_tokens(server: ServerView) -> float:
    return server.in_flight_tokens


class LeastRequest(Policy):
    """Join the shortest queue: the fewest requests in flight, as the router counts them.

    Helps: nearly always, without asking the servers anything: the count is never stale.
    Hurts: requests of very different sizes, servers of different speed, and caches, which it does not see.
    """

    name = "least_request"
    summary = "the server with the fewest requests in flight (join the shortest queue)"
    source = "AIBrix least_request.go; SMG"

    def choose(self, request: RequestView, cluster: ClusterView) -> Route:
        return Route(least(cluster.servers, in_flight_requests, self.rng).server_id)


class LeastOutstandingTokens(Policy):
    """The fewest tokens in flight: prompt plus expected output of every request there.

    Helps: requests of different sizes, if the expected output says which are the long ones.
    Hurts: an expectation that is wrong, or the same for all, under short prompts; prompts count as much as answers do.
    """

    name = "least_outstanding_tokens"
    summary = "the server with the fewest prompt and expected output tokens in flight"
    source = "llm-d scorer/tokenload; splitwise token_jsq"
    needs = frozenset({"expected_output_tokens"})

    def choose(self, request: RequestView, cluster: ClusterView) -> Route:
        return Route(least(cluster.servers, in_flight_tokens, self.rng).server_id)


class PowerOfTwo(Policy):
    """Two distinct servers at random, then the one with fewer requests in flight, or ``by: kv`` the one with less of
    its KV tokens in use, where both have reported it.

    SMG goes by KV use where it polls its workers. By default the router's own count decides here, because it is never
    stale and costs no polling.

    Helps: many servers, several routers or stale counts: it needs two numbers, and chance keeps requests from herding.
    Hurts: few servers and one router, where looking at all of them costs nothing and finds the better one.
    """

    name = "power_of_two"
    summary = "the less loaded of two servers drawn at random"
    source = "Mitzenmacher 2001; SMG power_of_two.rs"
    parameters = {"by": "what is compared: requests (in flight) or kv (the share of KV tokens in use)"}  # noqa: RUF012
    search = {  # noqa: RUF012
        "by": ("requests", "kv"),
    }

    def __init__(self, rng: random.Random, by: str = "requests") -> None:
        super().__init__(rng)
        if by not in ("requests", "kv"):
            raise PolicyError(f"policy {self.name}: by must be requests or kv, not {by!r}")
        self._by_kv = by == "kv"
        if self._by_kv:
            self.needs = frozenset({"kv_tokens_used", "kv_tokens_capacity"})

    def choose(self, request: RequestView, cluster: ClusterView) -> Route:
        servers = cluster.servers
        count = len(servers)
        if count == 1:
            return Route(servers[0].server_id)
        draw = self.rng.random
        first = int(draw() * count)
        second = int(draw() * (count - 1))
        a, b = servers[first], servers[second + (second >= first)]
        if self._by_kv and a.kv_tokens_capacity and b.kv_tokens_capacity:
            return Route((b if kv_use(b) < kv_use(a) else a).server_id)
        return Route((b if b.in_flight_requests < a.in_flight_requests else a).server_id)
