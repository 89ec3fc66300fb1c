"""Time in the real world, in the run's own seconds."""

import asyncio
from collections.abc import Callable
from typing import Any

__all__ = ["WallClock"]


class WallClock:
    """Seconds since it was made, ``speed`` of them in a second of the wall clock. Belongs to the running event loop."""

    def __init__(self, speed: float = 1.0) -> None:
        self.speed = speed
        self._loop = asyncio.get_running_loop()
        self._started = self._loop.time()

    def restart(self) -> None:
        """It is 0 again. Only before anything was set to a time."""
        self._started = self._loop.time()

    @property
    def now(self) -> float:
        """The time now."""
        return (self._loop.time() - self._started) * self.speed

    def at(self, time_s: float, callback: Callable[[float, Any], None], value: Any = None) -> asyncio.TimerHandle:
        """Call ``callback(time_s, value)`` at ``time_s`` or as soon after it as the loop can."""
        return self._loop.call_at(self._started + time_s / self.speed, callback, time_s, value)
