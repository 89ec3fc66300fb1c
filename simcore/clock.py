"""SimPy's environment with calls at absolute times."""

from collections.abc import Callable
from heapq import heappop, heappush
from typing import Any, Protocol

import simpy
from simpy.events import NORMAL

__all__ = ["Clock", "Timer"]


class Timer(Protocol):
    """What clients need of a clock, simulated or real."""

    def at(self, time_s: float, callback: Callable[[float, Any], None], value: Any = None) -> object:
        """Call ``callback(time_s, value)`` at that time."""


class Clock(simpy.Environment):
    """Adds to SimPy the one kind of event that servers and clients need, a plain call, at a third of an event's cost.

    ``Environment.schedule`` takes a delay, so that ``now + delay`` is off the wanted time by rounding. Servers compare
    step boundaries with arrivals, which must be the very same numbers: hence calls at absolute times. They share the
    queue with SimPy's own events.
    """

    def at(self, time_s: float, callback: Callable[[float, Any], None], value: Any = None) -> None:
        """Call ``callback(time_s, value)`` then, which must not be before now; equal times in the order of
        scheduling."""
        heappush(self._queue, (time_s, NORMAL, next(self._eid), (callback, value)))  # type: ignore[misc]

    def run_calls(self) -> None:
        """Run until ``stop``, or until nothing is left."""
        queue: list[Any] = self._queue
        while queue:
            entry = heappop(queue)
            time_s, _, _, event = entry
            try:
                callback, value = event
            except TypeError:
                # One of SimPy's own.
                heappush(queue, entry)
                self.step()
            else:
                self._now = time_s
                callback(time_s, value)

    def run_until(self, time_s: float) -> None:
        """Run the calls due up to and at ``time_s``."""
        queue = self._queue
        while queue and queue[0][0] <= time_s:
            entry: Any = heappop(queue)
            self._now = entry[0]
            entry[3][0](entry[0], entry[3][1])

    def stop(self) -> None:
        """Drop all that is scheduled, so that ``run_calls`` ends after the call under way."""
        self._queue.clear()
