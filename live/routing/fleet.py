"""The servers behind a driver: whether each may be dispatched to, and with which cap."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

import aiohttp

from live.backends import Backend, BackendError, Facts
from policies.ledger import ServerConfig, ServerReport

from .breaker import Breaker
from .driver import Driver

__all__ = ["Fleet", "FleetSettings", "Member"]

_HALF_OPEN_CAP = 1


@dataclass(frozen=True, slots=True)
class FleetSettings:
    """Intervals in seconds of the wall clock. ``unready_after`` checks in a row make a server unhealthy."""

    health_interval_s: float = 1.0
    health_timeout_s: float = 2.0
    unready_after: int = 2
    report_interval_s: float = 1.0
    breaker_failures: int = 5
    breaker_open_s: float = 5.0
    breaker_successes: int = 3


class Member:
    """One server: what is known of it, and what was decided about it."""

    def __init__(self, server_id: str, backend: Backend, facts: Facts, cap: int | None, breaker: Breaker) -> None:
        self.server_id = server_id
        self.backend = backend
        self.facts = facts
        self.cap = cap
        self.breaker = breaker
        self.ready = True
        self.draining = False
        self.unready_checks = 0
        self.report: ServerReport | None = None

    @property
    def open(self) -> bool:
        """Whether it may be dispatched to, as far as its cap allows."""
        return self.ready and not self.draining and self.breaker.state != "open"


class Fleet:
    """Checks servers, polls their load, and keeps the driver's router up to date. ``on_report`` sees each report."""

    def __init__(
        self,
        driver: Driver,
        settings: FleetSettings,
        *,
        on_report: Callable[[Member, ServerReport], None] = lambda _member, _report: None,
        speed: float = 1.0,
    ) -> None:
        self.driver = driver
        self.settings = settings
        self.members: dict[str, Member] = {}
        self._on_report = on_report
        self._speed = speed
        self._watchers: dict[str, list[asyncio.Task[None]]] = {}
        self._rooms: dict[str, asyncio.TimerHandle] = {}

    # -- who is there --------------------------------------------------------------------------------------------

    def join(self, server_id: str, backend: Backend, facts: Facts, cap: int | None) -> Member:
        """A server that the driver's router knows already."""
        settings = self.settings
        breaker = Breaker(
            failures=settings.breaker_failures,
            open_s=settings.breaker_open_s * self._speed,
            successes=settings.breaker_successes,
        )
        member = self.members[server_id] = Member(server_id, backend, facts, cap, breaker)
        return member

    def add(self, config: ServerConfig, backend: Backend, facts: Facts) -> Member:
        """A new server, watched from now on. Raises PolicyError where its id is taken."""
        self.driver.add_server(config)
        member = self.join(config.server_id, backend, facts, config.max_running_requests)
        self.watch(member)
        return member

    def remove(self, server_id: str) -> None:
        """A server leaves. Raises PolicyError where requests are in flight there."""
        self.driver.remove_server(server_id)
        for task in self._watchers.pop(server_id, ()):
            task.cancel()
        self.members.pop(server_id).backend.origin.close()

    def has_open(self, model: str) -> bool:
        """Whether any server of that model may be dispatched to."""
        return any(member.open for member in self.members.values() if member.facts.model == model)

    @property
    def models(self) -> list[str]:
        """What is served, each once."""
        return list(dict.fromkeys(member.facts.model for member in self.members.values()))

    # -- decisions about a server --------------------------------------------------------------------------------

    def set_cap(self, server_id: str, cap: int | None) -> None:
        """The router's cap, at once."""
        self.members[server_id].cap = cap
        self._apply(self.members[server_id])

    def drain(self, server_id: str, *, draining: bool) -> None:
        """Send it nothing more; what runs there ends by itself."""
        self.members[server_id].draining = draining
        self._apply(self.members[server_id])

    def succeeded(self, server_id: str) -> None:
        """A request was served there."""
        self._count(server_id, failed=False)

    def failed(self, server_id: str) -> None:
        """A request failed there, by the server's fault."""
        self._count(server_id, failed=True)

    def has_limit(self, server_id: str) -> bool:
        """Whether the router keeps account of a server's rate limit."""
        state = self.driver.servers.get(server_id)
        return state is not None and state.rate is not None

    def sent(self, server_id: str) -> None:
        """A request went there, or was sent back for the rate limit: where that is used up, the router is told when it
        leaves room again."""
        state = self.driver.servers.get(server_id)
        if state is None or state.rate is None or state.in_budget or server_id in self._rooms:
            return
        wait_s = max(state.rate.opens_at - self.driver.now(), 0.0) / self._speed
        self._rooms[server_id] = asyncio.get_running_loop().call_later(wait_s, self._on_room, server_id)

    def limited(self, server_id: str, request_id: int, retry_after_s: float) -> None:
        """A server sent a request back for its rate limit, and wants the next one after this time of the wall clock."""
        self.driver.limited(request_id, retry_after_s * self._speed)
        self.sent(server_id)

    def _on_room(self, server_id: str) -> None:
        del self._rooms[server_id]
        if server_id in self.members:
            self.driver.room(server_id)
            self.sent(server_id)

    def _count(self, server_id: str, *, failed: bool) -> None:
        member = self.members.get(server_id)
        if member is None:
            return
        before, breaker = member.breaker.state, member.breaker
        if failed:
            breaker.failed(self.driver.now())
        else:
            breaker.succeeded()
        if breaker.state != before:
            self._apply(member)

    def _apply(self, member: Member) -> None:
        """Tell the router what holds now: first what closes, then what opens."""
        cap = member.cap
        if member.breaker.state == "half_open":
            cap = min(cap or _HALF_OPEN_CAP, _HALF_OPEN_CAP)
        if not member.open:
            self.driver.set_health(member.server_id, False)
        if self.driver.servers[member.server_id].max_running_requests != cap:
            self.driver.set_cap(member.server_id, cap)
        if member.open:
            self.driver.set_health(member.server_id, True)

    # -- watching ------------------------------------------------------------------------------------------------

    @contextlib.asynccontextmanager
    async def watching(self) -> AsyncIterator[None]:
        """Check and poll all servers while the block runs."""
        for member in list(self.members.values()):
            self.watch(member)
        try:
            yield
        finally:
            tasks = [task for watchers in self._watchers.values() for task in watchers]
            for task in tasks:
                task.cancel()
            for timer in self._rooms.values():
                timer.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            for member in self.members.values():
                member.backend.origin.close()

    def watch(self, member: Member) -> None:
        """Check and poll one server from now on."""
        loop = asyncio.get_running_loop()
        tasks = [loop.create_task(self._check(member))]
        if member.backend.reports:
            tasks.append(loop.create_task(self._poll(member)))
        for task in tasks:
            task.add_done_callback(_told_if_broken)
        self._watchers[member.server_id] = tasks

    async def _check(self, member: Member) -> None:
        settings = self.settings
        while True:
            await asyncio.sleep(settings.health_interval_s)
            try:
                async with asyncio.timeout(settings.health_timeout_s):
                    ready = await member.backend.is_ready()
            except (aiohttp.ClientError, OSError, TimeoutError):
                ready = False
            member.unready_checks = 0 if ready else member.unready_checks + 1
            if ready or member.unready_checks >= settings.unready_after:
                member.ready = ready
            member.breaker.tick(self.driver.now())
            self._apply(member)

    async def _poll(self, member: Member) -> None:
        """A report is as of the moment it was asked for; one that does not come leaves the last to grow old."""
        loop = asyncio.get_running_loop()
        due = loop.time()
        while True:
            with contextlib.suppress(aiohttp.ClientError, BackendError, OSError, TimeoutError):
                async with asyncio.timeout(self.settings.health_timeout_s):
                    report = await member.backend.load(self.driver.now(), self.driver.needs)
                member.report = report
                self._on_report(member, report)
                self.driver.report(member.server_id, report)
            due = max(due + self.settings.report_interval_s, loop.time())
            await asyncio.sleep(due - loop.time())


def _told_if_broken(task: asyncio.Task[None]) -> None:
    """What ends a watch, such as a policy's mistake in ``on_report``, is not kept until somebody asks for it."""
    if not task.cancelled() and (error := task.exception()) is not None:
        task.get_loop().call_exception_handler({"message": "a server's watch has ended", "exception": error})
