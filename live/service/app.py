"""The router service put together."""

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import IO

import aiohttp
from aiohttp import web

from live.clock import WallClock
from live.routing.air import Air, Timeouts
from live.routing.controlling import Controlling
from live.routing.driver import Driver
from live.routing.event_log import EventLog, RouterSetup
from live.routing.fleet import Fleet, FleetSettings
from policies.predictors import RunningMean

from .admin import Admin
from .auth import Keys
from .config import ServiceConfig, secret
from .dashboard import Dashboard, Decisions
from .metrics import ServiceMetrics
from .proxy import GENERATING, Proxy
from .servers import Connector, check_controller_needs_met, check_needs_met

__all__ = ["Service", "running_service"]


class Service:
    """The parts that others look at: the application, and what it is made of. ``defect`` gets what a policy or a
    controller raises first, after which nothing is routed as it should be."""

    def __init__(
        self, app: web.Application, proxy: Proxy, fleet: Fleet, metrics: ServiceMetrics, defect: asyncio.Future[None]
    ) -> None:
        self.app = app
        self.proxy = proxy
        self.fleet = fleet
        self.metrics = metrics
        self.defect = defect

    async def drain(self, within_s: float) -> int:
        """Take nothing more, and wait until what is under way has ended; returns how much has not."""
        self.proxy.draining = True
        loop = asyncio.get_running_loop()
        deadline = loop.time() + within_s
        while self.fleet.driver.requests and loop.time() < deadline:
            await asyncio.sleep(0.05)
        return self.fleet.driver.requests


@asynccontextmanager
async def running_service(config: ServiceConfig, log: IO[str] | None = None) -> AsyncIterator[Service]:
    """A service whose servers are watched; listening is the caller's. Raises UserError and PolicyError at the start."""
    keys = Keys([key for key in (secret(config.api_key_env) or "").split(",") if key], secret(config.admin_key_env))
    async with AsyncExitStack() as stack:
        timeout = aiohttp.ClientTimeout(total=10)
        session = await stack.enter_async_context(aiohttp.ClientSession(timeout=timeout))
        connector = Connector(session)
        connected = await asyncio.gather(
            *(connector.connect(entry, within_s=config.startup_timeout_s) for entry in config.servers)
        )
        policy = config.policy
        check_needs_met([backend for backend, _ in connected], policy.name, policy.params, config.queue_order)
        setup = RouterSetup(
            servers=tuple(
                entry.config(server_id, facts.model)
                for server_id, entry, (_, facts) in zip(config.server_ids, config.servers, connected, strict=True)
            ),
            policy=policy.name,
            params=policy.params,
            seed=config.seed,
            order=config.queue_order,
            queue_limit=config.queue_limit,
            max_attempts=config.max_attempts,
            controller=config.controller.name if config.controller is not None else "",
            controller_params=config.controller.params if config.controller is not None else {},
        )
        controller = setup.make_controller()
        if controller is not None:
            check_controller_needs_met([backend for backend, _ in connected], controller)
        decisions, clock = Decisions(), WallClock()
        defect: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        driver = Driver(
            setup,
            lambda: clock.now,
            log=EventLog(log, setup) if log else None,
            on_decided=decisions.add,
            on_defect=lambda error: None if defect.done() else defect.set_exception(error),
        )
        fleet = Fleet(driver, _settings(config))
        for server_id, entry, (backend, facts) in zip(config.server_ids, config.servers, connected, strict=True):
            fleet.join(server_id, backend, facts, entry.max_running_requests)
        air = Air(driver, fleet, _timeouts(config), random.Random(config.seed))
        metrics = ServiceMetrics(driver, fleet)
        proxy = Proxy(air, keys, metrics, RunningMean(config.expected_output_tokens))
        admin = Admin(fleet, connector, keys, config.seed, controller)
        dashboard = Dashboard(fleet, metrics, keys, decisions)
        app = web.Application(client_max_size=config.max_body_bytes)
        app.add_routes([web.post(path, proxy.generate) for path in GENERATING])
        app.add_routes([web.get("/v1/models", proxy.models), *admin.routes()])
        app.add_routes([web.get("/dashboard", dashboard.page), web.get("/dashboard/events", dashboard.events)])
        app.add_routes(_Status(proxy, fleet, metrics).routes())
        await stack.enter_async_context(fleet.watching())
        if controller is not None:
            controlling = Controlling(air, clock)
            stack.callback(controlling.stop)
            controlling.start(controller)
        yield Service(app, proxy, fleet, metrics, defect)
        await air.settle()


class _Status:
    """What tells of the router itself."""

    def __init__(self, proxy: Proxy, fleet: Fleet, metrics: ServiceMetrics) -> None:
        self._proxy = proxy
        self._fleet = fleet
        self._metrics = metrics

    def routes(self) -> list[web.RouteDef]:
        return [
            web.get("/health", self.health),
            web.get("/ready", self.ready),
            web.get("/metrics", self.metrics),
            web.get("/model_info", self.model_info),
            web.get("/get_model_info", self.model_info),
            web.get("/server_info", self.server_info),
            web.get("/get_server_info", self.server_info),
        ]

    async def health(self, _: web.Request) -> web.Response:
        """The process lives."""
        return web.Response()

    async def ready(self, _: web.Request) -> web.Response:
        """Whether requests can be served: 503 while draining, and when no server is up."""
        serves = any(member.open for member in self._fleet.members.values())
        return web.Response(status=200 if serves and not self._proxy.draining else 503)

    async def metrics(self, _: web.Request) -> web.Response:
        """For Prometheus."""
        return web.Response(body=self._metrics.text(), headers={"Content-Type": "text/plain; version=0.0.4"})

    async def model_info(self, _: web.Request) -> web.Response:
        """As SGLang, of the first model; its benchmark asks for it."""
        model = self._fleet.models[0]
        return web.json_response({"model_path": model, "served_model_name": model, "is_generation": True})

    async def server_info(self, _: web.Request) -> web.Response:
        """What is behind the router."""
        servers = [{"id": member.server_id, "model": member.facts.model} for member in self._fleet.members.values()]
        return web.json_response({"router": "simroute", "servers": servers, "internal_states": []})


def _settings(config: ServiceConfig) -> FleetSettings:
    return FleetSettings(
        health_interval_s=config.health_interval_s,
        report_interval_s=config.report_interval_s,
        breaker_failures=config.breaker_failures,
        breaker_open_s=config.breaker_open_s,
        breaker_successes=config.breaker_successes,
    )


def _timeouts(config: ServiceConfig) -> Timeouts:
    return Timeouts(
        queue_s=config.queue_timeout_s,
        first_byte_s=config.first_byte_timeout_s,
        idle_s=config.idle_timeout_s,
        backoff_s=config.backoff_s,
    )
