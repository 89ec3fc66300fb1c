"""SMG's cache-aware routing: to where the prompt's beginning was sent before, unless that makes the load uneven."""

import random
from collections.abc import Callable

from .errors import PolicyError
from .least_loaded import in_flight_requests, least
from .parameters import Span
from .prefix_memory import PrefixAware, PrefixMemory
from .views import PREFIX_BLOCK_TOKENS, ClusterView, RequestView, Route, ServerView

__all__ = ["CacheAware", "CacheAwareSmallestTree"]


class CacheAware(PrefixAware):
    """While loads are uneven, the server with the fewest requests in flight. Else, where the longest match of the
    prompt is more than ``cache_threshold`` of it, the server that was sent it (of several, the first one). Else the
    least loaded again. Loads are uneven where ``max - min`` is above ``balance_abs_threshold`` and ``max`` above
    ``balance_rel_threshold * min``.

    The router keeps its own radix tree of what it sent where, bounded a server, least recently used prompts forgotten
    first. It does not see what servers evict. Ties in load go to a random server; with ``ties: first`` to the first
    one, as in sglang-router, where it becomes a hot spot (sglang issue 32983). Where the owner may not be dispatched
    to, the longest match among the others counts.

    Helps: long prompts shared by many requests, or conversations, more of them than one server's cache holds.
    Hurts: little is shared, or one prefix has most of the traffic: its server fills up to the imbalance threshold
    before another one helps.
    """

    name = "cache_aware"
    summary = (
        "the server that was sent the longest beginning of the prompt; the least loaded if that is short or uneven"
    )
    source = "SMG / sglang-router cache_aware.rs"
    parameters = {  # noqa: RUF012
        "cache_threshold": "share of the prompt that must match for its owner to be chosen",
        "balance_abs_threshold": "difference in requests in flight from which loads may count as uneven",
        "balance_rel_threshold": "and their ratio",
        "max_tree_tokens": "tokens remembered for each server",
        "eviction_interval_s": "time between two looks at that bound",
        "ties": "which of the least loaded servers: random or first",
    }
    search = {  # noqa: RUF012
        "cache_threshold": Span(0.05, 0.95),
        "balance_abs_threshold": Span(1, 256, log=True),
        "balance_rel_threshold": Span(1.05, 4, log=True),
    }

    def __init__(
        self,
        rng: random.Random,
        cache_threshold: float = 0.3,
        balance_abs_threshold: int = 64,
        balance_rel_threshold: float = 1.5,
        max_tree_tokens: int = 1 << 26,
        eviction_interval_s: float = 60.0,
        ties: str = "random",
    ) -> None:
        super().__init__(rng, PrefixMemory(max_tree_tokens, every_s=eviction_interval_s))
        if ties not in ("random", "first"):
            raise PolicyError(f"policy {self.name}: ties must be random or first, not {ties!r}")
        self._first_of_ties = ties == "first"
        self.cache_threshold = cache_threshold
        self.balance_abs_threshold = balance_abs_threshold
        self.balance_rel_threshold = balance_rel_threshold

    def choose(self, request: RequestView, cluster: ClusterView) -> Route:
        servers = cluster.servers
        loads = [server.in_flight_requests for server in servers]
        low, high = min(loads), max(loads)
        if high - low > self.balance_abs_threshold and high > self.balance_rel_threshold * low:
            return Route(self.least(cluster, in_flight_requests).server_id)
        found = self.memory.tree.longest(request.prefix_hashes, {server.server_id for server in servers})
        if found and found[1] * PREFIX_BLOCK_TOKENS > self.cache_threshold * request.prompt_tokens:
            return Route(found[0])
        return Route(self.on_miss(cluster).server_id)

    def on_miss(self, cluster: ClusterView) -> ServerView:
        """Where a prompt goes that nobody has."""
        return self.least(cluster, in_flight_requests)

    def least(self, cluster: ClusterView, load: Callable[[ServerView], float]) -> ServerView:
        """The server of the least load, or one of them."""
        if self._first_of_ties:
            return min(cluster.servers, key=load)
        return least(cluster.servers, load, self.rng)


class CacheAwareSmallestTree(CacheAware):
    """As ``cache_aware``, but a prompt that nobody has goes to the server with the least in its tree, whatever its
    load.

    Helps: caches fill evenly, where prompts come often enough to stay in them.
    Hurts: prompts of different answer lengths: tokens in a tree say nothing of the work that is under way.
    """

    name = "cache_aware_smallest_tree"
    summary = "as cache_aware, but a prompt that nobody has goes to the server with the smallest tree"
    source = "sglang-router cache_aware.rs, before sglang PR 14650"

    def on_miss(self, cluster: ClusterView) -> ServerView:
        sizes = self.memory.tree.sizes
        return self.least(cluster, lambda server: sizes[server.server_id])
