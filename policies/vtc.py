"""Fairness between clients by virtual token counters."""

import random
from bisect import bisect_left, insort
from collections import deque

from .base import Policy
from .parameters import Span
from .views import ClusterView, RequestView, Route, ServerView

__all__ = ["Vtc"]


class Vtc(Policy):
    """Clients that used few tokens go to the first servers, those that used many to the last ones.

        fairness_weight * abs(index - min(used / bucket, servers - 1))
            + utilization_weight * min(in flight / max_load, 1) + up to 0.1 at random

    is least, where ``used`` is what the client's requests of the last ``window_s`` used: ``input_weight * prompt +
    output_weight * expected output``, and ``bucket`` half the sum of the least and the most that a client used, at
    least ``min_bucket``. A client is a session; a request without one goes to a random server.

    Helps: a few heavy clients among many light ones: they end up on servers of their own.
    Hurts: throughput: servers are not alike to it, so that the load follows who asks, not who has room.
    """

    name = "vtc"
    summary = "servers by the tokens that the client used of late, and by their load"
    source = "AIBrix vtc/vtc_basic.go; after VTC, OSDI 2024 (arXiv 2401.00588)"
    parameters = {  # noqa: RUF012
        "fairness_weight": "weight of the distance from the client's place among the servers",
        "utilization_weight": "weight of the server's load",
        "max_load": "requests in flight that are full load",
        "input_weight": "what a prompt token counts as",
        "output_weight": "what an answer's token counts as",
        "window_s": "tokens used within it count",
        "min_bucket": "tokens from one server to the next, at least",
    }
    search = {  # noqa: RUF012
        "fairness_weight": Span(0, 4),
        "max_load": Span(10, 400, log=True),
    }
    needs = frozenset({"expected_output_tokens"})

    def __init__(
        self,
        rng: random.Random,
        fairness_weight: float = 1.0,
        utilization_weight: float = 1.0,
        max_load: float = 100.0,
        input_weight: float = 1.0,
        output_weight: float = 2.0,
        window_s: float = 300.0,
        min_bucket: float = 1000.0,
    ) -> None:
        super().__init__(rng)
        self.fairness_weight = fairness_weight
        self.utilization_weight = utilization_weight
        self.max_load = max_load
        self.input_weight = input_weight
        self.output_weight = output_weight
        self.window_s = window_s
        self.min_bucket = min_bucket
        self._used: dict[int, float] = {}
        self._totals: list[float] = []
        self._log: deque[tuple[float, int, float]] = deque()

    def choose(self, request: RequestView, cluster: ClusterView) -> Route:
        servers, client, draw = cluster.servers, request.session_id, self.rng.random
        if client is None:
            return Route(servers[int(draw() * len(servers))].server_id)
        self._forget(cluster.now)
        place = self.place(client, len(servers))
        scores = [
            self.fairness_weight * abs(index - place)
            + self.utilization_weight * min(server.in_flight_requests / self.max_load, 1.0)
            + draw() * 0.1
            for index, server in enumerate(servers)
        ]
        return Route(servers[scores.index(min(scores))].server_id)

    def place(self, client: int, servers: int) -> float:
        """Where the client belongs, from 0 for the first server to ``servers - 1`` for the last."""
        extremes = (self._totals[0] + self._totals[-1]) / 2 if self._totals else 0.0
        return float(min(self._used.get(client, 0.0) / max(self.min_bucket, extremes), servers - 1))

    def on_dispatch(self, request: RequestView, server: ServerView, now: float) -> None:
        client, expected = request.session_id, request.expected_output_tokens
        if client is None:
            return
        assert expected is not None  # refused at the start: see needs
        tokens = self.input_weight * request.prompt_tokens + self.output_weight * expected
        self._log.append((now, client, tokens))
        self._set(client, self._used.get(client, 0.0) + tokens)

    def _forget(self, now: float) -> None:
        while self._log and self._log[0][0] < now - self.window_s:
            _, client, tokens = self._log.popleft()
            self._set(client, self._used[client] - tokens)

    def _set(self, client: int, used: float) -> None:
        """Change what a client used; ``_totals`` has every client's, sorted."""
        if client in self._used:
            del self._totals[bisect_left(self._totals, self._used[client])]
        if used > 1e-6:
            self._used[client] = used
            insort(self._totals, used)
        else:
            self._used.pop(client, None)
