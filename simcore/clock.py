"""SimPy's environment with events at absolute times."""

import heapq
from collections.abc import Callable
from typing import Any, cast

import simpy
from simpy.events import NORMAL as _NORMAL

__all__ = ["Call", "Clock"]


class Call:
    """The least that SimPy's kernel runs: a callback with a value. A full ``Event`` costs three times as much."""

    __slots__ = ("_ok", "callbacks", "value")

    def __init__(self, callback: "Callable[[Call], None]", value: Any) -> None:
        self.callbacks: list[Callable[[Call], None]] | None = [callback]
        self.value = value
        self._ok = True


class Clock(simpy.Environment):
    """``Environment.schedule`` takes a delay, so that ``now + delay`` is off the wanted time by rounding. Servers compare
    step boundaries with arrivals, which must be the very same numbers: hence events at absolute times."""

    def at(self, time_s: float, callback: Callable[[Call], None], value: Any = None) -> None:
        """Call back at ``time_s``, not before now; equal times in the order of scheduling."""
        event = cast(simpy.Event, Call(callback, value))
        heapq.heappush(self._queue, (time_s, _NORMAL, next(self._eid), event))
