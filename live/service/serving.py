"""``simroute serve``: the service on a socket, until it is told to stop."""

import asyncio
import gc
import logging
import signal
from collections.abc import Coroutine
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import click
from aiohttp import web

from simcore.errors import UserError

from .app import Service, running_service
from .config import ServiceConfig

__all__ = ["listen", "serve"]

_LOOPBACK = ("127.0.0.1", "::1", "localhost")


async def serve(config: ServiceConfig, event_log: Path | None) -> int:
    """Serve until SIGTERM or Ctrl-C, then drain; a second signal ends at once. Returns how many requests were cut.

    Ends at once with what a policy or a controller raises: requests of which it was told would wait for ever.
    """
    logging.getLogger("aiohttp.server").setLevel(logging.ERROR)
    if config.host not in _LOOPBACK and config.api_key_env is None:
        raise UserError(f"host {config.host} can be reached by others: set api_key_env, so that clients need a key")
    stop, stop_now = asyncio.Event(), asyncio.Event()

    def on_signal() -> None:
        (stop_now if stop.is_set() else stop).set()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, on_signal)
    async with AsyncExitStack() as stack:
        log = stack.enter_context(event_log.open("w", encoding="utf-8")) if event_log else None
        service = await stack.enter_async_context(running_service(config, log))
        port = await listen(service, config, stack)
        _collect_rarely()
        click.echo(f"simroute serves on http://{config.host}:{port} with {config.policy.label}", err=True)
        await _first_of(service, stop.wait())
        click.echo(f"simroute: {service.fleet.driver.requests} requests are under way", err=True)
        await _first_of(service, service.drain(config.drain_timeout_s), stop_now.wait())
        return service.fleet.driver.requests


async def _first_of(service: Service, *ends: Coroutine[Any, Any, object]) -> None:
    """Return when one of them has ended; the others are cancelled. Raises what a policy or a controller raises."""
    tasks: list[asyncio.Future[Any]] = [asyncio.ensure_future(end) for end in ends]
    await asyncio.wait([*tasks, service.defect], return_when=asyncio.FIRST_COMPLETED)
    for task in tasks:
        task.cancel()
    if service.defect.done():
        click.echo(f"simroute: routing failed with {service.fleet.driver.requests} requests under way", err=True)
        service.defect.result()


def _collect_rarely() -> None:
    """What lives as long as the service is left out of garbage collections, and the others come less often: one in the
    middle of a thousand streams would hold them all up."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(2_000, 500, 50)


async def listen(service: Service, config: ServiceConfig, stack: AsyncExitStack) -> int:
    """Take connections until ``stack`` is closed; returns the port. Raises UserError where it is taken."""
    runner = web.AppRunner(service.app, handler_cancellation=True, access_log=None, shutdown_timeout=1.0)
    await runner.setup()
    stack.push_async_callback(runner.cleanup)
    site = web.TCPSite(runner, config.host, config.port, backlog=2048)
    try:
        await site.start()
    except OSError as error:
        raise UserError(f"cannot listen on {config.host}:{config.port}: {error.strerror}") from error
    port: int = runner.addresses[0][1]
    return port
