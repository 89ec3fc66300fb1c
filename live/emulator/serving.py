"""``simroute emulate``: servers on consecutive ports of the loopback interface, until they are told to stop."""

import asyncio
import json
import logging
import signal
import socket
from contextlib import AsyncExitStack
from dataclasses import dataclass

import click
import numpy as np
from aiohttp import web

from live.clock import WallClock
from simcore.errors import UserError
from simcore.remote_profile import AnyProfile

from .app import emulator_app
from .engine import Engine
from .replies import EMULATOR

__all__ = ["Emulation", "emulate", "start_emulators"]


@dataclass(frozen=True, slots=True)
class Emulation:
    """The options of ``simroute emulate``. ``port`` 0 means any free ones."""

    profile: AnyProfile
    host: str = "127.0.0.1"
    port: int = 0
    count: int = 1
    speed: float = 1.0
    seed: int = 0
    incremental: bool = False
    api_key: str | None = None


async def start_emulators(options: Emulation, stack: AsyncExitStack) -> list[str]:
    """Serve until ``stack`` is closed; returns the servers' addresses. Raises UserError for a port that is taken."""
    clock = WallClock(options.speed)
    urls = []
    for index, seed in enumerate(np.random.SeedSequence(options.seed).spawn(options.count)):
        engine = Engine(clock, options.profile, f"s{index}", seed)
        app = emulator_app(engine, incremental=options.incremental, api_key=options.api_key)
        runner = web.AppRunner(app, handler_cancellation=True, access_log=None, shutdown_timeout=0.5)
        await runner.setup()
        stack.push_async_callback(runner.cleanup)
        listener = _bind(options.host, options.port + index if options.port else 0)
        await web.SockSite(runner, listener, backlog=1024).start()
        urls.append(f"http://{options.host}:{listener.getsockname()[1]}")
    return urls


async def emulate(options: Emulation) -> None:
    """Serve until SIGTERM or Ctrl-C. The first line on stdout is JSON and says where, once all can be reached."""
    logging.getLogger("aiohttp.server").setLevel(logging.ERROR)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    async with AsyncExitStack() as stack:
        urls = await start_emulators(options, stack)
        click.echo(json.dumps({"emulator": EMULATOR, "profile": options.profile.name, "servers": urls}))
        await stop.wait()


def _bind(host: str, port: int) -> socket.socket:
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        raise UserError(f"cannot listen on {host}:{port}: {error.strerror}") from error
    return listener
