"""What the engine and a server want from each other."""

from typing import NamedTuple, Protocol

from .request import ServerRequest
from .telemetry import Telemetry

__all__ = ["OUT_OF_MEMORY", "QUEUE_IS_FULL", "RATE_LIMITED", "Listener", "Load", "Server"]

QUEUE_IS_FULL = "the server's queue is full"
"""SGLang answers 503: the request is refused before anything of it ran."""

OUT_OF_MEMORY = "the KV pool is too small even for this request alone"
"""SGLang aborts the last running request with this when retracting all others was not enough."""


RATE_LIMITED = "the API's rate limit is reached"
"""A remote API answers 429: the request is refused before anything of it ran."""


class Load(NamedTuple):
    """A server's state at one moment. ``generated_tokens`` counts from the start, and so do the ``gaps`` between two
    tokens of a request, with their sum in seconds."""

    running: int
    queued: int
    kv_tokens_used: int
    generated_tokens: int
    gap_sum_s: float
    gaps: int


class Listener(Protocol):
    """Told of what happens to requests, at the end of the step in which it happens; of first tokens if it wants."""

    wants_first_tokens: bool

    def first_token(self, server: "Server", request: ServerRequest, now: float) -> None:
        """The request's first token is computed."""

    def ended(self, server: "Server", request: ServerRequest, now: float) -> None:
        """The request's last token is computed."""

    def failed(self, server: "Server", request: ServerRequest, reason: str, now: float) -> None:
        """The server gave the request up."""


class Server(Protocol):
    """A simulated server."""

    server_id: str
    telemetry: Telemetry

    @property
    def peak_kv_tokens(self) -> int:
        """The most KV tokens that requests have held or locked."""

    def submit(self, request: ServerRequest, now: float) -> None:
        """Take a request that reaches the scheduler at ``request.ready_at``, and not before one that was submitted
        before it (``Ingress``)."""

    def cancel(self, request: ServerRequest, now: float) -> None:
        """Drop a request at the next step boundary; the listener is not told."""

    def load(self, now: float) -> Load:
        """The state now, also in the middle of a run of steps."""
