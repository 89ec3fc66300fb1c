"""Servers for ranges of prompt lengths."""

import random
from bisect import bisect_left
from collections import defaultdict, deque

from .base import Policy
from .least_loaded import least
from .parameters import Span
from .views import ClusterView, RequestView, Route, ServerView

__all__ = ["Bucket"]

_FIRST_RANGES_TOKENS = 4096


class Bucket(Policy):
    """Each server has a range of prompt lengths, cut so that every range got an equal share of the last interval's
    prompt tokens. While the tokens sent are uneven (``max - min`` above ``balance_abs_threshold`` and ``max`` above
    ``balance_rel_threshold * min``, over one interval), the server that was sent fewest.

    The first ranges divide 4,096 tokens evenly. They are cut anew every ``adjust_interval_s``, if the tokens a server
    have at least doubled or halved since the last time. SMG counts characters; here it is tokens.

    Helps: short prompts beside long ones: they do not wait behind their prefill.
    Hurts: prefixes are scattered, and nothing looks at how long answers are.
    """

    name = "bucket"
    summary = "each server has a range of prompt lengths, re-cut as the traffic changes"
    source = "SMG bucket.rs"
    parameters = {  # noqa: RUF012
        "balance_abs_threshold": "difference in tokens sent from which servers may count as uneven",
        "balance_rel_threshold": "and their ratio",
        "adjust_interval_s": "time between two cuts, and over which tokens count",
    }
    search = {  # noqa: RUF012
        "balance_abs_threshold": Span(1, 1024, log=True),
        "balance_rel_threshold": Span(1.05, 4, log=True),
        "adjust_interval_s": Span(1, 30, log=True),
    }

    def __init__(
        self,
        rng: random.Random,
        balance_abs_threshold: int = 64,
        balance_rel_threshold: float = 1.5,
        adjust_interval_s: float = 5.0,
    ) -> None:
        super().__init__(rng)
        self.balance_abs_threshold = balance_abs_threshold
        self.balance_rel_threshold = balance_rel_threshold
        self.adjust_interval_s = adjust_interval_s
        self._sent: deque[tuple[float, int, str]] = deque()
        self._tokens: defaultdict[str, int] = defaultdict(int)
        self._cut_at = adjust_interval_s
        self._share = 0
        self._owners: list[str] = []
        self._ends: list[int] = []

    def choose(self, request: RequestView, cluster: ClusterView) -> Route:
        servers, tokens = cluster.servers, self._tokens
        self._forget(cluster.now)
        self._keep_ranges(cluster)
        loads = [tokens[server.server_id] for server in servers]
        low, high = min(loads), max(loads)
        if not (high - low > self.balance_abs_threshold and high > self.balance_rel_threshold * low):
            owner = self._owners[bisect_left(self._ends, request.prompt_tokens)]
            for server in servers:
                if server.server_id == owner:
                    return Route(owner)
        return Route(least(servers, lambda server: tokens[server.server_id], self.rng).server_id)

    def _keep_ranges(self, cluster: ClusterView) -> None:
        """Cut the ranges when there is a server without one, and when it is time to."""
        if len(cluster.servers) > len(self._owners) or cluster.servers[-1].server_id not in self._owners:
            known = set(self._owners)
            self._owners += [server.server_id for server in cluster.servers if server.server_id not in known]
            count = len(self._owners)
            self._ends = [(index + 1) * _FIRST_RANGES_TOKENS // count - 1 for index in range(count - 1)]
        if cluster.now < self._cut_at or not self._sent:
            return
        self._cut_at = cluster.now + self.adjust_interval_s
        lengths = sorted(length for _, length, _ in self._sent)
        share = sum(lengths) // len(self._owners)
        if self._share and self._share <= 2 * share and share <= 2 * self._share:
            return
        self._share = share
        self._ends = _cut(lengths, share, len(self._owners))

    def _forget(self, now: float) -> None:
        while self._sent and self._sent[0][0] < now - self.adjust_interval_s:
            _, length, server_id = self._sent.popleft()
            self._tokens[server_id] -= length

    def on_dispatch(self, request: RequestView, server: ServerView, now: float) -> None:
        self._sent.append((now, request.prompt_tokens, server.server_id))
        self._tokens[server.server_id] += request.prompt_tokens


def _cut(lengths: list[int], share: int, count: int) -> list[int]:
    """The last length of each of ``count`` ranges but the last: each takes of the sorted ``lengths`` until they add up
    to ``share``; one that finds none, or none longer than the range before it ends, is ``share`` tokens wide."""
    ends: list[int] = []
    waiting = iter(lengths)
    begin = 0
    for _ in range(count - 1):
        taken = length = 0
        for length in waiting:
            taken += length
            if taken >= share:
                break
        ends.append(length if taken >= share and length > begin else begin + share)
        begin = ends[-1] + 1
    return ends
