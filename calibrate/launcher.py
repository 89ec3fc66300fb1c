"""Starting an SGLang server to calibrate, waiting until it is ready, and ending its whole process tree."""

import asyncio
import os
import re
import socket
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import psutil

from simcore.errors import UserError

from .client import SglangClient

__all__ = ["launched_server", "server_command"]

_READY_POLL_S = 1.0
_TAIL_LINES = 15
_END_S = 10.0
_NO_MODEL = (
    r"Repo id must be|does not appear to have|Can't load|Unrecognized model|is not a valid model|"
    r"Incorrect path_or_model_id|No such file or directory.*config\.json"
)
_READINGS = (
    (
        r"out of memory|OutOfMemoryError|Not enough memory|Cannot allocate memory",
        "it ran out of memory: lower --mem-fraction-static or --max-total-tokens, or use a smaller model",
    ),
    (
        r"address already in use|port \d+ is (?:not available|already|in use)",
        "its port is taken: give another with --port",
    ),
    (r"No module named '?sglang", "SGLang is not installed for this Python: name another with --python"),
    (_NO_MODEL, "the model was not found or is none: check the path or name"),
    (r"unrecognized arguments|invalid choice|argument --", "it does not know one of the flags"),
)


def server_command(python: str, model: str, flags: Sequence[str], port: int) -> list[str]:
    """``python -m sglang.launch_server`` on this machine, with a port unless the flags name one."""
    command = [python, "-m", "sglang.launch_server", "--model-path", model, *flags]
    return command if _flag(flags, "--port") else [*command, "--port", str(port)]


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@asynccontextmanager
async def launched_server(
    model: str,
    flags: Sequence[str],
    *,
    python: str | None,
    environment: Mapping[str, str],
    timeout_s: float,
    api_key: str | None,
) -> AsyncIterator[str]:
    """The URL of a server that is ready; it and all its children are gone when the block ends, however it ends.

    Raises UserError with the end of its log and what that means if it dies or is not ready in time.
    """
    port = int(_flag(flags, "--port") or free_port())
    command = server_command(python or sys.executable, model, flags, port)
    with tempfile.TemporaryDirectory(prefix="simroute-launch-") as folder:
        log = Path(folder) / "server.log"
        with log.open("wb") as stream:
            try:
                process = await asyncio.create_subprocess_exec(
                    *command, stdout=stream, stderr=stream, env={**os.environ, **environment}, start_new_session=True
                )
            except OSError as error:
                raise UserError(f"cannot start {command[0]}: {error.strerror}") from error
        try:
            url = f"http://127.0.0.1:{port}"
            await _until_ready(url, process, log, timeout_s, api_key)
            yield url
        finally:
            await _end(process)


def _flag(flags: Sequence[str], name: str) -> str | None:
    """The last value given to a flag, as ``--name value`` or ``--name=value``."""
    value = None
    for index, flag in enumerate(flags):
        if flag == name and index + 1 < len(flags):
            value = flags[index + 1]
        elif flag.startswith(f"{name}="):
            value = flag.partition("=")[2]
    return value


async def _until_ready(
    url: str, process: asyncio.subprocess.Process, log: Path, timeout_s: float, api_key: str | None
) -> None:
    deadline = time.monotonic() + timeout_s
    async with SglangClient(url, api_key) as client:
        while not await client.is_ready():
            if process.returncode is not None:
                raise UserError(
                    f"the server ended with status {process.returncode} before it was ready; {_reading(log)}"
                )
            if time.monotonic() > deadline:
                raise UserError(f"the server was not ready within {timeout_s:.0f} s; {_reading(log)}")
            await asyncio.sleep(_READY_POLL_S)
    # Another server that was there before would answer in its place.
    if process.returncode is not None:
        raise UserError(f"another server answers at {url}, and the one started has ended; {_reading(log)}")


def _reading(log: Path) -> str:
    """What the end of the log means, as far as it is known, and the end itself."""
    lines = log.read_text(errors="replace").splitlines()
    text = "\n".join(lines)
    meaning = next((said for pattern, said in _READINGS if re.search(pattern, text, re.IGNORECASE)), None)
    tail = "\n".join(f"  | {line}" for line in lines[-_TAIL_LINES:])
    return f"{meaning or 'the reason is not one known here'}. The end of its log:\n{tail}"


async def _end(process: asyncio.subprocess.Process) -> None:
    """Terminate the process and its descendants; kill what is left after a while."""
    tree: list[psutil.Process] = []
    try:
        root = psutil.Process(process.pid)
        tree = [root, *root.children(recursive=True)]
    except psutil.NoSuchProcess:
        # It has ended; children of its session, if any, are still to be found.
        tree = [one for one in psutil.process_iter() if _session(one.pid) == process.pid]
    for one in tree:
        _signal(one.terminate)
    _, alive = await asyncio.to_thread(psutil.wait_procs, tree, timeout=_END_S)
    for one in alive:
        _signal(one.kill)
    await process.wait()


def _session(pid: int) -> int | None:
    try:
        return os.getsid(pid)
    except OSError:
        return None


def _signal(send: object) -> None:
    assert callable(send)
    try:
        send()
    except psutil.NoSuchProcess:
        return
