"""Real SGLang servers on the CPU: started, made ready, slowed down, ended."""

import json
import os
import signal
import subprocess
import time
import urllib.request
from contextlib import suppress
from pathlib import Path

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
    "--decode-log-interval": "1",
}
SWITCHES = ["--disable-overlap-schedule", "--sleep-on-idle", "--enable-metrics", "--incremental-streaming-output"]


def start(python: str, model: str, port: int, log: Path, **flags: object) -> subprocess.Popen[bytes]:
    """One server in a process group of its own; ``flags`` change or add to FLAGS: max_total_tokens=768."""
    environment = {**os.environ, "SGLANG_USE_CPU_ENGINE": "1", "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    given = FLAGS | {f"--{name.replace('_', '-')}": str(value) for name, value in flags.items()}
    words = [word for pair in given.items() for word in pair] + SWITCHES
    command = [python, "-m", "sglang.launch_server", "--model-path", model, "--served-model-name", "tiny"]
    with log.open("wb") as output:
        return subprocess.Popen(
            [*command, "--port", str(port), *words],
            env=environment,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def wait(url: str, within_s: float) -> None:
    """Until a server is ready."""
    deadline = time.monotonic() + within_s
    while True:
        try:
            urllib.request.urlopen(f"{url}/ready", timeout=2).close()
            return
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(1)


def slow_down(url: str, sleep_s: float = FORWARD_SLEEP_S) -> None:
    """Let each forward pass take so much longer."""
    body = json.dumps({"forward_sleep_time": sleep_s}).encode()
    request = urllib.request.Request(f"{url}/slow_down", body, {"Content-Type": "application/json"})
    urllib.request.urlopen(request, timeout=10).close()


def stop(server: subprocess.Popen[bytes]) -> None:
    """End a server's whole group."""
    with suppress(ProcessLookupError):
        os.killpg(server.pid, signal.SIGKILL)
    server.wait()
