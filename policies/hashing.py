"""Policies that send equal keys to equal servers, by consistent hashing."""

import random

from .base import Policy
from .hash_ring import HashRing
from .least_loaded import in_flight_requests, least
from .parameters import Span
from .views import PREFIX_BLOCK_TOKENS, ClusterView, RequestView, Route

__all__ = ["ConsistentHashing", "PrefixHash"]


class ConsistentHashing(Policy):
    """The session's place on a ring of servers, whatever their load; a request without a session goes anywhere.

    Each server has ``virtual_nodes`` places. The key is the session: over HTTP the X-Session-Id header or the body's
    ``routing_key``. SMG falls back to the authorization, forwarded-for or cookie header, which the router does not show
    to policies.

    Helps: conversations find their cache again, without any state at the router; a server that comes or goes moves only
    its own share of them.
    Hurts: few sessions, or sessions of very different sizes: nothing evens out what the ring gives each server.
    """

    name = "consistent_hashing"
    summary = "the session's place on a hash ring; at random without a session"
    source = "SMG consistent_hashing.rs, hash_ring.rs"
    parameters = {"virtual_nodes": "places of each server on the ring"}  # noqa: RUF012
    search = {  # noqa: RUF012
        "virtual_nodes": Span(10, 1000, log=True),
    }

    def __init__(self, rng: random.Random, virtual_nodes: int = 150) -> None:
        super().__init__(rng)
        self._ring = HashRing(virtual_nodes)

    def choose(self, request: RequestView, cluster: ClusterView) -> Route:
        servers, session = cluster.servers, request.session_id
        if session is None:
            return Route(servers[int(self.rng.random() * len(servers))].server_id)
        return Route(self._ring.find(str(session), servers).server_id)


class PrefixHash(Policy):
    """The place of the prompt's first ``prefix_tokens`` on a ring of servers, unless that server is overloaded: it has
    more than ``load_factor * (total + 1) / servers`` requests in flight. Then the least loaded one, if
    that is under the limit.

    A shorter prompt counts as far as it has whole blocks of 64 tokens; one without a block goes to the least loaded.

    Helps: shared system prompts, at a cost that does not grow with what was sent before; a hot prefix spreads as soon
    as its server has more than its share.
    Hurts: prompts that share less, or more, than ``prefix_tokens``: the first are scattered, the second thrown
    together.
    """

    name = "prefix_hash"
    summary = "the prefix's place on a hash ring, unless overloaded: then the least loaded"
    source = "SMG prefix_hash.rs"
    parameters = {  # noqa: RUF012
        "prefix_tokens": "tokens of the prompt's beginning that are hashed, in blocks of 64",
        "load_factor": "how much more than the mean load a server may have",
        "virtual_nodes": "places of each server on the ring",
    }
    search = {  # noqa: RUF012
        "prefix_tokens": Span(64, 2048, log=True),
        "load_factor": Span(1.02, 3, log=True),
    }
    needs = frozenset({"prefix_hashes"})

    def __init__(
        self, rng: random.Random, prefix_tokens: int = 256, load_factor: float = 1.25, virtual_nodes: int = 150
    ) -> None:
        super().__init__(rng)
        self.load_factor = load_factor
        self._last_block = max(prefix_tokens // PREFIX_BLOCK_TOKENS, 1) - 1
        self._ring = HashRing(virtual_nodes)

    def choose(self, request: RequestView, cluster: ClusterView) -> Route:
        servers, blocks = cluster.servers, request.prefix_hashes
        if not blocks:
            return Route(least(servers, in_flight_requests, self.rng).server_id)
        owner = self._ring.find(str(blocks[min(self._last_block, len(blocks) - 1)]), servers)
        total = sum([server.in_flight_requests for server in servers])
        limit = self.load_factor * (total + 1) / len(servers)
        if total == 0 or owner.in_flight_requests <= limit:
            return Route(owner.server_id)
        other = least(servers, in_flight_requests, self.rng)
        return Route((other if other.in_flight_requests <= limit else owner).server_id)
