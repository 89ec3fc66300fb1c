"""The router's books: what it knows of each server and of each request under way."""

from dataclasses import dataclass
from typing import NamedTuple

from .views import RequestView

_NONE: frozenset[str] = frozenset()

__all__ = ["InFlight", "ServerConfig", "ServerReport", "ServerState"]


@dataclass(frozen=True, slots=True)
class ServerConfig:
    """A server as it is added to the router; ``max_running_requests`` is the router's cap on it, None for no cap.
    ``weight`` and ``remote`` are for policies that ask (``ServerView``)."""

    server_id: str
    model: str
    max_running_requests: int | None = None
    weight: float = 1.0
    remote: bool = False


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
    """The ServerView that policies read; only the Router writes it. ``open``: a request may be dispatched here now."""

    __slots__ = (
        "healthy",
        "in_flight_requests",
        "in_flight_tokens",
        "index",
        "kv_tokens_capacity",
        "kv_tokens_used",
        "max_running_requests",
        "mean_tpot_s",
        "mean_ttft_s",
        "model",
        "open",
        "prefill_tokens_since_report",
        "queued_requests",
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
