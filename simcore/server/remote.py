"""A remote API on the simulated clock: each request by itself, its first token after a delay, the rest at one speed.

There is no batch: an answer is as fast beside a hundred others as alone. What there is are limits: on requests and
tokens per minute, and on requests at once. A request above one is refused at once and nothing of it runs (HTTP 429).
"""

import math

import numpy as np

from policies.rate_limit import RateLimit
from simcore.clock import Clock
from simcore.remote_profile import RemoteProfile

from .interface import RATE_LIMITED, Listener, Load
from .request import ServerRequest
from .telemetry import Telemetry

__all__ = ["RemoteServer"]

_SAME_TIME_S = 1e-6
"""The router's account and this one add up the same numbers, but not in the same order."""


class RemoteServer:
    """Answers at a remote profile's pace. ``exact_steps``: every token is an event of its own, for the emulator."""

    peak_kv_tokens = 0

    def __init__(
        self,
        clock: Clock,
        server_id: str,
        listener: Listener,
        profile: RemoteProfile,
        *,
        exact_steps: bool,
        rng: np.random.Generator,
    ) -> None:
        self.server_id = server_id
        self.telemetry = Telemetry(None)
        self.prompt_tokens = 0
        self.later_tokens = 0
        self._clock = clock
        self._listener = listener
        self._profile = profile
        self._exact_steps = exact_steps
        self._rng = rng
        self._sigma = math.sqrt(math.log1p(profile.first_token_cv**2))
        self._rate = RateLimit(profile.requests_per_minute, profile.tokens_per_minute)
        # By request id: when the first token is due, and the last.
        self._running: dict[int, tuple[float, float]] = {}
        self._generated_tokens = 0

    def submit(self, request: ServerRequest, now: float) -> None:
        """See ``Server``."""
        if self.room_in_s(now) > 0:
            request.done = True
            self._listener.failed(self, request, RATE_LIMITED, now)
            return
        self._rate.take(now, request.prompt_tokens + request.max_new_tokens)
        first_at = now + self._first_token_s()
        last_at = first_at + (request.output_tokens - 1) / self._profile.output_tps
        # An API does not tell how long a request waited there.
        request.started_at, request.running = math.nan, True
        self._running[request.request_id] = (first_at, last_at)
        self.telemetry.peak_running = max(self.telemetry.peak_running, len(self._running))
        self._clock.at(first_at, self._on_first_token, request)

    def room_in_s(self, now: float) -> float:
        """How long it takes no request for its limits; 0: it takes one now."""
        wait_s = self._rate.opens_at - now
        most = self._profile.max_running_requests
        if most is not None and len(self._running) >= most:
            wait_s = max(wait_s, min(last_at for _, last_at in self._running.values()) - now)
        return wait_s if wait_s > _SAME_TIME_S else 0.0

    def cancel(self, request: ServerRequest, now: float) -> None:
        """See ``Server``."""
        request.done, request.running = True, False
        if times := self._running.pop(request.request_id, None):
            self._generated_tokens += self._computed(times, now)

    def load(self, now: float) -> Load:
        """See ``Server``."""
        under_way = sum(self._computed(times, now) for times in self._running.values())
        return Load(len(self._running), 0, 0, self._generated_tokens + under_way, 0.0, 0)

    def computed_outputs(self, request: ServerRequest) -> int:
        """The tokens of a running request's answer by now."""
        return self._computed(self._running[request.request_id], self._clock.now)

    def _computed(self, times: tuple[float, float], now: float) -> int:
        first_at, last_at = times
        if now < first_at:
            return 0
        return 1 + math.floor((min(now, last_at) - first_at) * self._profile.output_tps + _SAME_TIME_S)

    def _first_token_s(self) -> float:
        mean_s = self._profile.first_token_s
        if not self._sigma or not mean_s:
            return mean_s
        return mean_s * float(self._rng.lognormal(-(self._sigma**2) / 2, self._sigma))

    def _on_first_token(self, now: float, request: ServerRequest) -> None:
        if request.done:
            return
        request.first_token_at = now
        self.prompt_tokens += request.prompt_tokens
        if self._listener.wants_first_tokens:
            self._listener.first_token(self, request, now)
        last_at = self._running[request.request_id][1]
        if not self._exact_steps:
            self._clock.at(last_at, self._on_last_token, request)
            return
        for token in range(1, request.output_tokens - 1):
            self._clock.at(now + token / self._profile.output_tps, _on_token)
        self._clock.at(last_at, self._on_last_token, request)

    def _on_last_token(self, now: float, request: ServerRequest) -> None:
        if request.done:
            return
        request.done, request.running = True, False
        del self._running[request.request_id]
        later = request.output_tokens - 1
        self._generated_tokens += request.output_tokens
        self.later_tokens += later
        if later:
            self.telemetry.steps.add_gaps(1 / self._profile.output_tps, later)
        self._listener.ended(self, request, now)


def _on_token(now: float, _: None) -> None:
    """Nothing changes; whoever reads the clock looks at what has been computed."""
