"""Which waiting request a server admits first: SGLang's ``--schedule-policy`` (``managers/schedule_policy.py``)."""

from collections import deque

from simcore.launch import SchedulePolicy

from .kv_pool import KvPool
from .radix_cache import RadixCache
from .request import ServerRequest

__all__ = ["WaitingOrder"]

_LPM_FALLBACK_WAITING = 128
_IN_BATCH_THRESHOLD_TOKENS = 32


class WaitingOrder:
    """Sorts the waiting queue before each attempt to admit; sorting is stable.

    fcfs                    as they came
    lpm                     longest cached prefix first; fcfs while more than 128 wait
    lof                     most max_new_tokens first
    shortest-prefill-first  fewest tokens to prefill first

    Under the two that look at the cache, of several requests with a common prefix that is not cached yet only the first
    keeps its place: the others go last and find the prefix cached when their turn comes. Without a prefix cache those
    two are fcfs, as in SGLang.
    """

    def __init__(self, policy: SchedulePolicy, pool: KvPool) -> None:
        cache_aware = policy in ("lpm", "shortest-prefill-first")
        self._policy: SchedulePolicy = "fcfs" if cache_aware and not pool.caches else policy
        self._pool = pool
        self.sorts = self._policy != "fcfs"
        """Whether ``sort`` ever does anything."""

    def sort(self, waiting: deque[ServerRequest]) -> None:
        """Bring the queue into the policy's order, in place."""
        match self._policy:
            case "fcfs":
                return
            case "lof":
                keys = {request: (False, -request.max_new_tokens) for request in waiting}
            case "lpm":
                if len(waiting) > _LPM_FALLBACK_WAITING:
                    return
                keys = {r: (late, 0 if late else -cached) for r, cached, late in self._prefixes(waiting)}
            case "shortest-prefill-first":
                keys = {r: (late, max(r.fill_tokens - cached, 1)) for r, cached, late in self._prefixes(waiting)}
        ordered = sorted(waiting, key=keys.__getitem__)
        waiting.clear()
        waiting.extend(ordered)

    def _prefixes(self, waiting: deque[ServerRequest]) -> list[tuple[ServerRequest, int, bool]]:
        """Each request with its cached prefix and whether it should wait for another with the same start."""
        others = RadixCache()
        rows = []
        for request in waiting:
            cached = self._pool.cached_prefix(request)
            late = False
            if cached <= _IN_BATCH_THRESHOLD_TOKENS:
                content = self._pool.aligned_content(request)
                tokens = self._pool.floor(request.fill_tokens)
                late = others.match(content, tokens)[1] >= _IN_BATCH_THRESHOLD_TOKENS
                if not late and tokens:
                    others.insert(others.root, content, tokens)
            rows.append((request, cached, late))
        return rows
