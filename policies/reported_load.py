"""Policies that send a request where the servers' reports show the least load."""

import random
from collections.abc import Callable, Sequence

from .base import Policy
from .least_loaded import kv_use, least
from .parameters import Span
from .views import ClusterView, RequestView, Route, ServerView

__all__ = ["LeastKv", "LeastLoad", "VllmScore"]


class VllmScore(Policy):
    """Least ``queued_weight * queued + running``: requests that wait at a server count four times those that run.

    Both are as last reported (vLLM's engines report every 100 ms: set ``router.report_interval_s``); what was sent
    since counts as queued.

    Helps: servers whose batch is full before their KV cache is: the queue tells what running requests do not.
    Hurts: reports older than a few arrivals, and requests of very different lengths, which it does not see.
    """

    name = "vllm_score"
    summary = "least 4 * queued + running, as reported, with what was sent since as queued"
    source = "vLLM v1/engine/core_client.py, DPLBAsyncMPClient"
    parameters = {"queued_weight": "running requests that a queued one counts as"}  # noqa: RUF012
    search = {  # noqa: RUF012
        "queued_weight": Span(0.5, 32, log=True),
    }
    needs = frozenset({"running_requests", "queued_requests"})

    def __init__(self, rng: random.Random, queued_weight: float = 4.0) -> None:
        super().__init__(rng)
        self.queued_weight = queued_weight

    def choose(self, request: RequestView, cluster: ClusterView) -> Route:
        return Route(least(cluster.servers, self.score, self.rng).server_id)

    def score(self, server: ServerView) -> float:
        """The server's load."""
        queued = (server.queued_requests or 0) + server.requests_since_report
        return self.queued_weight * queued + (server.running_requests or 0)


class LeastKv(Policy):
    """The server that reports the least of its KV tokens in use.

    Helps: long contexts, where memory runs out before the processor does.
    Hurts: stale reports: all that arrives between two goes to one server. And prefix caches: SGLang counts only what
    requests hold, other engines count what is merely cached, and then a warm cache looks like load.
    """

    name = "least_kv"
    summary = "the least KV tokens in use, as reported"
    source = "llm-d scorer/kvcacheutilization; AIBrix least_kv_cache.go"
    needs = frozenset({"kv_tokens_used", "kv_tokens_capacity"})

    def choose(self, request: RequestView, cluster: ClusterView) -> Route:
        return Route(least(cluster.servers, kv_use, self.rng).server_id)


class LeastLoad(Policy):
    """Least time to drain, with a barrier that grows without bound as the KV cache fills:

        (queued tokens + tokens sent since the report) / throughput + kv_pressure_weight * k / (1 - k)

    ``k`` is the KV use. Servers report queued requests, not their tokens: each counts as ``mean_prefill_tokens``. A
    server that generates nothing counts with ``default_throughput``. One that has not reported while others have: its
    requests in flight times ``mean_prefill_tokens`` over the mean throughput of those. None has: requests in flight.
    SMG polls every 10 s (``router.report_interval_s``).

    Helps: prompts of very different lengths, and fleets of different GPUs: work is compared as time.
    Hurts: low load: an idle server's throughput is what it was asked for, not what it can do, so that the few tokens it
    is sent look slow to drain.
    """

    name = "least_load"
    summary = "least time to drain from reported queue and throughput, crediting prompts sent since, and KV pressure"
    source = "SMG least_load.rs"
    parameters = {  # noqa: RUF012
        "kv_pressure_weight": "seconds that k/(1-k) = 1, a half full KV cache, counts as",
        "mean_prefill_tokens": "tokens of a queued request",
        "default_throughput": "tokens/s of a server that reports none",
    }
    search = {  # noqa: RUF012
        "kv_pressure_weight": Span(0.01, 5, log=True),
        "mean_prefill_tokens": Span(64, 16384, log=True),
    }
    needs = frozenset({"queued_requests", "kv_tokens_used", "kv_tokens_capacity", "throughput_tps"})

    def __init__(
        self,
        rng: random.Random,
        kv_pressure_weight: float = 0.15,
        mean_prefill_tokens: int = 1024,
        default_throughput: float = 2000.0,
    ) -> None:
        super().__init__(rng)
        self.kv_pressure_weight = kv_pressure_weight
        self.mean_prefill_tokens = mean_prefill_tokens
        self.default_throughput = default_throughput

    def choose(self, request: RequestView, cluster: ClusterView) -> Route:
        servers = cluster.servers
        return Route(least(servers, self.score(servers), self.rng).server_id)

    def score(self, servers: Sequence[ServerView]) -> Callable[[ServerView], float]:
        """The load of each of these, in seconds; in requests where none of them has reported."""
        if all(server.reported_at is None for server in servers):
            return lambda server: server.in_flight_requests
        rates = [server.throughput_tps for server in servers if server.throughput_tps]
        nominal = sum(rates) / len(rates) if rates else self.default_throughput

        def seconds(server: ServerView) -> float:
            if server.reported_at is None:
                return server.in_flight_requests * self.mean_prefill_tokens / nominal
            queued_tokens = (server.queued_requests or 0) * self.mean_prefill_tokens
            tokens = queued_tokens + server.prefill_tokens_since_report
            k = min(kv_use(server), 0.999)
            return tokens / (server.throughput_tps or self.default_throughput) + self.kv_pressure_weight * k / (1 - k)

        return seconds
