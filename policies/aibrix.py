"""AIBrix's routing algorithms that are nobody else's."""

import random
from collections import defaultdict
from collections.abc import Sequence
from math import sqrt

from .base import Policy
from .least_loaded import in_flight_requests, least
from .parameters import Span
from .prefix_memory import PrefixAware, PrefixMemory
from .views import ClusterView, RequestView, Route, ServerView

__all__ = ["AibrixPrefixCache", "LeastLatency", "Throughput"]

_EXPIRY_LOOK_S = 1.0


class AibrixPrefixCache(PrefixAware):
    """The best match of the prompt among servers with at most ``mean + stddev_factor * standard deviation`` requests in
    flight; of equal matches the one with fewest. No match, or none such: the fewest requests in flight.

    While ``max - min`` requests in flight is above ``imbalance``, only servers with the fewest count.

    Helps: shared prefixes under load that is even by itself: a hot prefix moves on as soon as its server stands out.
    Hurts: large batches: 8 requests of difference are soon reached, and then caches hardly count any more.
    """

    name = "prefix_cache"
    summary = "the best prefix match among servers that are not more loaded than most"
    source = "AIBrix prefix_cache.go"
    parameters = {  # noqa: RUF012
        "imbalance": "difference in requests in flight above which only the least loaded servers count",
        "stddev_factor": "standard deviations above the mean that a matching server may have in flight",
        "expire_s": "a prefix that a server was not sent for so long is forgotten",
    }
    search = {  # noqa: RUF012
        "imbalance": Span(1, 64, log=True),
        "stddev_factor": Span(0, 4),
    }

    def __init__(
        self, rng: random.Random, imbalance: int = 8, stddev_factor: float = 1.0, expire_s: float = 1200.0
    ) -> None:
        super().__init__(rng, PrefixMemory(ttl_s=expire_s, every_s=_EXPIRY_LOOK_S))
        self.imbalance = imbalance
        self.stddev_factor = stddev_factor

    def choose(self, request: RequestView, cluster: ClusterView) -> Route:
        servers = cluster.servers
        cached = self.memory.cached_blocks(request, cluster.now)
        if cached and (match := self._match(servers, cached)):
            return Route(match.server_id)
        return Route(least(servers, in_flight_requests, self.rng).server_id)

    def _match(self, servers: Sequence[ServerView], cached: dict[str, int]) -> ServerView | None:
        loads = [server.in_flight_requests for server in servers]
        limit: float = min(loads)
        if max(loads) - limit <= self.imbalance:
            mean = sum(loads) / len(loads)
            squares = sum([(load - mean) ** 2 for load in loads])
            limit = mean + self.stddev_factor * sqrt(squares / max(len(loads) - 1, 1))
        matching = [s for s in servers if s.server_id in cached and s.in_flight_requests <= limit]
        if not matching:
            return None
        most = max([cached[server.server_id] for server in matching])
        best = [server for server in matching if cached[server.server_id] == most]
        return least(best, in_flight_requests, self.rng)


class Throughput(Policy):
    """Least ``prompt_weight * prompt + answer`` tokens of a server's mean request so far.

    AIBrix asks Prometheus for the means of the last day; here they are those of what the router sent, with the expected
    output for the answer's length.

    Helps: hardly: it was made to even out the sizes of requests between servers.
    Hurts: it looks at no load. The server with the smallest mean gets every request until its mean is no longer the
    smallest: traffic comes to one server at a time, and where requests are alike it stays there.
    """

    name = "throughput"
    summary = "the server whose requests have the fewest tokens on average, prompts counting double"
    source = "AIBrix throughput.go"
    parameters = {"prompt_weight": "answer tokens that a prompt token counts as"}  # noqa: RUF012
    search = {  # noqa: RUF012
        "prompt_weight": Span(0.1, 10, log=True),
    }
    needs = frozenset({"expected_output_tokens"})

    def __init__(self, rng: random.Random, prompt_weight: float = 2.0) -> None:
        super().__init__(rng)
        self.prompt_weight = prompt_weight
        self._tokens: defaultdict[str, float] = defaultdict(float)
        self._requests: defaultdict[str, int] = defaultdict(int)

    def choose(self, request: RequestView, cluster: ClusterView) -> Route:
        return Route(least(cluster.servers, self._mean, self.rng).server_id)

    def _mean(self, server: ServerView) -> float:
        return self._tokens[server.server_id] / (self._requests[server.server_id] or 1)

    def on_dispatch(self, request: RequestView, server: ServerView, now: float) -> None:
        expected = request.expected_output_tokens
        assert expected is not None  # refused at the start: see needs
        self._tokens[server.server_id] += self.prompt_weight * request.prompt_tokens + expected
        self._requests[server.server_id] += 1


class LeastLatency(Policy):
    """Least queueing, prefill and decode time of a mean request, from the latencies that servers report.

        mean_ttft * (mean prompt of all / mean prompt there) + mean_tpot * mean expected output

    AIBrix reads queueing and prefill time apart; SGLang reports their sum, so the queue's part is scaled with the
    prompt's. A server that has not served yet counts as free of delay, so that it is tried.

    Helps: fleets of different GPUs: measured latencies know what no count of requests does.
    Hurts: changing load: the latencies are those of requests that have ended, and what was sent since is not credited,
    so that all arrivals between two reports go to one server.
    """

    name = "least_latency"
    summary = "the least time for a mean request, from reported latencies, crediting nothing sent since"
    source = "AIBrix least_latency.go"
    needs = frozenset({"expected_output_tokens", "mean_ttft_s", "mean_tpot_s"})

    def __init__(self, rng: random.Random) -> None:
        super().__init__(rng)
        self._prompts: defaultdict[str, int] = defaultdict(int)
        self._requests: defaultdict[str, int] = defaultdict(int)
        self._all_prompts = self._all_expected = self._all_requests = 0

    def choose(self, request: RequestView, cluster: ClusterView) -> Route:
        scores = {server.server_id: self.predict(server) for server in cluster.servers}
        return Route(least(cluster.servers, lambda server: scores[server.server_id], self.rng).server_id, scores)

    def predict(self, server: ServerView) -> float:
        """The latency of a mean request there, in seconds."""
        requests = self._requests[server.server_id]
        if not requests:
            return 0.0
        mean_prompt = self._all_prompts / self._all_requests
        scale = mean_prompt * requests / self._prompts[server.server_id]
        decode_s = (server.mean_tpot_s or 0.0) * self._all_expected / self._all_requests
        return (server.mean_ttft_s or 0.0) * scale + decode_s

    def on_dispatch(self, request: RequestView, server: ServerView, now: float) -> None:
        expected = request.expected_output_tokens
        assert expected is not None  # refused at the start: see needs
        self._prompts[server.server_id] += request.prompt_tokens
        self._requests[server.server_id] += 1
        self._all_prompts += request.prompt_tokens
        self._all_expected += expected
        self._all_requests += 1
