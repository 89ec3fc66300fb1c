"""Admission: requests wait at the router, or are turned away, while the servers are full."""

import random
from collections.abc import Mapping, Sequence

from .errors import PolicyError
from .least_loaded import kv_use
from .parameters import Span
from .views import ClusterView, Decision, Hold, Reject, RequestView, ServerView
from .wrapping import Wrapping

__all__ = ["ConcurrencyGate", "SaturationGate", "UtilizationGate"]


class SaturationGate(Wrapping):
    """To be made into gates: ``policy`` chooses while ``saturation`` is below 1."""

    def __init__(self, rng: random.Random, policy: str, params: Mapping[str, object], action: str) -> None:
        super().__init__(rng, policy, params)
        if action not in ("hold", "reject"):
            raise PolicyError(f"policy {self.name}: action must be hold or reject, not {action!r}")
        self._answer: Decision = Hold() if action == "hold" else Reject("the servers are saturated")

    def choose(self, request: RequestView, cluster: ClusterView) -> Decision:
        if self.saturation(cluster.servers, cluster.now) >= 1:
            return self._answer
        return self.inner.choose(request, cluster)

    def saturation(self, servers: Sequence[ServerView], now: float) -> float:
        """How full the servers are; 1 is full."""
        raise NotImplementedError


class UtilizationGate(SaturationGate):
    """``policy`` chooses while servers have room: the mean over them of ``max(queued / queue_threshold, KV use /
    kv_threshold)`` is below 1. Else requests are held, or rejected. A server whose report is older than ``stale_s``
    counts as full.

    Servers at the router's cap are left out, as they cannot be chosen. Report intervals must be below ``stale_s``
    (llm-d asks every 50 ms, ``router.report_interval_s``), or else the fleet counts as full between two reports.

    Helps: overload: what waits at the router can still go anywhere, and be put in order (``router.queue_order``).
    Hurts: high load that the servers could carry: a queue of 5 keeps a large batch from being formed.
    """

    name = "utilization_gate"
    summary = "holds or rejects while reported queues and KV use say that the servers are full; another policy chooses"
    source = "llm-d-router saturationdetector/utilization"
    parameters = {  # noqa: RUF012
        "policy": "who chooses while there is room",
        "params": "its parameters",
        "action": "what becomes of requests while there is none: hold or reject",
        "queue_threshold": "queued requests of a full server",
        "kv_threshold": "KV use of a full server",
        "stale_s": "age from which a report counts as that of a full server",
    }
    search = {  # noqa: RUF012
        "queue_threshold": Span(1, 64, log=True),
        "kv_threshold": Span(0.5, 1),
    }
    needs = frozenset({"queued_requests", "kv_tokens_used", "kv_tokens_capacity"})

    def __init__(
        self,
        rng: random.Random,
        policy: str = "least_request",
        params: Mapping[str, object] = {},
        action: str = "hold",
        queue_threshold: int = 5,
        kv_threshold: float = 0.8,
        stale_s: float = 0.2,
    ) -> None:
        super().__init__(rng, policy, params, action)
        self.queue_threshold = queue_threshold
        self.kv_threshold = kv_threshold
        self.stale_s = stale_s

    def saturation(self, servers: Sequence[ServerView], now: float) -> float:
        return sum([self._fullness(server, now) for server in servers]) / len(servers)

    def _fullness(self, server: ServerView, now: float) -> float:
        if server.reported_at is None or now - server.reported_at > self.stale_s:
            return 1.0
        return max((server.queued_requests or 0) / self.queue_threshold, kv_use(server) / self.kv_threshold)


class ConcurrencyGate(SaturationGate):
    """``policy`` chooses while fewer than ``max_concurrency`` requests a server are in flight, on average. Else
    requests are held, or rejected.

    Helps: overload, without asking the servers: the router's own count is never stale.
    Hurts: requests of very different sizes: one number of requests fits none of their mixtures.
    """

    name = "concurrency_gate"
    summary = "holds or rejects while there are too many requests in flight a server; another policy chooses"
    source = "llm-d-router saturationdetector/concurrency"
    parameters = {  # noqa: RUF012
        "policy": "who chooses while there is room",
        "params": "its parameters",
        "action": "what becomes of requests while there is none: hold or reject",
        "max_concurrency": "requests in flight a server, on average, from which the fleet is full",
    }
    search = {  # noqa: RUF012
        "max_concurrency": Span(4, 512, log=True),
    }

    def __init__(
        self,
        rng: random.Random,
        policy: str = "least_request",
        params: Mapping[str, object] = {},
        action: str = "hold",
        max_concurrency: int = 100,
    ) -> None:
        super().__init__(rng, policy, params, action)
        self.max_concurrency = max_concurrency

    def saturation(self, servers: Sequence[ServerView], now: float) -> float:
        in_flight = sum([server.in_flight_requests for server in servers])
        return in_flight / (len(servers) * self.max_concurrency)
