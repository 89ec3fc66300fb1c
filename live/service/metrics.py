"""The service's Prometheus metrics, one registry a service."""

from collections import deque
from typing import Literal

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from live.routing.driver import Driver
from live.routing.fleet import Fleet

__all__ = ["Ended", "ServiceMetrics"]

Outcome = Literal["finished", "failed", "rejected", "cancelled"]

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.2, 0.4, 0.8, 1.5, 3, 6, 12, 25, 50, 100, 200)
_TOKEN_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.015, 0.02, 0.03, 0.04, 0.06, 0.1, 0.2, 0.5, 1, 2)
_WAIT_SECONDS = (0.0005, 0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 2, 5, 10, 30, 60)
_RECENT = 512
_BREAKER = {"closed": 0, "half_open": 1, "open": 2}


class Ended:
    """What is known of a request at its end; times in seconds, None for what did not happen."""

    __slots__ = (
        "cause",
        "e2e_s",
        "model",
        "outcome",
        "output_tokens",
        "prompt_tokens",
        "server_id",
        "ttft_s",
        "wait_s",
    )

    def __init__(self, model: str, outcome: Outcome, cause: str = "") -> None:
        self.model = model
        self.outcome = outcome
        self.cause = cause
        self.server_id = ""
        self.wait_s: float | None = None
        self.ttft_s: float | None = None
        self.e2e_s = 0.0
        self.prompt_tokens = 0
        self.output_tokens = 0


class ServiceMetrics:
    """``recent`` keeps the last requests for the dashboard; all else is Prometheus's."""

    def __init__(self, driver: Driver, fleet: Fleet) -> None:
        self.registry = CollectorRegistry()
        self.recent: deque[Ended] = deque(maxlen=_RECENT)
        self.outcomes: dict[str, int] = {}
        self._driver = driver
        self._fleet = fleet
        of_request = ("model", "server")
        self._requests = self._counter("requests", "Requests by how they ended", ("model", "outcome"))
        self._errors = self._counter("errors", "Requests that failed, were rejected or cancelled", ("kind",))
        self._prompt = self._counter("prompt_tokens", "Prompt tokens of finished requests", of_request)
        self._output = self._counter("output_tokens", "Output tokens of finished requests", of_request)
        self._wait = self._histogram("router_wait_seconds", "Arrival to last dispatch", (), _WAIT_SECONDS)
        self._ttft = self._histogram("ttft_seconds", "Arrival to the first byte of the answer", of_request, _SECONDS)
        self._tpot = self._histogram(
            "tpot_seconds", "Time per output token after the first", of_request, _TOKEN_SECONDS
        )
        self._e2e = self._histogram("e2e_seconds", "Arrival to the last byte of the answer", of_request, _SECONDS)
        self._in_flight = self._gauge("in_flight_requests", "Requests dispatched and not yet ended")
        self._up = self._gauge("server_up", "Whether a server may be dispatched to")
        self._breaker = self._gauge("breaker_state", "0 closed, 1 half open, 2 open")
        self._queue = Gauge("simroute_queued_requests", "Requests waiting at the router", registry=self.registry)

    def count(self, ended: Ended) -> None:
        """A request has come to its end."""
        self.recent.append(ended)
        self.outcomes[ended.outcome] = self.outcomes.get(ended.outcome, 0) + 1
        self._requests.labels(ended.model, ended.outcome).inc()
        if ended.outcome != "finished":
            self._errors.labels(ended.cause).inc()
        if ended.wait_s is not None:
            self._wait.observe(ended.wait_s)
        if ended.outcome != "finished":
            return
        labels = (ended.model, ended.server_id)
        self._prompt.labels(*labels).inc(ended.prompt_tokens)
        self._output.labels(*labels).inc(ended.output_tokens)
        self._e2e.labels(*labels).observe(ended.e2e_s)
        if ended.ttft_s is not None:
            self._ttft.labels(*labels).observe(ended.ttft_s)
            if ended.output_tokens > 1:
                self._tpot.labels(*labels).observe((ended.e2e_s - ended.ttft_s) / (ended.output_tokens - 1))

    def text(self) -> bytes:
        """The page for Prometheus."""
        self._queue.set(self._driver.queued_requests)
        for gauge in (self._in_flight, self._up, self._breaker):
            gauge.clear()
        for server_id, member in self._fleet.members.items():
            self._in_flight.labels(server_id).set(self._driver.servers[server_id].in_flight_requests)
            self._up.labels(server_id).set(member.open)
            self._breaker.labels(server_id).set(_BREAKER[member.breaker.state])
        return generate_latest(self.registry)

    def _counter(self, name: str, text: str, labels: tuple[str, ...]) -> Counter:
        return Counter(f"simroute_{name}", text, labels, registry=self.registry)

    def _gauge(self, name: str, text: str) -> Gauge:
        return Gauge(f"simroute_{name}", text, ("server",), registry=self.registry)

    def _histogram(self, name: str, text: str, labels: tuple[str, ...], buckets: tuple[float, ...]) -> Histogram:
        return Histogram(f"simroute_{name}", text, labels, buckets=buckets, registry=self.registry)
