"""What a router costs: simroute serve beside sglang-router and no router at all, against trivial servers on loopback.

usage: run.py [--sglang-router PYTHON] [--uvloop PYTHON] [--seconds S] [--rounds N] [--out FILE]

PYTHON are interpreters of environments with sglang-router 0.3.2, and with simroute's dependencies and uvloop. Per round
every contender is measured in turn: at 300 requests a second, with streams of 64 events that last 3.2 s, so that some
1,000 are under way; then with 32 clients that send as fast as they are answered, their streams at once.
``others_processors`` is how many processors were taken meanwhile by what is not the benchmark's.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
EVENTS, INTERVAL_S, RATE, CLIENTS = 64, 0.05, 300, 32


@contextmanager
def process(command: list[str], ready: str) -> Iterator[psutil.Process]:
    """A process that answers at ``ready``, ended after the block."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    child = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 60
        while True:
            try:
                urllib.request.urlopen(ready, timeout=1).close()
                break
            except OSError:
                if child.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError(f"{command} does not answer at {ready}") from None
                time.sleep(0.2)
        yield psutil.Process(child.pid)
    finally:
        child.terminate()
        child.wait(20)


@contextmanager
def upstream(interval_s: float, port: int, events: int = EVENTS) -> Iterator[str]:
    """A trivial server."""
    url = f"http://127.0.0.1:{port}"
    command = [sys.executable, str(HERE / "upstream.py"), str(port), str(events), str(interval_s)]
    with process(command, f"{url}/ready"):
        yield url


def router_command(contender: str, python: str, server: str, port: int, folder: Path) -> list[str]:
    """How a contender is started."""
    if contender == "sglang-router":
        fixed = ["--host", "127.0.0.1", "--port", str(port), "--policy", "round_robin"]
        return [python, "-m", "sglang_router.launch_router", "--worker-urls", server, *fixed]
    config = folder / "servers.yaml"
    config.write_text(f"policy: round_robin\nport: {port}\nservers:\n  - url: {server}\n", encoding="utf-8")
    return [python, "-m", "simroute", "serve", "--config", str(config)]


def load(url: str, seconds: float, kind: str, amount: float) -> dict[str, Any]:
    """Run the load."""
    command = [sys.executable, str(HERE / "load.py"), url, str(seconds), kind, str(amount)]
    result: dict[str, Any] = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return result


def measured(url: str, seconds: float, kind: str, amount: float, router: psutil.Process | None) -> dict[str, Any]:
    """Load, and the router's own processor time and memory."""
    before, ours, all_of_it, started = cpu_s(router), own_cpu_s(), psutil.cpu_times(), time.monotonic()
    result = load(url, seconds, kind, amount)
    busy = sum(psutil.cpu_times()[:3]) - sum(all_of_it[:3])
    result["others_processors"] = round((busy - (own_cpu_s() - ours)) / (time.monotonic() - started), 2)
    result["cpu_ms_per_request"] = round((cpu_s(router) - before) / max(result["requests"], 1) * 1e3, 3)
    result["memory_mb"] = round(router.memory_info().rss / 1e6, 1) if router else None
    result["load_average"] = round(os.getloadavg()[0], 2)
    return result


def own_cpu_s() -> float:
    """Processor time of all that the benchmark has started, ended or not."""
    running = sum(sum(child.cpu_times()[:2]) for child in psutil.Process().children(recursive=True))
    return running + sum(os.times()[2:4])


def cpu_s(router: psutil.Process | None) -> float:
    """Processor time of a process and its children."""
    if router is None:
        return 0.0
    family = [router, *router.children(recursive=True)]
    return sum(sum(member.cpu_times()[:2]) for member in family)


def one(contender: str, python: str, seconds: float, port: int) -> dict[str, Any]:
    """Both measurements of one contender."""
    found: dict[str, Any] = {}
    for name, interval_s, kind, amount in (
        ("steady", INTERVAL_S, "rate", RATE),
        ("flat_out", 0.0, "clients", CLIENTS),
    ):
        with tempfile.TemporaryDirectory() as folder, upstream(interval_s, port) as server:
            if contender == "none":
                found[name] = measured(server, seconds, kind, amount, None)
                continue
            url = f"http://127.0.0.1:{port + 50}"
            command = router_command(contender, python, server, port + 50, Path(folder))
            with process(command, f"{url}/health") as router:
                time.sleep(1.5)
                load(url, 2.0, kind, min(amount, 50))
                found[name] = measured(url, seconds, kind, amount, router)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sglang-router", metavar="PYTHON")
    parser.add_argument("--uvloop", metavar="PYTHON")
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    contenders = {"none": sys.executable, "simroute": sys.executable}
    if given.uvloop:
        contenders["simroute with uvloop"] = given.uvloop
    if given.sglang_router:
        contenders["sglang-router"] = given.sglang_router
    rounds = []
    for number in range(given.rounds):
        found = {}
        for index, (contender, python) in enumerate(contenders.items()):
            found[contender] = one(contender, python, given.seconds, 32100 + 100 * number + 10 * index)
            print(json.dumps({contender: found[contender]}), file=sys.stderr, flush=True)
        rounds.append(found)
    document = {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processors": os.cpu_count(),
        "events": EVENTS,
        "interval_s": INTERVAL_S,
        "rate_rps": RATE,
        "clients": CLIENTS,
        "rounds": rounds,
    }
    text = json.dumps(document, indent=2)
    print(text) if given.out is None else given.out.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
