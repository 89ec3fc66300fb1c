"""A cap that holds the time to first token, as TCP holds a path's queue."""

import math

from policies.errors import PolicyError
from policies.parameters import Span
from policies.views import RequestView, ServerView

from .adaptive import BOUNDS, BOUNDS_SEARCH, Adaptive

__all__ = ["AimdTtft"]


class AimdTtft(Adaptive):
    """Additive increase, multiplicative decrease of each server's cap. The signal is the server's TTFT: from the
    dispatch of a request to its first token at the router (``server_ttft_s``; without the wait in the router's queue,
    which a lower cap makes longer). Every ``interval_s`` the ``quantile`` (nearest rank) is taken of the first tokens
    that came in that interval:

    - above ``target_s``: ``cap = floor(cap * decrease)``;
    - at or below it, and the cap was met (at the time of one of these tokens as many were in flight as it allows):
      ``cap = cap + increase``;
    - otherwise, and where no first token came, the cap stays.

    First tokens of requests that were sent before the last cut do not count: they tell of the cap before it, and one
    overload would be answered twice (TCP cuts once a window).

    Helps: servers that others use too or whose speed is not known: the queue is held at the router, where it can be
    put in order and go to any server.
    Hurts: long prompts, whose TTFT is prefill and not queue: no cap lowers it, and throughput is lost for nothing. The
    time to first token from arrival gets worse where the router's queue grows.
    """

    name = "aimd_ttft"
    summary = "raises caps by steps and cuts them by a factor, to hold a target for the servers' TTFT"
    source = "Chiu and Jain 1989 (AIMD); TCP congestion avoidance, RFC 5681, and RFC 7661 (an unmet cap is not raised)"
    parameters = {  # noqa: RUF012
        "target_s": "bound for the servers' TTFT",
        "quantile": "share of an interval's first tokens that must keep it",
        "increase": "added to a cap that kept it",
        "decrease": "factor of a cap that did not",
        **BOUNDS,
    }
    search = {  # noqa: RUF012
        "target_s": Span(0.02, 5.0, log=True),
        "quantile": Span(0.5, 0.99),
        "increase": Span(1, 16, log=True),
        "decrease": Span(0.3, 0.95),
        **BOUNDS_SEARCH,
    }

    def __init__(
        self,
        target_s: float = 0.5,
        quantile: float = 0.9,
        increase: int = 1,
        decrease: float = 0.5,
        interval_s: float = 5.0,
        min_cap: int = 1,
        max_cap: int = 256,
    ) -> None:
        super().__init__(interval_s, min_cap, max_cap)
        if not target_s > 0:
            raise PolicyError(f"aimd_ttft: target_s must be above 0, not {target_s:g}")
        if not 0 < quantile <= 1:
            raise PolicyError(f"aimd_ttft: quantile must be above 0 and at most 1, not {quantile:g}")
        if increase < 1 or not 0 < decrease < 1:
            raise PolicyError(
                f"aimd_ttft: increase must be at least 1 and decrease between 0 and 1, not {increase} and {decrease:g}"
            )
        self._target_s = target_s
        self._quantile = quantile
        self._increase = increase
        self._decrease = decrease
        self._waits_s: dict[str, list[float]] = {}
        self._met: set[str] = set()
        self._cut_at: dict[str, float] = {}

    def on_first_token(self, request: RequestView, server: ServerView, dispatched_at: float, now: float) -> None:
        """See ``Controller``."""
        server_id = server.server_id
        if dispatched_at < self._cut_at.get(server_id, 0.0):
            return
        self._waits_s.setdefault(server_id, []).append(now - dispatched_at)
        cap = self.cap_of(server_id)
        if cap is not None and server.in_flight_requests >= cap:
            self._met.add(server_id)

    def next_cap(self, server: ServerView, cap: int, now: float) -> int:
        """See ``Adaptive``."""
        server_id = server.server_id
        waits_s, met = self._waits_s.pop(server_id, []), server_id in self._met
        self._met.discard(server_id)
        if not waits_s:
            return cap
        rank = math.ceil(self._quantile * len(waits_s))
        if sorted(waits_s)[rank - 1] > self._target_s:
            self._cut_at[server_id] = now
            return int(cap * self._decrease)
        return cap + self._increase if met else cap
