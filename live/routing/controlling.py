"""Asks the router's controller at its times, and carries its caps out, down to the servers."""

import asyncio
from collections.abc import Callable

from live.clock import WallClock
from policies.controllers import Controller

from .air import Air

__all__ = ["Controlling"]


class Controlling:
    """``on_cap`` is told of each change, with the time, the server and its cap. A server that has a cap of its own is
    told it (``Air.push_cap``); the router's holds at once."""

    def __init__(
        self, air: Air, clock: WallClock, on_cap: Callable[[float, str, int | None], None] = lambda *_: None
    ) -> None:
        self._air = air
        self._clock = clock
        self._on_cap = on_cap
        self._timers: list[asyncio.TimerHandle] = []
        self._next: asyncio.TimerHandle | None = None

    def start(self, controller: Controller) -> None:
        """From the clock's 0 on, which is about now."""
        self._timers = [self._clock.at(moment, self._tick) for moment in controller.moments]
        if controller.interval_s is not None:
            self._on_interval(0.0, controller.interval_s)

    def stop(self) -> None:
        """Ask it no more."""
        for timer in (*self._timers, self._next):
            if timer is not None:
                timer.cancel()

    def _on_interval(self, time_s: float, interval_s: float) -> None:
        self._tick(time_s)
        # A loop that was held up does not make up for what it missed.
        due = max(time_s + interval_s, self._clock.now)
        self._next = self._clock.at(due, self._on_interval, interval_s)

    def _tick(self, time_s: float, _: None = None) -> None:
        fleet = self._air.fleet
        for server_id, cap in fleet.driver.tick(time_s):
            fleet.set_cap(server_id, cap)
            self._on_cap(fleet.driver.now(), server_id, cap)
            member = fleet.members[server_id]
            limits = [limit for limit in (cap, member.facts.max_running_requests) if limit is not None]
            if member.backend.pushes_caps and limits:
                self._air.push_cap(member.backend, min(limits))
