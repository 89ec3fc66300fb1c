"""A policy that is looked at while it decides."""

from collections.abc import Callable
from typing import NamedTuple

from policies import ClusterView, Decision, Policy, RequestView, ServerView

__all__ = ["Decided", "WatchedPolicy"]


class Decided(NamedTuple):
    """One decision and the view it was taken on, as columns of the servers that could be chosen."""

    now: float
    request_id: int
    decision: Decision
    servers: tuple[dict[str, object], ...]


class WatchedPolicy(Policy):
    """Decides what the policy within decides, and tells ``on_decided``."""

    def __init__(self, policy: Policy, on_decided: Callable[[Decided], None]) -> None:
        super().__init__(policy.rng)
        self.policy = policy
        self._on_decided = on_decided
        # What a class says of itself, this instance says of the policy within.
        self.name, self.needs, self.order = policy.name, policy.needs, policy.order  # type: ignore[misc]

    def choose(self, request: RequestView, cluster: ClusterView) -> Decision:
        """See ``Policy``."""
        decision = self.policy.choose(request, cluster)
        servers = tuple(_seen(server) for server in cluster.servers)
        self._on_decided(Decided(cluster.now, request.request_id, decision, servers))
        return decision

    def on_dispatch(self, request: RequestView, server: ServerView, now: float) -> None:
        """See ``Policy``."""
        self.policy.on_dispatch(request, server, now)

    def on_first_token(self, request: RequestView, server: ServerView, now: float) -> None:
        """See ``Policy``."""
        self.policy.on_first_token(request, server, now)

    def on_finish(self, request: RequestView, server: ServerView, now: float) -> None:
        """See ``Policy``."""
        self.policy.on_finish(request, server, now)

    def on_report(self, server: ServerView, now: float) -> None:
        """See ``Policy``."""
        self.policy.on_report(server, now)


def _seen(server: ServerView) -> dict[str, object]:
    return {
        "server_id": server.server_id,
        "in_flight_requests": server.in_flight_requests,
        "in_flight_tokens": server.in_flight_tokens,
        "max_running_requests": server.max_running_requests,
        "requests_since_report": server.requests_since_report,
        "prefill_tokens_since_report": server.prefill_tokens_since_report,
        "reported_at": server.reported_at,
        "running_requests": server.running_requests,
        "queued_requests": server.queued_requests,
        "kv_tokens_used": server.kv_tokens_used,
        "throughput_tps": server.throughput_tps,
        "mean_ttft_s": server.mean_ttft_s,
        "mean_tpot_s": server.mean_tpot_s,
    }
