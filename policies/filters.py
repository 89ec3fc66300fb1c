"""Filters: policies that narrow the servers down, and leave the choice among those to another policy."""

import random
from collections import defaultdict
from collections.abc import Mapping

from .online_line import OnlineLine
from .parameters import Span
from .prefix_memory import PrefixMemory
from .views import ClusterView, Decision, RequestView, ServerView
from .wrapping import Wrapping

__all__ = ["LocalFirst", "PrefixAffinity"]


class PrefixAffinity(Wrapping):
    """Only servers that hold at least ``threshold`` of the prompt's blocks, where there are any; ``policy`` chooses
    among them. All servers are kept for a share of ``explore`` of the requests, and where the least time to first token
    among the holders is more than ``max_ttft_penalty_s`` above the least among the others: tokens in flight over
    ``prefill_tps``.

    Helps: conversations and long documents: affinity first, and load balance among all who have the cache.
    Hurts: a ``prefill_tps`` that is not the servers': the penalty breaks too late, or all the time.
    """

    name = "prefix_affinity"
    summary = "keeps servers that hold most of the prompt, unless they are far slower; another policy chooses"
    source = "llm-d-router filter/prefixcacheaffinity"
    parameters = {  # noqa: RUF012
        "policy": "who chooses among the servers that are left",
        "params": "its parameters",
        "threshold": "share of the prompt's blocks that a server must hold to be kept",
        "explore": "share of requests for which all servers are kept",
        "max_ttft_penalty_s": "how much later the first token may be there; 0: however late",
        "prefill_tps": "tokens/s that a server prefills at most",
        "cache_tokens": "tokens remembered for each server",
    }
    search = {  # noqa: RUF012
        "threshold": Span(0.2, 1),
        "explore": Span(0, 0.2),
        "max_ttft_penalty_s": Span(0.1, 20, log=True),
    }
    needs = frozenset({"prefix_hashes", "expected_output_tokens"})

    def __init__(
        self,
        rng: random.Random,
        policy: str = "least_request",
        params: Mapping[str, object] = {},
        threshold: float = 0.8,
        explore: float = 0.01,
        max_ttft_penalty_s: float = 5.0,
        prefill_tps: float = 15_928.0,
        cache_tokens: int = 500_000,
    ) -> None:
        super().__init__(rng, policy, params)
        self.threshold = threshold
        self.explore = explore
        self.max_ttft_penalty_s = max_ttft_penalty_s
        self.prefill_tps = prefill_tps
        self.memory = PrefixMemory(cache_tokens)

    def choose(self, request: RequestView, cluster: ClusterView) -> Decision:
        wanted = self.threshold * len(request.prefix_hashes)
        if wanted and self.rng.random() >= self.explore:
            cached = self.memory.cached_blocks(request, cluster.now)
            holders = [server for server in cluster.servers if cached.get(server.server_id, 0) >= wanted]
            if holders and not self._too_slow(holders, cluster):
                cluster = cluster._replace(servers=holders)
        return self.inner.choose(request, cluster)

    def _too_slow(self, holders: list[ServerView], cluster: ClusterView) -> bool:
        if not self.max_ttft_penalty_s or len(holders) == len(cluster.servers):
            return False
        ids = {server.server_id for server in holders}
        others = min([server.in_flight_tokens for server in cluster.servers if server.server_id not in ids])
        least = min([server.in_flight_tokens for server in holders])
        return (least - others) / self.prefill_tps > self.max_ttft_penalty_s

    def on_dispatch(self, request: RequestView, server: ServerView, now: float) -> None:
        super().on_dispatch(request, server, now)
        self.memory.sent(request, server.server_id, now)


class LocalFirst(Wrapping):
    """Local servers, while the least time to first token predicted among them is at most ``max_wait_s``; else the
    remote ones. ``policy`` chooses among those that are left. Local servers at their cap, or down, are not there to be
    chosen.

    The prediction is a line through a server's measured times to first token, over the requests in flight there.
    A server is remote where the scenario (``servers[].remote``) or servers.yaml (``remote``) says so.

    Helps: a fleet that is paid for anyway, with somebody else's API for its peaks.
    Hurts: long peaks: the fleet stays at the bound, so that each request waits nearly ``max_wait_s`` or costs money.
    """

    name = "local_first"
    summary = "local servers while their predicted wait is bearable, else remote ones; another policy chooses"
    source = "SAGE Studio's automatic mode"
    parameters = {  # noqa: RUF012
        "policy": "who chooses among the servers that are left",
        "params": "its parameters",
        "max_wait_s": "predicted time to first token from which remote servers are used",
    }
    search = {  # noqa: RUF012
        "max_wait_s": Span(0.1, 20, log=True),
    }

    def __init__(
        self,
        rng: random.Random,
        policy: str = "least_request",
        params: Mapping[str, object] = {},
        max_wait_s: float = 2.0,
    ) -> None:
        super().__init__(rng, policy, params)
        self.max_wait_s = max_wait_s
        self._ttft: defaultdict[str, OnlineLine] = defaultdict(OnlineLine)
        self._sent: dict[int, tuple[float, int]] = {}

    def choose(self, request: RequestView, cluster: ClusterView) -> Decision:
        local = [server for server in cluster.servers if not server.remote]
        remote = [server for server in cluster.servers if server.remote]
        if local and remote:
            wait_s = min([self._ttft[s.server_id].at(s.in_flight_requests) for s in local])
            cluster = cluster._replace(servers=local if wait_s <= self.max_wait_s else remote)
        return self.inner.choose(request, cluster)

    def on_dispatch(self, request: RequestView, server: ServerView, now: float) -> None:
        super().on_dispatch(request, server, now)
        if not server.remote:
            self._sent[request.request_id] = (now, server.in_flight_requests - 1)

    def on_first_token(self, request: RequestView, server: ServerView, now: float) -> None:
        super().on_first_token(request, server, now)
        if sent := self._sent.pop(request.request_id, None):
            self._ttft[server.server_id].saw(sent[1], now - sent[0])

    def on_finish(self, request: RequestView, server: ServerView, now: float) -> None:
        super().on_finish(request, server, now)
        self._sent.pop(request.request_id, None)
