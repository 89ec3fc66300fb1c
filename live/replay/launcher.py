"""Servers started for a run, and stopped after it: emulators, or SGLang on this machine's GPUs."""

import asyncio
import json
import os
import shlex
import socket
import sys
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from itertools import groupby
from pathlib import Path

import aiohttp
import psutil

from simcore.errors import UserError
from simcore.remote_profile import AnyProfile, RemoteProfile

__all__ = ["SGLangLaunch", "backends_of", "emulators", "sglang_servers"]

_STARTUP_S = 60.0
_STOP_S = 5.0


def backends_of(profiles: Sequence[AnyProfile]) -> tuple[str, ...]:
    """The kinds of ``emulators`` of these profiles, as ``BACKENDS`` names them."""
    return tuple("openai" if isinstance(profile, RemoteProfile) else "sglang" for profile in profiles)


@asynccontextmanager
async def emulators(profiles: Sequence[AnyProfile], *, speed: float, seed: int) -> AsyncIterator[list[str]]:
    """One emulated server a profile, in processes of their own; gives their addresses in order."""
    with tempfile.TemporaryDirectory(prefix="simroute-") as folder:
        started: list[asyncio.subprocess.Process] = []
        urls: list[str] = []
        try:
            for number, (profile, group) in enumerate(groupby(profiles)):
                file = Path(folder) / f"{number}.json"
                file.write_text(profile.to_json(), encoding="utf-8")
                options = ["--profile", str(file), "--count", str(len(list(group))), "--speed", repr(speed)]
                command = [sys.executable, "-m", "simroute", "emulate", *options, "--port", "0", "--incremental"]
                started.append(await _start([*command, "--seed", str(seed + number)]))
            for process in started:
                urls += await _addresses(process)
            yield urls
        finally:
            for process in started:
                await _stop(process)


class SGLangLaunch:
    """How SGLang is started: ``python -m sglang.launch_server --model-path MODEL`` and more, one server a GPU."""

    def __init__(self, model: str, *, python: str, arguments: str, startup_s: float) -> None:
        self.model = model
        self.python = python
        self.arguments = shlex.split(arguments)
        self.startup_s = startup_s

    def command(self, port: int) -> list[str]:
        """The command line of one server."""
        fixed = ["--host", "127.0.0.1", "--port", str(port), "--enable-metrics", "--incremental-streaming-output"]
        return [self.python, "-m", "sglang.launch_server", "--model-path", self.model, *fixed, *self.arguments]


@asynccontextmanager
async def sglang_servers(launch: SGLangLaunch, count: int) -> AsyncIterator[list[str]]:
    """SGLang on GPUs 0 to ``count`` - 1; gives their addresses once all are ready. Raises UserError where one ends."""
    started: list[asyncio.subprocess.Process] = []
    try:
        urls = []
        for gpu in range(count):
            port = _free_port()
            started.append(
                await _start(launch.command(port), environment={"CUDA_VISIBLE_DEVICES": str(gpu)}, quiet=True)
            )
            urls.append(f"http://127.0.0.1:{port}")
        await asyncio.gather(
            *(_ready(url, process, launch.startup_s) for url, process in zip(urls, started, strict=True))
        )
        yield urls
    finally:
        for process in started:
            await _stop(process)


async def _start(
    command: Sequence[str], *, environment: dict[str, str] | None = None, quiet: bool = False
) -> asyncio.subprocess.Process:
    """A child that does not see this terminal's Ctrl-C: it is stopped when the run has ended."""
    try:
        return await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL if quiet else asyncio.subprocess.PIPE,
            env={**os.environ, **(environment or {})},
            start_new_session=True,
        )
    except OSError as error:
        raise UserError(f"cannot start {shlex.join(command)}: {error.strerror}") from error


async def _addresses(process: asyncio.subprocess.Process) -> list[str]:
    assert process.stdout is not None
    async with asyncio.timeout(_STARTUP_S):
        line = await process.stdout.readline()
    if not line:
        raise RuntimeError(f"an emulator ended with {await process.wait()} before it served")
    urls: list[str] = json.loads(line)["servers"]
    return urls


async def _ready(url: str, process: asyncio.subprocess.Process, within_s: float) -> None:
    loop = asyncio.get_running_loop()
    deadline = loop.time() + within_s
    async with aiohttp.ClientSession() as session:
        while loop.time() < deadline:
            if process.returncode is not None:
                raise UserError(f"the SGLang server for {url} ended with {process.returncode}; its output says why")
            with suppress(aiohttp.ClientError, OSError, TimeoutError):
                async with session.get(f"{url}/ready", timeout=aiohttp.ClientTimeout(total=5)) as response:
                    if response.status == 200:
                        return
            await asyncio.sleep(0.5)
    raise UserError(f"the SGLang server for {url} is not ready after {within_s:g} s")


async def _stop(process: asyncio.subprocess.Process) -> None:
    """End a process and its children; none is left afterwards."""
    children: list[psutil.Process] = []
    with suppress(psutil.NoSuchProcess):
        root = psutil.Process(process.pid)
        children = root.children(recursive=True)
        for one in (root, *children):
            with suppress(psutil.NoSuchProcess):
                one.terminate()
    # asyncio's own wait for the process that is its child: who else waits for it takes its exit status away.
    with suppress(TimeoutError):
        async with asyncio.timeout(_STOP_S):
            await process.wait()
    _, alive = await asyncio.to_thread(psutil.wait_procs, children, _STOP_S)
    for one in alive:
        with suppress(psutil.NoSuchProcess):
            one.kill()
    with suppress(ProcessLookupError):
        process.kill()
    await process.wait()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
