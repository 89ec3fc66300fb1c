"""llm-d's scorers: each gives every server a mark from 0 to 1, the higher the better."""

from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Mapping, Sequence

from .least_loaded import kv_use
from .views import RequestView, ServerView

__all__ = ["SCORERS", "Scorer"]

Cached = Mapping[str, int]
"""Blocks of the prompt that servers are believed to have cached; without those that have none."""


class Scorer(ABC):
    """One of the marks that are added up."""

    needs: frozenset[str] = frozenset()
    summary: str

    @abstractmethod
    def score(self, request: RequestView, servers: Sequence[ServerView], cached: Cached) -> list[float]:
        """A mark for each server."""

    def on_dispatch(self, request: RequestView, server_id: str, cached: Cached) -> None:
        """The request goes there; ``cached`` as it was before."""


class PrefixScorer(Scorer):
    needs = frozenset({"prefix_hashes"})
    summary = "share of the prompt's blocks that are cached there"

    def score(self, request: RequestView, servers: Sequence[ServerView], cached: Cached) -> list[float]:
        total = len(request.prefix_hashes) or 1
        return [cached.get(server.server_id, 0) / total for server in servers]


class QueueScorer(Scorer):
    needs = frozenset({"queued_requests"})
    summary = "reported queue: 1 for the shortest, 0 for the longest"

    def score(self, request: RequestView, servers: Sequence[ServerView], cached: Cached) -> list[float]:
        return _from_most_to_least([server.queued_requests or 0 for server in servers])


class RunningScorer(Scorer):
    needs = frozenset({"running_requests"})
    summary = "reported running requests: 1 for the fewest, 0 for the most"

    def score(self, request: RequestView, servers: Sequence[ServerView], cached: Cached) -> list[float]:
        return _from_most_to_least([server.running_requests or 0 for server in servers])


class KvScorer(Scorer):
    needs = frozenset({"kv_tokens_used", "kv_tokens_capacity"})
    summary = "share of KV tokens free, as reported"

    def score(self, request: RequestView, servers: Sequence[ServerView], cached: Cached) -> list[float]:
        return [1 - kv_use(server) for server in servers]


class LoadAwareScorer(Scorer):
    needs = frozenset({"queued_requests"})
    summary = "0.5 without a reported queue, falling to 0 at 128 waiting requests"

    def score(self, request: RequestView, servers: Sequence[ServerView], cached: Cached) -> list[float]:
        return [0.5 * (1 - min(server.queued_requests or 0, 128) / 128) for server in servers]


class ActiveRequestScorer(Scorer):
    summary = "requests in flight: 1 for none, 0 for the most"

    def score(self, request: RequestView, servers: Sequence[ServerView], cached: Cached) -> list[float]:
        most = max([server.in_flight_requests for server in servers]) or 1
        return [1 - server.in_flight_requests / most for server in servers]


class TokenLoadScorer(Scorer):
    needs = frozenset({"expected_output_tokens"})
    summary = "tokens in flight with this request's: 1 for none, 0 from 4,194,304 on"

    def score(self, request: RequestView, servers: Sequence[ServerView], cached: Cached) -> list[float]:
        own, full = request.prompt_tokens, 4_194_304
        return [1 - min(server.in_flight_tokens + own, full) / full for server in servers]


class SessionScorer(Scorer):
    summary = "1 for the server of the session's last request, 0 for others"

    _most_sessions = 100_000

    def __init__(self) -> None:
        self._homes: OrderedDict[int, str] = OrderedDict()

    def score(self, request: RequestView, servers: Sequence[ServerView], cached: Cached) -> list[float]:
        home = self._homes.get(request.session_id) if request.session_id is not None else None
        return [float(server.server_id == home) for server in servers]

    def on_dispatch(self, request: RequestView, server_id: str, cached: Cached) -> None:
        if request.session_id is not None:
            self._homes[request.session_id] = server_id
            self._homes.move_to_end(request.session_id)
            if len(self._homes) > self._most_sessions:
                self._homes.popitem(last=False)


class NoHitLruScorer(Scorer):
    """Spreads what nobody has, so that caches grow evenly."""

    needs = frozenset({"prefix_hashes"})
    summary = "a prompt that nobody has: from 1 for the server that got none such for longest to 0; others: 0.5"

    def __init__(self) -> None:
        self._order: OrderedDict[str, None] = OrderedDict()

    def score(self, request: RequestView, servers: Sequence[ServerView], cached: Cached) -> list[float]:
        if any(server.server_id in cached for server in servers):
            return [0.5] * len(servers)
        never = [server.server_id for server in servers if server.server_id not in self._order]
        rank = {server_id: place for place, server_id in enumerate([*never, *self._order])}
        last = max(len(servers) - 1, 1)
        return [max(1 - rank[server.server_id] / last, 0.0) for server in servers]

    def on_dispatch(self, request: RequestView, server_id: str, cached: Cached) -> None:
        if not cached:
            self._order[server_id] = None
            self._order.move_to_end(server_id)


SCORERS: dict[str, type[Scorer]] = {
    "prefix": PrefixScorer,
    "queue": QueueScorer,
    "kv": KvScorer,
    "running": RunningScorer,
    "load_aware": LoadAwareScorer,
    "active_request": ActiveRequestScorer,
    "token_load": TokenLoadScorer,
    "session": SessionScorer,
    "no_hit_lru": NoHitLruScorer,
}


def _from_most_to_least(counts: list[int]) -> list[float]:
    low, high = min(counts), max(counts)
    if high == low:
        return [1.0] * len(counts)
    return [(high - count) / (high - low) for count in counts]
