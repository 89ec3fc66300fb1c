"""What all flights share: the router's driver, the fleet, the timeouts, and what is told to servers on the side."""

import asyncio
import logging
import random
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Protocol

import aiohttp

from live.backends import Backend, BackendError
from live.upstream.head import ResponseHead

from .driver import Driver
from .fleet import Fleet

__all__ = ["Air", "Client", "Timeouts"]

_log = logging.getLogger("simroute.live")


class Client(Protocol):
    """Who asked. ``on_start`` once, then data, then ``on_done`` or ``on_broken``; or one of the other ends alone."""

    def on_start(self, server_id: str, head: ResponseHead) -> None:
        """The answer begins: no other attempt will be made."""

    def on_data(self, data: bytes) -> None:
        """A piece of the answer. Raises BackendError where it makes no sense."""

    def on_done(self) -> str | None:
        """The body is complete; returns why the answer is a failure all the same, or None."""

    def on_broken(self, reason: str) -> None:
        """The rest of the answer is lost."""

    def on_refused(self, reason: str) -> None:
        """It was turned away unserved."""

    def on_failed(self, reason: str) -> None:
        """No attempt brought an answer."""


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Seconds of the wall clock; None for no limit. ``backoff_s`` grows by half with each attempt, give or take a
    fifth."""

    queue_s: float | None = None
    first_byte_s: float | None = 600.0
    idle_s: float | None = 120.0
    backoff_s: float = 0.05


class Air:
    """What all flights share."""

    def __init__(self, driver: Driver, fleet: Fleet, timeouts: Timeouts, rng: random.Random) -> None:
        self.driver = driver
        self.fleet = fleet
        self.timeouts = timeouts
        self.rng = rng
        self.loop = asyncio.get_running_loop()
        self._tasks: set[asyncio.Task[None]] = set()

    def abort(self, backend: Backend, rid: str) -> None:
        """Tell a server to stop a request. That it cannot be told is no one's loss: its connection is closed."""
        self._tell(self._control(backend, f"abort {rid}", backend.abort(rid)))

    def push_cap(self, backend: Backend, limit: int) -> None:
        """Tell a server to run no more than so many requests at once; the router's own cap holds in any case."""
        self._tell(self._control(backend, f"cap its requests at {limit}", backend.set_cap(limit)))

    async def settle(self) -> None:
        """Wait for what was told to servers."""
        await asyncio.gather(*self._tasks)

    def _tell(self, what: Coroutine[None, None, None]) -> None:
        task = self.loop.create_task(what)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _control(self, backend: Backend, what: str, call: Coroutine[None, None, None]) -> None:
        try:
            async with asyncio.timeout(5.0):
                await call
        except (aiohttp.ClientError, BackendError, OSError, TimeoutError) as error:
            _log.warning("%s could not be told to %s: %s", backend.origin.url, what, error)
