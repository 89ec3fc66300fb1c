"""Real SGLang servers on the CPU: started, made ready, slowed down, ended."""

import json
import os
import random
import signal
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

Server = subprocess.Popen[bytes]

FORWARD_SLEEP_S = 0.04
FLAGS = {
    "--load-format": "dummy",
    "--device": "cpu",
    "--host": "127.0.0.1",
    "--attention-backend": "torch_native",
    "--sampling-backend": "pytorch",
    "--dtype": "float32",
    "--max-total-tokens": "65536",
    "--max-running-requests": "16",
    "--load-snapshot-publish-interval": "1",
}
ENVIRONMENT = {
    "SGLANG_USE_CPU_ENGINE": "1",
    "OMP_NUM_THREADS": "1",
    "HF_HUB_OFFLINE": "1",
    # Kernels for bfloat16 are compiled for each number of tokens, 4 to 5 ms at a time: what was compiled is kept.
    "ONEDNN_PRIMITIVE_CACHE_CAPACITY": "16384",
}
SWITCHES = ["--disable-overlap-schedule", "--sleep-on-idle", "--enable-metrics", "--incremental-streaming-output"]


@contextmanager
def running(python: str, model: str, logs: Mapping[int, Path], **flags: object) -> Iterator[dict[str, Server]]:
    """While the block runs, a server on each port, with its log: ready, by their addresses."""
    with ExitStack() as stack:
        servers = {}
        for port, log in logs.items():
            servers[f"http://127.0.0.1:{port}"] = server = start(python, model, port, log, **flags)
            stack.callback(stop, server)
        for url, server in servers.items():
            wait(url, server, 300)
        yield servers


def start(python: str, model: str, port: int, log: Path, **flags: object) -> Server:
    """One server in a process group of its own; ``flags`` change or add to FLAGS: max_total_tokens=768. Raises OSError
    where something listens on the port: it would be measured in the server's place."""
    socket.create_server(("127.0.0.1", port)).close()
    given = FLAGS | {f"--{name.replace('_', '-')}": str(value) for name, value in flags.items()}
    words = [word for pair in given.items() for word in pair] + SWITCHES
    command = [python, "-m", "sglang.launch_server", "--model-path", model, "--served-model-name", "tiny"]
    with log.open("wb") as output:
        return subprocess.Popen(
            [*command, "--port", str(port), *words],
            env=os.environ | ENVIRONMENT,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def wait(url: str, server: Server, within_s: float) -> None:
    """Until a server is ready. Raises RuntimeError where its process ends before, OSError where it takes longer."""
    deadline = time.monotonic() + within_s
    while True:
        try:
            urllib.request.urlopen(f"{url}/ready", timeout=2).close()
            return
        except OSError:
            if server.poll() is not None:
                raise RuntimeError(f"the server of {url} ended, with {server.returncode}") from None
            if time.monotonic() > deadline:
                raise
            time.sleep(1)


def slow_down(url: str, sleep_s: float = FORWARD_SLEEP_S) -> None:
    """Let each forward pass take so much longer."""
    _post(f"{url}/slow_down", {"forward_sleep_time": sleep_s})


def warm_up(urls: Sequence[str], longest: int) -> None:
    """Have every server prefill a prompt of each length up to ``longest`` tokens: the first of a length, or two prompts
    of that length in all, takes 4 to 5 ms longer than those after it, and three times that while others compute. GPUs
    have nothing like it, and a calibration cannot tell how often it happens in use."""

    def one(url: str) -> None:
        rng = random.Random(0)
        for tokens in range(1, longest + 1):
            # Random, so that none is found in the prefix cache.
            prompt = rng.choices(range(1000, 31_000), k=tokens)
            _post(f"{url}/generate", {"input_ids": prompt, "sampling_params": {"max_new_tokens": 1}})
        _post(f"{url}/flush_cache?timeout=10", {})

    with ThreadPoolExecutor(len(urls)) as pool:
        list(pool.map(one, urls))


def _post(url: str, body: dict[str, object]) -> None:
    request = urllib.request.Request(url, json.dumps(body).encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as response:
        response.read()


def stop(server: Server) -> None:
    """End a server's whole group."""
    with suppress(ProcessLookupError):
        os.killpg(server.pid, signal.SIGKILL)
    server.wait()
