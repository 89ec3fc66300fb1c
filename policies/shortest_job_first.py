"""Shortest job first, in both of its decisions: who goes next, and where to."""

import random
from collections import defaultdict

from .base import Policy
from .least_loaded import least
from .parameters import Span
from .queue_orders import ShortestJobFirst as ShortestJobFirstOrder
from .views import ClusterView, RequestView, Route, ServerView

__all__ = ["ShortestJobFirst"]


class ShortestJobFirst(Policy):
    """Queue order: fewest expected output tokens. Placement: the server that owes the least work.

    Work is ``expected output + prompt_weight * prompt`` summed over the requests in flight there: a prompt token costs
    a fraction of a decode step. The order matters only where requests wait at the router, that is under a cap.

    Helps: mean latency under a cap, when lengths are known: short answers do not wait behind long ones.
    Hurts: long answers, which can wait without end under overload; and wrong expectations, which it trusts twice.
    """

    name = "shortest_job_first"
    summary = "shortest expected output goes next, to the server that owes the least work"
    source = "Schrage 1968 (SRPT); queue orders of Dynamo and llm-d"
    parameters = {"prompt_weight": "work of one prompt token in decode steps"}  # noqa: RUF012
    search = {  # noqa: RUF012
        "prompt_weight": Span(0.001, 0.5, log=True),
    }
    needs = frozenset({"expected_output_tokens"})
    order = ShortestJobFirstOrder

    def __init__(self, rng: random.Random, prompt_weight: float = 0.02) -> None:
        super().__init__(rng)
        self.prompt_weight = prompt_weight
        self._owed: defaultdict[str, float] = defaultdict(float)

    def _work(self, request: RequestView) -> float:
        assert request.expected_output_tokens is not None  # refused at the start: see needs
        return request.expected_output_tokens + self.prompt_weight * request.prompt_tokens

    def choose(self, request: RequestView, cluster: ClusterView) -> Route:
        owed = self._owed
        return Route(least(cluster.servers, lambda server: owed[server.server_id], self.rng).server_id)

    def on_dispatch(self, request: RequestView, server: ServerView, now: float) -> None:
        self._owed[server.server_id] += self._work(request)

    def on_finish(self, request: RequestView, server: ServerView, now: float) -> None:
        # An empty server owes exactly nothing; summed floats would leave a residue that breaks ties for ever.
        if server.in_flight_requests:
            self._owed[server.server_id] -= self._work(request)
        else:
            self._owed[server.server_id] = 0.0
