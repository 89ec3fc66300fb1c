"""llm-d's scheduler: weighted scorers, and servers for ranges of context lengths."""

import random
from collections.abc import Mapping, Sequence

from .errors import PolicyError, did_you_mean
from .least_loaded import least
from .llmd_scorers import SCORERS
from .parameters import Span
from .prefix_memory import PrefixAware, PrefixMemory
from .views import ClusterView, RequestView, Route, ServerView

__all__ = ["LlmD"]

_DEFAULT_SCORERS = {"prefix": 3.0, "queue": 2.0, "kv": 2.0}


class LlmD(PrefixAware):
    """The greatest sum of ``weight * mark`` over the scorers that are named, each of which marks servers from 0 to 1.

    - prefix: share of the prompt's blocks that are cached there
    - queue, running: reported requests, 1 for the fewest, 0 for the most, 1 if all are equal
    - kv: share of KV tokens free, as reported
    - load_aware: 0.5 without a reported queue, falling to 0 at 128 waiting requests
    - active_request, token_load: requests or tokens in flight, as the router counts them
    - session: 1 for the server of the session's last request
    - no_hit_lru: a prompt that nobody has goes to the server that got none such for longest
    - context_length: how well the server's range in ``context_ranges`` suits the prompt; 0.5 for servers without one

    In a scenario: ``{name: llm_d, params: {scorers: {prefix: 3, queue: 2, kv: 2}}}``. llm-d asks servers every 50 ms
    (``router.report_interval_s``) and remembers 31,250 blocks of 16 tokens for each.

    Helps: as a composition: prefixes, memory and queues in the proportion that the traffic needs.
    Hurts: the default scorers look at reports alone. Between two of them nothing that was sent is seen, and all that
    has no prefix goes to one server (llm-d-router issues 298, 355): add active_request or token_load.
    """

    name = "llm_d"
    summary = "the greatest weighted sum of scorers: by default cached prefix 3, queue 2, free KV 2"
    source = "llm-d-router config/loader/defaults.go, plugins/scheduling/scorer"
    parameters = {  # noqa: RUF012
        "scorers": f"weight of each scorer, of {', '.join(SCORERS)} and context_length",
        "context_ranges": "for context_length: each server's least and most prompt tokens, by its id",
        "cache_tokens": "tokens remembered for each server",
    }
    search = {  # noqa: RUF012
        "scorers": {"prefix": Span(0.1, 10, log=True), "queue": Span(0.1, 10, log=True), "kv": Span(0.1, 10, log=True)},
    }
    needs = frozenset()

    def __init__(
        self,
        rng: random.Random,
        scorers: Mapping[str, float] = _DEFAULT_SCORERS,
        context_ranges: Mapping[str, Sequence[int]] = {},
        cache_tokens: int = 500_000,
    ) -> None:
        super().__init__(rng, PrefixMemory(cache_tokens))
        self._ranges = context_ranges
        weights = dict(scorers)
        for name, weight in weights.items():
            if isinstance(weight, bool) or not isinstance(weight, int | float):
                raise PolicyError(f"policy {self.name}: the weight of scorer {name!r} must be a number, not {weight!r}")
        self._context_weight = weights.pop("context_length", 0.0)
        for name in weights:
            if name not in SCORERS:
                hint = did_you_mean(name, SCORERS)
                raise PolicyError(f"policy {self.name}: no scorer {name!r}; there are {', '.join(SCORERS)}{hint}")
        self._scorers = [(SCORERS[name](), weight) for name, weight in weights.items()]
        self.needs = frozenset().union(*(scorer.needs for scorer, _ in self._scorers))
        self._remembers = "prefix_hashes" in self.needs

    def choose(self, request: RequestView, cluster: ClusterView) -> Route:
        servers = cluster.servers
        cached = self.memory.cached_blocks(request, cluster.now) if self._remembers else {}
        totals = [0.0] * len(servers)
        for scorer, weight in self._scorers:
            marks = scorer.score(request, servers, cached)
            totals = [total + weight * mark for total, mark in zip(totals, marks, strict=True)]
        if self._context_weight:
            marks = [self._suits(request.prompt_tokens, server) for server in servers]
            totals = [total + self._context_weight * mark for total, mark in zip(totals, marks, strict=True)]
        costs = {server.server_id: -total for server, total in zip(servers, totals, strict=True)}
        return Route(least(servers, lambda server: costs[server.server_id], self.rng).server_id, costs)

    def _suits(self, tokens: int, server: ServerView) -> float:
        """The context_length mark: above 0.3 within the server's range, the higher the narrower it is and the more room
        is left in it; below 0.3 outside."""
        if server.server_id not in self._ranges:
            return 0.5
        low, high = self._ranges[server.server_id]
        if not low <= tokens <= high:
            return 0.3 / (1 + max(tokens - high, low - tokens) / 1000)
        if high == low:
            return 1.0
        return 0.3 + 0.7 * (0.7 / (1 + (high - low) / 10_000) + 0.3 * (high - tokens) / (high - low))

    def on_dispatch(self, request: RequestView, server: ServerView, now: float) -> None:
        cached = self.memory.cached_blocks(request, now) if self._remembers else {}
        for scorer, _ in self._scorers:
            scorer.on_dispatch(request, server.server_id, cached)
        if self._remembers:
            super().on_dispatch(request, server, now)
