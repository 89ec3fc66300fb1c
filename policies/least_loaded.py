"""Policies that send a request where the router's own ledger shows the least load."""

import random
from collections.abc import Callable, Sequence

from .base import Policy
from .views import ClusterView, RequestView, Route, ServerView

__all__ = ["LeastOutstandingTokens", "LeastRequest", "PowerOfTwo", "least"]


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


def _in_flight_requests(server: ServerView) -> float:
    return server.in_flight_requests


def _in_flight_tokens(server: ServerView) -> float:
    return server.in_flight_tokens


class LeastRequest(Policy):
    """Join the shortest queue: the fewest requests in flight, as the router counts them."""

    name = "least_request"
    summary = "the server with the fewest requests in flight (join the shortest queue)"
    source = "AIBrix least_request.go; SMG"

    def choose(self, request: RequestView, cluster: ClusterView) -> Route:
        return Route(least(cluster.servers, _in_flight_requests, self.rng).server_id)


class LeastOutstandingTokens(Policy):
    """The fewest tokens in flight: prompt plus expected output of every request there."""

    name = "least_outstanding_tokens"
    summary = "the server with the fewest prompt and expected output tokens in flight"
    source = "llm-d scorer/tokenload; splitwise token_jsq"
    needs = frozenset({"expected_output_tokens"})

    def choose(self, request: RequestView, cluster: ClusterView) -> Route:
        return Route(least(cluster.servers, _in_flight_tokens, self.rng).server_id)


class PowerOfTwo(Policy):
    """Two distinct servers at random, then the one with fewer requests in flight.

    SMG compares KV use where both report it; here the router's own count decides, because it is never stale.
    """

    name = "power_of_two"
    summary = "the less loaded of two servers drawn at random"
    source = "Mitzenmacher 2001; SMG power_of_two.rs"

    def choose(self, request: RequestView, cluster: ClusterView) -> Route:
        servers = cluster.servers
        count = len(servers)
        if count == 1:
            return Route(servers[0].server_id)
        draw = self.rng.random
        first = int(draw() * count)
        second = int(draw() * (count - 1))
        a, b = servers[first], servers[second + (second >= first)]
        return Route((b if b.in_flight_requests < a.in_flight_requests else a).server_id)
