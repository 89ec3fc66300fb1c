"""A cap that keeps some of a server's KV pool free."""

from policies.errors import PolicyError
from policies.parameters import Span
from policies.views import ServerView

from .adaptive import BOUNDS, BOUNDS_SEARCH, Adaptive

__all__ = ["KvHeadroom"]


class KvHeadroom(Adaptive):
    """Keeps the share of KV tokens in use, as the server last reported it, between two marks. Every ``interval_s``:

    - above ``high``: ``cap = floor(min(cap, requests there) * decrease)``, where the requests there are the greater of
      those in flight by the router's count and those running by the report;
    - below ``low``: ``cap = cap + increase``;
    - between them, the cap stays.

    A report counts once, and only if it was made after the cap last changed: an older one tells of the cap before.
    So a cap changes at most once a report interval, however often it is looked at; where reports stop, it stays.

    Helps: answers that grow long after their requests were let in, where a full pool means retraction: work thrown
    away and done again.
    Hurts: a prefix cache, if its server reports what it could evict as in use; reports that are older than it takes
    to fill the pool.
    """

    name = "kv_headroom"
    summary = "lowers caps where the reported KV use passes a high mark, and raises them below a low one"
    source = "simroute; high and low marks as in memory reclaim"
    parameters = {  # noqa: RUF012
        "high": "share of KV tokens in use above which the cap falls",
        "low": "share below which it rises",
        "increase": "added to the cap",
        "decrease": "factor of the cap",
        **BOUNDS,
    }
    search = {  # noqa: RUF012
        "high": Span(0.75, 0.98),
        "low": Span(0.3, 0.75),
        "increase": Span(1, 32, log=True),
        "decrease": Span(0.3, 0.95),
        **BOUNDS_SEARCH,
    }
    needs = frozenset({"running_requests", "kv_tokens_used", "kv_tokens_capacity"})

    def __init__(
        self,
        high: float = 0.9,
        low: float = 0.75,
        increase: int = 4,
        decrease: float = 0.8,
        interval_s: float = 1.0,
        min_cap: int = 1,
        max_cap: int = 256,
    ) -> None:
        super().__init__(interval_s, min_cap, max_cap)
        if not 0 < low <= high <= 1:
            raise PolicyError(f"kv_headroom: 0 < low <= high <= 1 must hold, not {low:g} and {high:g}")
        if increase < 1 or not 0 < decrease < 1:
            raise PolicyError(
                f"kv_headroom: increase must be at least 1 and decrease between 0 and 1, "
                f"not {increase} and {decrease:g}"
            )
        self._high = high
        self._low = low
        self._increase = increase
        self._decrease = decrease
        self._counted_until: dict[str, float] = {}

    def changed(self, server_id: str, cap: int, now: float) -> None:
        """See ``Adaptive``."""
        self._counted_until[server_id] = now

    def next_cap(self, server: ServerView, cap: int, now: float) -> int:
        """See ``Adaptive``."""
        reported_at, used, capacity = server.reported_at, server.kv_tokens_used, server.kv_tokens_capacity
        if reported_at is None or used is None or not capacity:
            return cap
        server_id = server.server_id
        if reported_at <= self._counted_until.get(server_id, -1.0):
            return cap
        self._counted_until[server_id] = reported_at
        if used > self._high * capacity:
            there = max(server.in_flight_requests, server.running_requests or 0)
            return int(min(cap, there) * self._decrease)
        return cap + self._increase if used < self._low * capacity else cap
