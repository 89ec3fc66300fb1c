"""Routing by what the servers report of themselves."""

import random

from .base import Policy
from .least_loaded import least
from .parameters import Span
from .views import ClusterView, RequestView, Route, ServerView

__all__ = ["ParameterAware"]


class ParameterAware(Policy):
    """The server with the least predicted latency for this request.

        latency = ttft + tpot * output + queue_weight * (load + credit) * mean_output / throughput

    ``ttft``, ``tpot``, ``load`` (running and queued requests) are as last reported; ``credit`` is the requests sent
    there since that report, without which a whole report interval's arrivals go to one server. ``throughput`` is the
    most tokens a second the server has reported so far: what it delivers at low load says little of what it can.
    ``output`` and ``mean_output`` are the expected output tokens of this request and of all so far. A server that has
    not served yet has no latencies: it counts as free of delay, so that it is tried, and the credit spreads a burst.

    Helps: fleets of different GPUs, where latencies and throughput tell the servers apart.
    Hurts: reports that are old beside the time a request takes, and latencies of a load that has passed.
    """

    name = "parameter_aware"
    summary = "the least latency predicted from reported throughput, latency and load, crediting work sent since"
    source = "AIBrix least_latency.go, SMG least_load.rs; credit for work since the report: llm-d-router issue 298"
    parameters = {  # noqa: RUF012
        "queue_weight": "weight of the time that work ahead takes, against the request's own latency",
        "credit_weight": "how much of a running request one sent since the last report counts",
    }
    search = {  # noqa: RUF012
        "queue_weight": Span(0.1, 10, log=True),
        "credit_weight": Span(0, 2),
    }
    needs = frozenset(
        {
            "expected_output_tokens",
            "running_requests",
            "queued_requests",
            "throughput_tps",
            "mean_ttft_s",
            "mean_tpot_s",
        }
    )

    def __init__(self, rng: random.Random, queue_weight: float = 1.0, credit_weight: float = 1.0) -> None:
        super().__init__(rng)
        self.queue_weight = queue_weight
        self.credit_weight = credit_weight
        self._peak_tps: dict[str, float] = {}
        self._expected_sum = 0
        self._expected_count = 0

    def choose(self, request: RequestView, cluster: ClusterView) -> Route:
        output = request.expected_output_tokens
        assert output is not None  # refused at the start: see needs
        self._expected_sum += output
        self._expected_count += 1
        mean_output = self._expected_sum / self._expected_count
        scores = {server.server_id: self.predict(server, output, mean_output) for server in cluster.servers}
        chosen = least(cluster.servers, lambda server: scores[server.server_id], self.rng)
        return Route(chosen.server_id, scores)

    def predict(self, server: ServerView, output: int, mean_output: float) -> float:
        """Predicted latency in seconds of a request with ``output`` tokens at this server."""
        load = (server.running_requests or 0) + (server.queued_requests or 0)
        ahead = load + self.credit_weight * server.requests_since_report
        # Before any throughput is known, one token a second keeps the credit ordering servers by their load alone.
        drain_s = ahead * mean_output / self._peak_tps.get(server.server_id, 1.0)
        return (server.mean_ttft_s or 0.0) + (server.mean_tpot_s or 0.0) * output + self.queue_weight * drain_s

    def on_report(self, server: ServerView, now: float) -> None:
        throughput = server.throughput_tps
        if throughput and throughput > self._peak_tps.get(server.server_id, 0.0):
            self._peak_tps[server.server_id] = throughput
