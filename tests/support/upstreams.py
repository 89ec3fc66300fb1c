"""Servers for tests of the live half: emulators, and a proxy that does to their answers what networks do."""

import asyncio
import json
import os
import signal
import socket
import struct
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import psutil

from live.emulator.serving import Emulation, start_emulators
from live.replay.generator import Generator
from live.replay.run import LiveRun, run_live
from live.service.app import Service, running_service
from live.service.config import ServiceConfig
from live.service.serving import listen
from simcore.launch import LaunchParameters
from simcore.profile import ServiceProfile

ROOT = Path(__file__).parents[2]
MODEL = "meta-llama/Llama-3.1-8B"


def profile(**launch: Any) -> ServiceProfile:
    """The profile that tests emulate."""
    return ServiceProfile.load("llama-3.1-8b-h100", Path()).with_launch(LaunchParameters(**launch))


@asynccontextmanager
async def emulated(count: int = 1, **options: Any) -> AsyncIterator[list[str]]:
    """Emulators in this process; ten times as fast, unless told otherwise."""
    options = {"profile": profile(), "speed": 10.0, "incremental": True} | options
    async with AsyncExitStack() as stack:
        yield await start_emulators(Emulation(count=count, **options), stack)


@asynccontextmanager
async def emulator_process(*options: str) -> AsyncIterator[tuple[asyncio.subprocess.Process, str]]:
    """One emulator as a process of its own, to be stopped or killed."""
    command = [sys.executable, "-m", "simroute", "emulate", "--profile", "llama-3.1-8b-h100", "--port", "0", *options]
    process = await asyncio.create_subprocess_exec(*command, cwd=ROOT, stdout=asyncio.subprocess.PIPE)
    assert process.stdout is not None
    try:
        yield process, json.loads(await process.stdout.readline())["servers"][0]
    finally:
        if process.returncode is None:
            # A stopped process takes its signals only once it goes on.
            process.send_signal(signal.SIGCONT)
            process.kill()
        await process.wait()


@asynccontextmanager
async def served(urls: list[str], **config: Any) -> AsyncIterator[tuple[str, Service]]:
    """The router service in front of servers, with short intervals."""
    quick = {"health_interval_s": 0.1, "report_interval_s": 0.1, "backoff_s": 0.01, "port": 0}
    servers = config.pop("servers", [{"url": url} for url in urls])
    settings = ServiceConfig.model_validate(quick | config | {"servers": servers})
    async with running_service(settings) as service, AsyncExitStack() as stack:
        port = await listen(service, settings, stack)
        yield f"http://127.0.0.1:{port}", service


class Chaos:
    """A TCP proxy before one server. ``mode`` says what becomes of requests to /generate; all others pass.

    pass, slow (0.4 s later), hang, reset, refuse (503), garbage: from the first byte on;
    hang_late, reset_late, garbage_late: after the first event; flood: 64 MB of events.
    """

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self.mode = "pass"
        self.seen = 0
        self.bodies: list[bytes] = []
        self.heads: list[bytes] = []
        self.flooded = 0
        self._target = (parts.hostname, parts.port)
        self._tasks: set[asyncio.Task[None]] = set()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[str]:
        """Gives the proxy's address."""
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        try:
            yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        finally:
            server.close()
            for task in list(self._tasks):
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            await self._answer(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            self._tasks.discard(task)
            writer.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        lengths = [line.split(b":")[1] for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:")]
        body = await reader.readexactly(int(lengths[0]) if lengths else 0)
        mode = "pass"
        if head.startswith((b"POST /generate ", b"POST /generate?")):
            mode = self.mode
            self.seen += 1
            self.bodies.append(body)
            self.heads.append(head)
        match mode:
            case "hang":
                await asyncio.sleep(60)
            case "reset":
                _reset(writer)
            case "refuse":
                writer.write(b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 4\r\n\r\nfull")
                await writer.drain()
            case "garbage":
                writer.write(b"\x00\xff\x13 what is this\r\n\r\n")
                await writer.drain()
            case "flood":
                await self._flood(writer)
            case _:
                await self._forward(head, body, writer, mode)

    async def _forward(self, head: bytes, body: bytes, writer: asyncio.StreamWriter, mode: str) -> None:
        if mode == "slow":
            await asyncio.sleep(0.4)
        upstream_reader, upstream = await asyncio.open_connection(*self._target)
        try:
            upstream.write(head.replace(b"\r\n", b"\r\nConnection: close\r\n", 1) + body)
            events = 0
            while data := await upstream_reader.read(65536):
                writer.write(data)
                await writer.drain()
                events += data.count(b"data:")
                if events and mode.endswith("_late"):
                    # What comes next must not reach the router together with this.
                    await asyncio.sleep(0.3)
                if events and mode == "hang_late":
                    await asyncio.sleep(60)
                if events and mode == "reset_late":
                    _reset(writer)
                    return
                if events and mode == "garbage_late":
                    writer.write(b"zzzz this is no chunk\r\n")
                    await writer.drain()
                    return
        finally:
            upstream.close()

    async def _flood(self, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n")
        event = b"data: " + b"x" * 65528 + b"\n\n"
        for _ in range(1024):
            writer.write(event)
            await writer.drain()
            self.flooded += len(event)


def _reset(writer: asyncio.StreamWriter) -> None:
    """Close with RST instead of FIN."""
    raw = writer.get_extra_info("socket")
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


def generate_body(tokens: int = 8, **extra: Any) -> dict[str, Any]:
    """A streaming request."""
    return {
        "text": f"Say something {os.urandom(4).hex()}",
        "sampling_params": {"max_new_tokens": tokens, "ignore_eos": True},
        "stream": True,
        **extra,
    }


async def ask(session: aiohttp.ClientSession, url: str, tokens: int = 8, **extra: Any) -> tuple[int, str]:
    """Send one request; the status and the whole body."""
    async with session.post(f"{url}/generate", json=generate_body(tokens, **extra)) as response:
        return response.status, await response.text()


async def until(condition: Any, within_s: float = 15.0) -> None:
    """Wait for something to become true."""
    async with asyncio.timeout(within_s):
        while not condition():
            await asyncio.sleep(0.01)


async def run_until_servers_vanish(*given: Any) -> LiveRun:
    """``run_live``, whose emulators are killed once three requests have ended, with little patience after that."""
    *what, options, folder, on_progress = given
    emulators = [one for one in psutil.Process().children() if "emulate" in one.cmdline()]

    def vanish(generator: Generator) -> None:
        on_progress(generator)
        while emulators and generator.recorder.ended >= 3:
            emulators.pop().kill()

    return await run_live(*what, replace(options, silent_s=1.0), folder, vanish)
