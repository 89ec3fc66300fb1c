"""SimPy's environment with events at absolute times."""

from collections.abc import Callable
from heapq import heappush
from typing import Any

import simpy
from simpy.events import NORMAL

__all__ = ["Call", "Clock"]


class Call:
    """The least that SimPy's kernel runs: a callback at ``time_s`` with a value. A full ``Event`` costs three times as
    much."""

    __slots__ = ("callbacks", "time_s", "value")
    _ok = True

    def __init__(self, time_s: float, callback: "Callable[[Call], None]", value: Any) -> None:
        self.time_s = time_s
        self.callbacks = (callback,)
        self.value = value


class Clock(simpy.Environment):
    """``Environment.schedule`` takes a delay, so that ``now + delay`` is off the wanted time by rounding. Servers
    compare step boundaries with arrivals, which must be the very same numbers: hence events at absolute times."""

    def at(self, time_s: float, callback: Callable[[Call], None], value: Any = None) -> None:
        """Call back at ``time_s``, not before now; equal times in the order of scheduling."""
        entry: Any = (time_s, NORMAL, next(self._eid), Call(time_s, callback, value))
        heappush(self._queue, entry)
