"""The router's books: what it knows of each server and of each request under way."""

from dataclasses import dataclass
from typing import NamedTuple

from .rate_limit import RateLimit
from .views import RequestView

_NONE: frozenset[str] = frozenset()

__all__ = ["InFlight", "ServerConfig", "ServerReport", "ServerState"]


@dataclass(frozen=True, slots=True)
class ServerConfig:
    """A server as it is added to the router; ``max_running_requests`` is the router's cap on it, None for no cap.
    ``weight`` and ``remote`` are for policies that ask (``ServerView``). The limits per minute are those of a remote
    API: while they are used up the server is closed, as one at its cap is."""

    server_id: str
    model: str
    max_running_requests: int | None = None
    weight: float = 1.0
    remote: bool = False
    requests_per_minute: float | None = None
    tokens_per_minute: float | None = None


class ServerReport(NamedTuple):
    """What a server says of itself at ``reported_at``; None for what it has not measured yet."""

    reported_at: float
    running_requests: int | None = None
    queued_requests: int | None = None
    kv_tokens_used: int | None = None
    kv_tokens_capacity: int | None = None
    throughput_tps: float | None = None
    mean_ttft_s: float | None = None
    mean_tpot_s: float | None = None


class ServerState:
    """The ServerView that policies read; only the Router writes it. ``open``: a request may be dispatched here now;
    ``limited``: it has a cap or a rate limit; ``in_budget``: the rate limit, where it has one, leaves room."""

    __slots__ = (
        "healthy",
        "in_budget",
        "in_flight_requests",
        "in_flight_tokens",
        "index",
        "kv_tokens_capacity",
        "kv_tokens_used",
        "limited",
        "max_running_requests",
        "mean_tpot_s",
        "mean_ttft_s",
        "model",
        "open",
        "prefill_tokens_since_report",
        "queued_requests",
        "rate",
        "remote",
        "reported_at",
        "requests_since_report",
        "running_requests",
        "server_id",
        "throughput_tps",
        "weight",
    )

    def __init__(self, config: ServerConfig, index: int) -> None:
        self.server_id = config.server_id
        self.model = config.model
        self.weight = config.weight
        self.remote = config.remote
        self.index = index
        self.healthy = True
        self.open = False
        self.max_running_requests = config.max_running_requests
        self.rate: RateLimit | None = None
        if config.requests_per_minute is not None or config.tokens_per_minute is not None:
            self.rate = RateLimit(config.requests_per_minute, config.tokens_per_minute)
        self.in_budget = True
        self.limited = self.max_running_requests is not None or self.rate is not None
        self.in_flight_requests = 0
        self.in_flight_tokens = 0
        self.requests_since_report = 0
        self.prefill_tokens_since_report = 0
        self.reported_at: float | None = None
        self.running_requests: int | None = None
        self.queued_requests: int | None = None
        self.kv_tokens_used: int | None = None
        self.kv_tokens_capacity: int | None = None
        self.throughput_tps: float | None = None
        self.mean_ttft_s: float | None = None
        self.mean_tpot_s: float | None = None

    def read(self, report: ServerReport) -> None:
        """Take over a report; the credit for work sent before it ends."""
        for field, value in report._asdict().items():
            setattr(self, field, value)
        self.requests_since_report = 0
        self.prefill_tokens_since_report = 0

    def add(self, entry: "InFlight") -> None:
        """A request was dispatched here."""
        self.in_flight_requests += 1
        self.in_flight_tokens += entry.tokens
        self.requests_since_report += 1
        self.prefill_tokens_since_report += entry.prompt_tokens

    def remove(self, entry: "InFlight") -> None:
        """A request has left."""
        self.in_flight_requests -= 1
        self.in_flight_tokens -= entry.tokens


class InFlight:
    """A request that the router has accepted: queued while ``server`` is None, else dispatched there. ``tokens`` are
    those of its prompt and the expected ones of its answer."""

    __slots__ = ("attempts", "model", "prompt_tokens", "request", "server", "tokens", "tried")

    def __init__(self, request: RequestView) -> None:
        self.request = request
        self.model = request.model
        self.prompt_tokens = prompt_tokens = request.prompt_tokens
        self.tokens = prompt_tokens + (request.expected_output_tokens or 0)
        self.server: ServerState | None = None
        self.attempts = 0
        self.tried: frozenset[str] = _NONE
