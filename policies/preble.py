"""Preble's E2: exploit what is cached, or explore."""

import random
from collections import defaultdict, deque

from .least_loaded import least
from .parameters import Span
from .prefix_memory import PrefixAware, PrefixMemory
from .views import PREFIX_BLOCK_TOKENS, ClusterView, RequestView, Route, ServerView

__all__ = ["PrebleE2"]


class PrebleE2(PrefixAware):
    """More of the prompt is cached than not: exploit, the least loaded of the servers that hold the longest match. Else
    explore: the least load cost, where what this prompt costs to prefill there is counted as well.

    A server's load cost is the work sent there in the last ``window_s``: prefill of what was not cached and decode of
    the expected output, in seconds. Preble fits prefill times to a GPU and takes the time per token from what it
    measures; here both are parameters. The cost of what a server would evict, which the paper adds and its code leaves
    off, is not counted; nor is a prefix copied to a second server when its first is overloaded.

    Helps: long shared prompts with short answers: tools, few-shot examples, questions about a document.
    Hurts: one prefix that outgrows its server: exploiting keeps it where it is.
    """

    name = "preble_e2"
    summary = "the least loaded holder of the prefix if most of the prompt is cached, else the least load cost"
    source = "Preble, arXiv 2407.00023; AIBrix prefix_cache_preble.go"
    parameters = {  # noqa: RUF012
        "exploit_above": "share of the prompt that must be cached to exploit it",
        "window_s": "work sent within it is a server's load",
        "prefill_s_per_token": "time to prefill a token",
        "decode_s_per_token": "time to decode a token of an answer",
        "max_tree_tokens": "tokens remembered for each server",
    }
    search = {  # noqa: RUF012
        "exploit_above": Span(0.1, 0.95),
        "window_s": Span(10, 600, log=True),
        "decode_s_per_token": Span(0.001, 0.5, log=True),
    }
    needs = frozenset({"prefix_hashes", "expected_output_tokens"})

    def __init__(
        self,
        rng: random.Random,
        exploit_above: float = 0.5,
        window_s: float = 180.0,
        prefill_s_per_token: float = 0.000108,
        decode_s_per_token: float = 0.15,
        max_tree_tokens: int = 198_516,
    ) -> None:
        super().__init__(rng, PrefixMemory(max_tree_tokens))
        self.exploit_above = exploit_above
        self.window_s = window_s
        self.prefill_s_per_token = prefill_s_per_token
        self.decode_s_per_token = decode_s_per_token
        self._work: deque[tuple[float, str, float]] = deque()
        self._load: defaultdict[str, float] = defaultdict(float)
        self._requests: defaultdict[str, int] = defaultdict(int)

    def choose(self, request: RequestView, cluster: ClusterView) -> Route:
        self._forget(cluster.now)
        servers, load = cluster.servers, self._load
        cached = self.memory.cached_blocks(request, cluster.now)
        most = max([cached.get(server.server_id, 0) for server in servers])
        if most * PREFIX_BLOCK_TOKENS > self.exploit_above * request.prompt_tokens:
            holders = [server for server in servers if cached.get(server.server_id) == most]
            return Route(least(holders, lambda server: load[server.server_id], self.rng).server_id)
        # The prefill of this prompt, but for the part that is the same everywhere.
        saved_s = PREFIX_BLOCK_TOKENS * self.prefill_s_per_token
        costs = {s.server_id: load[s.server_id] - saved_s * cached.get(s.server_id, 0) for s in servers}
        return Route(least(servers, lambda server: costs[server.server_id], self.rng).server_id)

    def on_dispatch(self, request: RequestView, server: ServerView, now: float) -> None:
        server_id, expected = server.server_id, request.expected_output_tokens
        assert expected is not None  # refused at the start: see needs
        cached = self.memory.cached_blocks(request, now).get(server_id, 0)
        uncached = request.prompt_tokens - cached * PREFIX_BLOCK_TOKENS
        work_s = uncached * self.prefill_s_per_token + expected * self.decode_s_per_token
        self._work.append((now, server_id, work_s))
        self._load[server_id] += work_s
        self._requests[server_id] += 1
        super().on_dispatch(request, server, now)

    def _forget(self, now: float) -> None:
        while self._work and self._work[0][0] < now - self.window_s:
            _, server_id, work_s = self._work.popleft()
            self._requests[server_id] -= 1
            # Summed floats leave a residue, which would break ties for ever.
            self._load[server_id] = self._load[server_id] - work_s if self._requests[server_id] else 0.0
