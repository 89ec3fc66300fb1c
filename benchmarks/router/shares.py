"""How requests spread: sglang-router beside simroute serve, same policies, same requests, before four emulators.

usage: shares.py --sglang-router PYTHON [--seeds N] [--speed S] [--out FOLDER]

PYTHON is the interpreter of an environment with sglang-router 0.3.2. A seed makes the requests: the same texts at the
same times for every contender, sent in order, and answered whole, not as streams, so that a small machine keeps up.
Each run begins with a fresh router and empty caches. Rows go to ``runs.csv`` as they come, and what is there is not run
again.
"""

import argparse
import asyncio
import csv
import string
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import aiohttp
import numpy as np
from run import process
from shares_table import write_tables

SERVERS: Final = 4
PARAMETERS: Final = {"cache_threshold": 0.3, "balance_abs_threshold": 64, "balance_rel_threshold": 1.5}
LATE_S: Final = 0.25
"""A request that leaves later than this says that the machine was too slow to compare anything on it."""
FIELDS: Final = (
    "load",
    "policy",
    "contender",
    "seed",
    *(f"share_{n}" for n in range(SERVERS)),
    "hits",
    "most_in_flight",
)


@dataclass(frozen=True, slots=True)
class Load:
    """Requests at Poisson times: a group's system prompt and a question; ``hot`` is the first group's share of them.

    Tokens are four letters, as the emulators count them.
    """

    name: str
    requests: int
    rate_rps: float
    groups: int
    prefix_tokens: int
    answer_tokens: tuple[int, int]
    hot: float = 0.0

    def drawn(self, seed: int) -> list[tuple[float, dict[str, Any]]]:
        """When to send what."""
        rng = np.random.default_rng(seed)
        letters = np.array(list(string.ascii_lowercase))
        prefixes = ["".join(rng.choice(letters, 4 * self.prefix_tokens)) for _ in range(self.groups)]
        weights = np.arange(1, self.groups + 1) ** -0.8
        if self.hot:
            weights[0] = weights[1:].sum() * self.hot / (1 - self.hot)
        group = rng.choice(self.groups, self.requests, p=weights / weights.sum())
        at = np.cumsum(rng.exponential(1 / self.rate_rps, self.requests))
        answers = rng.integers(*self.answer_tokens, self.requests, endpoint=True)
        return [
            (float(at[n]), self._body(prefixes[group[n]] + "".join(rng.choice(letters, 256)), int(answers[n])))
            for n in range(self.requests)
        ]

    def _body(self, text: str, answer: int) -> dict[str, Any]:
        return {"text": text, "sampling_params": {"max_new_tokens": answer, "ignore_eos": True}, "stream": False}


EVEN: Final = Load("even", requests=900, rate_rps=40, groups=200, prefix_tokens=1024, answer_tokens=(32, 96))
HOT: Final = Load("hot", requests=900, rate_rps=40, groups=200, prefix_tokens=1024, answer_tokens=(400, 700), hot=0.6)


@dataclass(frozen=True, slots=True)
class Contender:
    """A router; ``extra`` are simroute's parameters beside those that both have."""

    name: str
    extra: tuple[tuple[str, str], ...] = ()

    def command(self, python: str, policy: str, servers: list[str], port: int, folder: Path) -> list[str]:
        """How it is started."""
        if self.name.startswith("sglang-router"):
            fixed = ["--host", "127.0.0.1", "--port", str(port), "--prometheus-port", str(port + 1), "--policy", policy]
            flags = [word for name, value in PARAMETERS.items() for word in (f"--{name.replace('_', '-')}", str(value))]
            return [python, "-m", "sglang_router.launch_router", "--worker-urls", *servers, *fixed, *flags]
        params: dict[str, object] = {**PARAMETERS, **dict(self.extra)} if policy == "cache_aware" else {}
        stated = "".join(f"    {name}: {value}\n" for name, value in params.items())
        config = folder / "servers.yaml"
        config.write_text(
            f"port: {port}\npolicy:\n  name: {policy}\n"
            + (f"  params:\n{stated}" if stated else "")
            + "servers:\n"
            + "".join(f"  - url: {server}\n" for server in servers),
            encoding="utf-8",
        )
        return [sys.executable, "-m", "simroute", "serve", "--config", str(config)]


SGLANG: Final = Contender("sglang-router")
AGAIN: Final = Contender("sglang-router again")
OURS: Final = Contender("simroute")
FIRST: Final = Contender("simroute, first of ties", (("ties", "first"),))
RUNS: Final = (
    *((EVEN, policy, each) for policy in ("round_robin", "random") for each in (SGLANG, AGAIN, OURS)),
    *((load, "cache_aware", each) for load in (EVEN, HOT) for each in (SGLANG, AGAIN, OURS, FIRST)),
)


@contextmanager
def emulators(port: int, seed: int, speed: float) -> Iterator[list[str]]:
    """Four servers with empty caches."""
    servers = [f"http://127.0.0.1:{port + number}" for number in range(SERVERS)]
    fixed = ["--profile", "llama-3.1-8b-h100", "--count", str(SERVERS), "--port", str(port)]
    command = [sys.executable, "-m", "simroute", "emulate", *fixed, "--seed", str(seed), "--speed", str(speed)]
    with process(command, f"{servers[-1]}/ready"):
        yield servers


def counted(server: str) -> int:
    """How many requests a server has been sent."""
    with urllib.request.urlopen(f"{server}/metrics", timeout=10) as reply:
        for line in reply.read().decode().splitlines():
            if line.startswith("sglang:num_requests_total"):
                return int(float(line.split()[-1]))
    raise RuntimeError(f"{server} does not count its requests")


async def send(url: str, drawn: list[tuple[float, dict[str, Any]]], speed: float) -> tuple[float, int]:
    """All requests at their times; the share of their prompts' tokens that was cached, and the most under way."""
    cached, prompts, under_way, most = 0, 0, 0, 0

    async def ask(session: aiohttp.ClientSession, body: dict[str, Any]) -> None:
        nonlocal cached, prompts, under_way, most
        under_way += 1
        most = max(most, under_way)
        async with session.post(f"{url}/generate", json=body) as reply:
            if reply.status != 200:
                raise RuntimeError(f"{url} answered {reply.status}: {await reply.text()}")
            meta = (await reply.json())["meta_info"]
        under_way -= 1
        cached += meta["cached_tokens"]
        prompts += meta["prompt_tokens"]

    connector, timeout = aiohttp.TCPConnector(limit=0), aiohttp.ClientTimeout(total=120)
    async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session, asyncio.TaskGroup() as group:
        start = time.monotonic()
        for at, body in drawn:
            late = time.monotonic() - start - at / speed
            if late > LATE_S:
                raise RuntimeError(f"a request left {late:.2f} s late: the machine is too busy for this load")
            await asyncio.sleep(max(-late, 0.0))
            group.create_task(ask(session, body))
    return cached / prompts, most


def one(
    load: Load, policy: str, contender: Contender, seed: int, given: argparse.Namespace, port: int
) -> dict[str, Any]:
    """One run: the servers' shares, the greatest first, and the hits."""
    drawn = load.drawn(seed)
    with tempfile.TemporaryDirectory() as folder, emulators(port, seed, given.speed) as servers:
        command = contender.command(given.sglang_router, policy, servers, port + 10, Path(folder))
        url = f"http://127.0.0.1:{port + 10}"
        ready = "readiness" if contender.name.startswith("sglang-router") else "health"
        with process(command, f"{url}/{ready}"):
            time.sleep(1.0)
            hits, most = asyncio.run(send(url, drawn, given.speed))
        requests = sorted((counted(server) for server in servers), reverse=True)
    if sum(requests) != load.requests:
        raise RuntimeError(f"{load.requests} requests were sent, the servers got {requests}")
    shares = {f"share_{number}": round(count / load.requests, 4) for number, count in enumerate(requests)}
    key = {"load": load.name, "policy": policy, "contender": contender.name, "seed": seed}
    return {**key, **shares, "hits": round(hits, 4), "most_in_flight": most}


def known(path: Path) -> set[tuple[str, ...]]:
    """The runs that are there."""
    if not path.exists():
        return set()
    with path.open(encoding="utf-8", newline="") as file:
        return {(row["load"], row["policy"], row["contender"], row["seed"]) for row in csv.DictReader(file)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sglang-router", metavar="PYTHON", required=True)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--speed", type=float, default=2.0)
    parser.add_argument("--port", type=int, default=23100)
    parser.add_argument("--out", type=Path, default=Path("results/sglang-router-shares"))
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    path = given.out / "runs.csv"
    there = known(path)
    for seed in range(given.seeds):
        for number, (load, policy, contender) in enumerate(RUNS):
            if (load.name, policy, contender.name, str(seed)) in there:
                continue
            row = one(load, policy, contender, seed, given, given.port + 20 * (number + len(RUNS) * (seed % 2)))
            with path.open("a", encoding="utf-8", newline="") as file:
                writer = csv.DictWriter(file, FIELDS)
                if not file.tell():
                    writer.writeheader()
                writer.writerow(row)
            print(row, file=sys.stderr, flush=True)
    write_tables(path, given.out / "README.md")


main()
