"""A circuit breaker: a server that keeps failing gets no requests for a while, then one at a time."""

from typing import Literal

__all__ = ["Breaker", "BreakerState"]

BreakerState = Literal["closed", "open", "half_open"]


class Breaker:
    """Opens after ``failures`` in a row; ``open_s`` later one request at a time is let through; ``successes`` of these
    close it, one failure opens it again. It has no clock: who asks says what time it is."""

    def __init__(self, *, failures: int, open_s: float, successes: int) -> None:
        self.state: BreakerState = "closed"
        self._failures = failures
        self._open_s = open_s
        self._successes = successes
        self._count = 0
        self._opened_at = 0.0

    @property
    def reopens_at(self) -> float:
        """When an open breaker lets the first request through."""
        return self._opened_at + self._open_s

    def succeeded(self) -> None:
        """A request was served, or refused for a reason of its own."""
        if self.state == "closed":
            self._count = 0
        elif self.state == "half_open":
            self._count += 1
            if self._count >= self._successes:
                self.state, self._count = "closed", 0

    def failed(self, now: float) -> None:
        """The server failed a request."""
        self._count += 1
        if self.state == "half_open" or (self.state == "closed" and self._count >= self._failures):
            self.state, self._opened_at, self._count = "open", now, 0

    def tick(self, now: float) -> None:
        """Time has passed."""
        if self.state == "open" and now >= self.reopens_at:
            self.state, self._count = "half_open", 0
