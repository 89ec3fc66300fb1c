"""Speed and memory of ``simroute sim``: ``make bench``.

Every run is a process of its own, which measures bare SimPy beside it: times are compared as ratios to that, because
machines differ. SCALED is what a machine would do on which bare SimPy handles 1.6 million timeouts a second.
"""

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

MEASURE = Path(__file__).parent / "measure.py"
REFERENCE_TIMEOUTS_PER_S = 1.6e6


@dataclass(frozen=True, slots=True)
class Run:
    """What ``measure.py`` found: seconds of wall time, making the requests and the tables included, and peak memory."""

    requests: int
    seconds: float
    bare_timeouts_per_s: float
    peak_mib: float

    @property
    def rate(self) -> float:
        return self.requests / self.seconds

    @property
    def scaled_rate(self) -> float:
        return self.rate * REFERENCE_TIMEOUTS_PER_S / self.bare_timeouts_per_s

    @property
    def bare_timeouts_per_request(self) -> float:
        """The cost of a request, in bare SimPy timeouts."""
        return self.seconds * self.bare_timeouts_per_s / self.requests


@dataclass(frozen=True, slots=True)
class Row:
    """A line of the table: what was found beside what is wanted."""

    name: str
    runs: tuple[Run, ...]
    found: str
    wanted: str
    met: bool


def measure(workload: str, requests: int, servers: int, policy: str, repeats: int = 1) -> Run:
    """The fastest of some runs beside the fastest of their bare ones: noise only ever adds time."""
    command = [sys.executable, str(MEASURE), workload, str(requests), str(servers), policy]
    runs = [
        Run(**json.loads(subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout))
        for _ in range(repeats)
    ]
    fastest = min(runs, key=lambda run: run.seconds)
    return replace(fastest, bare_timeouts_per_s=max(run.bare_timeouts_per_s for run in runs))


def rows() -> Iterator[Row]:
    """One after the other, so that they can be shown as they come."""
    for name, workload, requests, bar, aim in (
        ("202 in, 179 out, 60 req/s, 6 servers", "plain", 60_000, 40_000, 80_000),
        ("2,048 in, half shared, 20 req/s, 6 servers", "shared-prefix", 30_000, 20_000, 30_000),
    ):
        run = measure(workload, requests, 6, "round_robin", repeats=3)
        wanted = f"at least {bar:,} req/s scaled (aim {aim:,})"
        yield Row(name, (run,), f"{run.scaled_rate:,.0f} req/s scaled", wanted, run.scaled_rate >= bar)

    few, many = (measure("plain", n, 6, "round_robin", repeats=2) for n in (20_000, 200_000))
    times = 10 * many.bare_timeouts_per_request / few.bare_timeouts_per_request
    yield Row("ten times the requests", (few, many), f"{times:.1f} times the time", "at most 11", times <= 11)

    for policy in ("round_robin", "power_of_two"):
        few, many = (measure("plain", 50_000, servers, policy, repeats=3) for servers in (10, 1_000))
        times = many.bare_timeouts_per_request / few.bare_timeouts_per_request
        found = f"{times:.2f} times the time per request"
        yield Row(f"1,000 servers against 10, {policy}", (few, many), found, "at most 2", times <= 2)

    run = measure("plain", 1_000_000, 6, "round_robin")
    yield Row("a million requests", (run,), f"{run.peak_mib:,.0f} MiB", "under 2 GB", run.peak_mib * 2**20 < 2e9)


def main() -> None:
    """Print the table; exit with 1 where something is not met."""
    table = Table("case", "req/s", "bare SimPy timeouts/s", "peak MiB", "found", "wanted", "met")
    all_met = True
    for row in rows():
        columns: list[Any] = [row.name]
        columns.append(", ".join(f"{run.rate:,.0f}" for run in row.runs))
        columns.append(", ".join(f"{run.bare_timeouts_per_s:,.0f}" for run in row.runs))
        columns.append(", ".join(f"{run.peak_mib:,.0f}" for run in row.runs))
        table.add_row(*columns, row.found, row.wanted, "yes" if row.met else "NO")
        print(f"{row.name}: {row.found} ({row.wanted})", file=sys.stderr, flush=True)
        all_met &= row.met
    Console().print(table)
    sys.exit(not all_met)


if __name__ == "__main__":
    main()
