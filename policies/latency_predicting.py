"""llm-d's routing by predicted latency and what is left to the service level objective."""

import random
from collections import defaultdict
from collections.abc import Sequence
from typing import NamedTuple

from .errors import PolicyError
from .online_line import OnlineLine
from .parameters import Span
from .prefix_memory import PrefixAware, PrefixMemory
from .views import PREFIX_BLOCK_TOKENS, ClusterView, RequestView, Route, ServerView

__all__ = ["Headroom", "LatencyPredicting"]


class Headroom(NamedTuple):
    """What a bound leaves of a server's predicted latencies, seconds; negative where it would be broken."""

    server: ServerView
    ttft_s: float
    tpot_s: float


class _Known:
    """What is known of a server: its lines, the uncached prompt tokens that wait there for their first token, and the
    mean TPOT that it reported last."""

    __slots__ = ("ahead", "last_tpot_s", "tpot", "ttft")

    def __init__(self) -> None:
        self.ttft = OnlineLine()
        self.tpot = OnlineLine()
        self.ahead = 0
        self.last_tpot_s: float | None = None


class LatencyPredicting(PrefixAware):
    """Of the servers predicted to meet the request's SLO, the one with ``least`` headroom, so that others stay free (or
    with ``most``). Headroom is ``ttft_weight * TTFT + tpot_weight * TPOT``, each scaled to its range over the servers.
    A share of ``explore_share`` of the requests goes to servers not predicted to meet it, to measure them again.
    Where none meets it, an idle one; else one that breaks the TPOT alone, the TTFT alone, or both, the nearest.

    Without a bound all headroom is negative, and the least predicted latency wins. TTFT is predicted by a line through
    a server's measured ones, over the uncached prompt tokens ahead; TPOT over the requests running when it was
    reported. llm-d asks a model that is trained beside it. A server that has not served yet counts as free of delay.

    Helps: bounds that some servers can meet and others not: mixed GPUs, long prompts, caches worth their distance.
    Hurts: no bounds, or bounds far away: ``least`` fills servers up to them.
    """

    name = "latency_predicting"
    summary = "predicted to meet the SLO with least headroom, else the nearest to it"
    source = "llm-d-router scorer/latency, filter/sloheadroomtier"
    parameters = {  # noqa: RUF012
        "ttft_weight": "weight of the TTFT's headroom",
        "tpot_weight": "weight of the TPOT's",
        "strategy": "least or most: which headroom is preferred among servers that meet the SLO",
        "explore_share": "requests sent to servers that are not predicted to meet it, while others are",
        "cache_tokens": "tokens remembered for each server",
    }
    search = {  # noqa: RUF012
        "ttft_weight": Span(0.05, 4, log=True),
        "strategy": ("least", "most"),
        "explore_share": Span(0, 0.1),
    }
    needs = frozenset({"prefix_hashes", "running_requests", "mean_tpot_s"})

    def __init__(
        self,
        rng: random.Random,
        ttft_weight: float = 0.8,
        tpot_weight: float = 0.2,
        strategy: str = "least",
        explore_share: float = 0.01,
        cache_tokens: int = 500_000,
    ) -> None:
        super().__init__(rng, PrefixMemory(cache_tokens))
        if strategy not in ("least", "most"):
            raise PolicyError(f"policy {self.name}: strategy must be least or most, not {strategy!r}")
        self.ttft_weight = ttft_weight
        self.tpot_weight = tpot_weight
        self.strategy = strategy
        self.explore_share = explore_share
        self._known: defaultdict[str, _Known] = defaultdict(_Known)
        self._sent: dict[int, tuple[float, int, int]] = {}

    def choose(self, request: RequestView, cluster: ClusterView) -> Route:
        rooms = self.headrooms(request, cluster)
        meets = [room for room in rooms if room.ttft_s >= 0 and room.tpot_s >= 0]
        if meets and (len(meets) == len(rooms) or self.rng.random() >= self.explore_share):
            return self._pick(meets, prefers_least=self.strategy == "least")
        breaks = [room for room in rooms if room.ttft_s < 0 or room.tpot_s < 0]
        return self._pick(_least_broken(breaks), prefers_least=True)

    def headrooms(self, request: RequestView, cluster: ClusterView) -> list[Headroom]:
        """The bounds, or 0 where there is none, less the predictions for each server."""
        cached = self.memory.cached_blocks(request, cluster.now)
        ttft_s, tpot_s = request.slo.get("ttft_s", 0.0), request.slo.get("tpot_s", 0.0)
        prompt, rooms = request.prompt_tokens, []
        for server in cluster.servers:
            server_id = server.server_id
            known = self._known[server_id]
            ahead = known.ahead + prompt - PREFIX_BLOCK_TOKENS * cached.get(server_id, 0)
            # The report's requests, and those that it cannot have counted.
            running = (server.running_requests or 0) + server.requests_since_report
            rooms.append(Headroom(server, ttft_s - known.ttft.at(ahead), tpot_s - known.tpot.at(running)))
        return rooms

    def _pick(self, rooms: Sequence[Headroom], *, prefers_least: bool) -> Route:
        """By the weighted distance from the bounds, in hundredths of the range, as llm-d rounds it."""
        ttfts = _scaled([abs(room.ttft_s) for room in rooms])
        tpots = _scaled([abs(room.tpot_s) for room in rooms])
        weights = self.ttft_weight, self.tpot_weight
        if ttfts is None or tpots is None:
            weights = (0.0, 1.0) if ttfts is None and tpots is not None else (1.0, 0.0)
        flat = [0.5] * len(rooms)
        parts = zip(ttfts or flat, tpots or flat, strict=True)
        sign = 1 if prefers_least else -1
        total = sum(weights) or 1.0
        of_ttft, of_tpot = 100 * weights[0] / total, 100 * weights[1] / total
        distances = [sign * int(of_ttft * ttft + of_tpot * tpot) for ttft, tpot in parts]
        least = min(distances)
        nearest = [room for room, distance in zip(rooms, distances, strict=True) if distance == least]
        return Route(nearest[int(self.rng.random() * len(nearest))].server.server_id)

    def on_dispatch(self, request: RequestView, server: ServerView, now: float) -> None:
        server_id = server.server_id
        cached = self.memory.cached_blocks(request, now).get(server_id, 0)
        uncached = request.prompt_tokens - PREFIX_BLOCK_TOKENS * cached
        known = self._known[server_id]
        known.ahead += uncached
        self._sent[request.request_id] = (now, uncached, known.ahead)
        super().on_dispatch(request, server, now)

    def on_first_token(self, request: RequestView, server: ServerView, now: float) -> None:
        sent_at, uncached, ahead = self._sent.pop(request.request_id)
        known = self._known[server.server_id]
        known.ahead -= uncached
        known.ttft.saw(ahead, now - sent_at)

    def on_finish(self, request: RequestView, server: ServerView, now: float) -> None:
        if sent := self._sent.pop(request.request_id, None):
            self._known[server.server_id].ahead -= sent[1]

    def on_report(self, server: ServerView, now: float) -> None:
        tpot_s, known = server.mean_tpot_s, self._known[server.server_id]
        # A server where nothing has ended since repeats its last mean, which says nothing of those that run now.
        if tpot_s is not None and server.running_requests and tpot_s != known.last_tpot_s:
            known.last_tpot_s = tpot_s
            known.tpot.saw(server.running_requests, tpot_s)


def _least_broken(rooms: Sequence[Headroom]) -> Sequence[Headroom]:
    idle = [room for room in rooms if not room.server.in_flight_requests]
    only_tpot = [room for room in rooms if room.ttft_s >= 0]
    only_ttft = [room for room in rooms if room.tpot_s >= 0]
    return idle or only_tpot or only_ttft or rooms


def _scaled(values: list[float]) -> list[float] | None:
    """From 0 for the least to 1 for the most; None where all are equal."""
    low, high = min(values), max(values)
    if high - low <= 1e-9:
        return None
    return [(value - low) / (high - low) for value in values]
