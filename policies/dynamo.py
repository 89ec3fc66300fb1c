"""NVIDIA Dynamo's KV router, and its balance of servers of different kinds."""

import random
from collections import defaultdict
from collections.abc import Sequence
from math import exp

from .active_blocks import ActiveBlocks, blocks_of
from .base import Policy
from .least_loaded import in_flight_requests, least
from .parameters import Span
from .prefix_memory import PrefixAware, PrefixMemory
from .views import PREFIX_BLOCK_TOKENS, ClusterView, RequestView, Route, ServerView

__all__ = ["DeviceAwareWeighted", "DynamoKv"]

_EXPIRY_LOOK_S = 1.0


class DynamoKv(PrefixAware):
    """Least cost, in blocks of 64 tokens:

        prefill_load_scale * max(active prefill + prompt - overlap_credit * cached, 0)
            + (active blocks + prompt's new blocks) + active_request_weight * active requests

    Active prefill is what had to be computed of the prompts sent there that have no token yet; active blocks are those
    of the prompts of all requests in flight, shared ones counted once, and new ones those that are not active. With a
    ``temperature`` the server is drawn, with weights ``exp(-cost / (temperature * (max - min)))``.

    A prefix counts as cached ``event_delay_s`` after the request's first token, when a server's cache event would
    arrive, until it was not used for ``ttl_s``. Dynamo also hears of evictions; the router does not.

    Helps: long and shared prompts at high load: it weighs what the cache saves against what already waits there.
    Hurts: short prompts and long answers: blocks are counted for prompts only, not for what is generated.
    """

    name = "dynamo_kv"
    summary = "least blocks to prefill, less what is cached, plus blocks in use"
    source = "Dynamo router-concepts.md; lib/kv-router selector.rs"
    parameters = {  # noqa: RUF012
        "overlap_credit": "how much of a cached block is saved",
        "prefill_load_scale": "weight of the prefill's part",
        "active_request_weight": "blocks that a request in flight counts as besides its own",
        "temperature": "0: the least cost; more: the more at random",
        "event_delay_s": "how long a cache event is under way",
        "ttl_s": "a prefix not used for so long is forgotten",
    }
    search = {  # noqa: RUF012
        "overlap_credit": Span(0, 1),
        "prefill_load_scale": Span(0.1, 4, log=True),
        "active_request_weight": Span(0, 64),
        "temperature": Span(0, 1),
    }

    def __init__(
        self,
        rng: random.Random,
        overlap_credit: float = 1.0,
        prefill_load_scale: float = 1.0,
        active_request_weight: float = 0.0,
        temperature: float = 0.0,
        event_delay_s: float = 0.0,
        ttl_s: float = 120.0,
    ) -> None:
        super().__init__(rng, PrefixMemory(ttl_s=ttl_s, every_s=_EXPIRY_LOOK_S, delay_s=event_delay_s))
        self.overlap_credit = overlap_credit
        self.prefill_load_scale = prefill_load_scale
        self.active_request_weight = active_request_weight
        self.temperature = temperature
        self._prefilling: dict[int, int] = {}
        self._prefill_tokens: defaultdict[str, int] = defaultdict(int)
        self._blocks = ActiveBlocks()

    def choose(self, request: RequestView, cluster: ClusterView) -> Route:
        servers = cluster.servers
        cached = self.memory.cached_blocks(request, cluster.now)
        shared, own = self._blocks.shared(request), blocks_of(request)
        costs = {}
        for server in servers:
            server_id = server.server_id
            tokens = self._prefill_tokens[server_id] + request.prompt_tokens
            prefill = tokens / PREFIX_BLOCK_TOKENS - self.overlap_credit * cached.get(server_id, 0)
            blocks = self._blocks.counts[server_id] + own - shared.get(server_id, 0)
            active = self.active_request_weight * server.in_flight_requests
            costs[server_id] = self.prefill_load_scale * max(prefill, 0.0) + blocks + active
        if self.temperature:
            return Route(self._drawn(costs), costs)
        return Route(least(servers, lambda server: costs[server.server_id], self.rng).server_id, costs)

    def _drawn(self, costs: dict[str, float]) -> str:
        low, high = min(costs.values()), max(costs.values())
        scale = 1 / (self.temperature * (high - low)) if high > low else 0.0
        weights = [exp((low - cost) * scale) for cost in costs.values()]
        return self.rng.choices(list(costs), weights)[0]

    def on_dispatch(self, request: RequestView, server: ServerView, now: float) -> None:
        cached = self.memory.cached_blocks(request, now).get(server.server_id, 0)
        uncached = max(request.prompt_tokens - cached * PREFIX_BLOCK_TOKENS, 0)
        self._prefilling[request.request_id] = uncached
        self._prefill_tokens[server.server_id] += uncached
        self._blocks.add(request, server.server_id)

    def on_first_token(self, request: RequestView, server: ServerView, now: float) -> None:
        self.memory.sent(request, server.server_id, now)
        self._prefill_tokens[server.server_id] -= self._prefilling.pop(request.request_id, 0)

    def on_finish(self, request: RequestView, server: ServerView, now: float) -> None:
        self._prefill_tokens[server.server_id] -= self._prefilling.pop(request.request_id, 0)
        self._blocks.remove(request, server.server_id)


class DeviceAwareWeighted(Policy):
    """Servers of equal ``weight`` are a group. The group with the least ``in flight / (servers * weight)``, and in it
    the server with the fewest requests in flight.

    A server's ``weight`` is how fast it is beside one of weight 1 (``servers[].weight`` in a scenario, ``weight`` in
    servers.yaml). Dynamo gives 8 to a GPU beside a CPU.

    Helps: GPUs of different speed: each gets its share, the slow ones too.
    Hurts: weights that are wrong for the traffic: one number cannot say both how fast a GPU prefills and decodes.
    """

    name = "device_aware_weighted"
    summary = "the group of equal servers with the least in flight for its weight, and its least loaded server"
    source = "Dynamo --router-mode device-aware-weighted"

    def choose(self, request: RequestView, cluster: ClusterView) -> Route:
        groups: defaultdict[float, list[ServerView]] = defaultdict(list)
        for server in cluster.servers:
            groups[server.weight].append(server)
        if len(groups) == 1:
            return Route(least(cluster.servers, in_flight_requests, self.rng).server_id)
        group = min(groups.values(), key=_normalized_load)
        return Route(least(group, in_flight_requests, self.rng).server_id)


def _normalized_load(group: Sequence[ServerView]) -> float:
    return sum([server.in_flight_requests for server in group]) / (len(group) * group[0].weight)
