"""What a policy may see, and what it may answer.

The views are read-only: a policy that changes what it sees would change the router's ledger.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

__all__ = [
    "PREFIX_BLOCK_TOKENS",
    "ClusterView",
    "Decision",
    "Hold",
    "Reject",
    "RequestView",
    "Route",
    "ServerView",
]

PREFIX_BLOCK_TOKENS = 64
"""Tokens a block of ``RequestView.prefix_hashes``."""


class RequestView(NamedTuple):
    """A request as the router knows it; never its true output length.

    ``expected_output_tokens`` is what the scenario or a predictor expects, or None. ``prefix_hashes`` are chained
    hashes of the prompt's whole blocks, longest prefix last; empty unless the policy asks for them in ``needs``.
    ``slo`` maps ttft_s, tpot_s and e2e_s to their bounds. A tuple, because one is made for every request.
    """

    request_id: int
    model: str
    prompt_tokens: int
    expected_output_tokens: int | None
    arrived_at: float
    prefix_hashes: tuple[int, ...] = ()
    session_id: int | None = None
    priority: int = 0
    slo: Mapping[str, float] = {}


class ServerView(Protocol):
    """A server as the router knows it.

    The first block is what the server last reported, as old as ``reported_at`` says, and None before the first report.
    The second is the router's own ledger and always fresh. In-flight requests are those dispatched and not yet
    finished, so they already contain the server's running and queued ones: adding them counts twice. ``weight`` and
    ``remote`` are what the scenario says of it: how fast it is beside the others, and whether it is somebody else's
    API.
    """

    @property
    def server_id(self) -> str: ...
    @property
    def model(self) -> str: ...
    @property
    def healthy(self) -> bool: ...
    @property
    def weight(self) -> float: ...
    @property
    def remote(self) -> bool: ...

    @property
    def reported_at(self) -> float | None: ...
    @property
    def running_requests(self) -> int | None: ...
    @property
    def queued_requests(self) -> int | None: ...
    @property
    def kv_tokens_used(self) -> int | None: ...
    @property
    def kv_tokens_capacity(self) -> int | None: ...
    @property
    def throughput_tps(self) -> float | None: ...
    @property
    def mean_ttft_s(self) -> float | None: ...
    @property
    def mean_tpot_s(self) -> float | None: ...

    @property
    def in_flight_requests(self) -> int: ...
    @property
    def in_flight_tokens(self) -> int: ...
    @property
    def max_running_requests(self) -> int | None: ...
    @property
    def requests_since_report(self) -> int: ...
    @property
    def prefill_tokens_since_report(self) -> int: ...


class ClusterView(NamedTuple):
    """The servers a request may go to now: healthy, and below their cap. Never empty; the order is stable."""

    now: float
    servers: Sequence[ServerView]
    queued_requests: int


class Route(NamedTuple):
    """Dispatch to this server. ``scores``, where the policy has them, tell the event log why (lower is better)."""

    server_id: str
    scores: Mapping[str, float] | None = None


@dataclass(frozen=True, slots=True)
class Hold:
    """Keep the request, and all behind it, queued until the router's state changes."""


@dataclass(frozen=True, slots=True)
class Reject:
    """Turn the request away."""

    reason: str


Decision = Route | Hold | Reject
