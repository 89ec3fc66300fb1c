"""Every policy on the scenarios that tell them apart, simulated: ``make policies-compared``.

usage: run.py [--seeds N] [--out FOLDER] [--tables-only]

All policies of a case and seed get the same requests at the same times. Rows go to ``runs.csv`` as they come, seed
after seed, and what is there is not simulated again: delete the file to begin anew. Then the tables between the markers
of README.md, ``estimates.csv`` and the plots are written. Needs SIMROUTE_DATA for the Mooncake trace, and 25 minutes.
"""

import argparse
import csv
import sys
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Final

import numpy as np
from cases import CASES, Case, Contender, contenders
from plots import draw
from tables import METRICS, estimated, read_runs, write_readme

from policies import PolicyError
from simcore.engine import simulate
from simcore.metrics import summarise
from simcore.records import RunResult
from simcore.scenario import Scenario
from simcore.summary import Summary

FIELDS: Final = ("case", "contender", "replicate", *METRICS, "left_out")


def numbers(summary: Summary) -> dict[str, float]:
    """The metrics of a run, or of a part of it."""
    lost = sum(summary.measured[status] for status in ("rejected", "failed", "cancelled"))
    ttft, e2e = summary.latencies["ttft_s"], summary.latencies["e2e_s"]
    return {
        "goodput_rps": summary.goodput_rps,
        "throughput_rps": summary.request_throughput_rps,
        "mean_ttft_s": ttft.mean,
        "p99_ttft_s": ttft.p99,
        "mean_tpot_s": summary.latencies["tpot_s"].mean,
        "mean_e2e_s": e2e.mean,
        "p99_e2e_s": e2e.p99,
        "hits": summary.cache_hit_rate,
        "lost": lost / max(summary.measured_requests, 1),
    }


def blocks(result: RunResult, scenario: Scenario, count: int) -> Iterator[dict[str, float]]:
    """Of as many equal parts of the time in which requests arrive. A request belongs to the part in which it arrives,
    but for throughput to that in which it ends."""
    requests, slo = result.requests, scenario.slo.bounds()
    edges = np.linspace(scenario.warmup_s, requests["arrived_at"].max(), count + 1)
    edges[-1] += 1e-6
    for start, end in pairwise(edges):
        inside = replace(result, requests=requests[requests["arrived_at"].between(start, end, inclusive="left")])
        summary = summarise(inside, slo, float(start))
        ended = requests["finished_at"].between(start, end, inclusive="left").sum()
        good = summary.goodput_rps * summary.window_s
        yield {**numbers(summary), "goodput_rps": good / (end - start), "throughput_rps": ended / (end - start)}


def rows(case: Case, contender: Contender, seed: int) -> Iterator[dict[str, object]]:
    """One simulation's rows; one that says why where the scenario lacks what the policy decides on."""
    key = {"case": case.name, "contender": contender.label}
    scenario = case.load(contender)
    try:
        result = simulate(scenario, contender.spec, seed)
    except PolicyError as error:
        yield {**key, "replicate": seed, "left_out": str(error)}
        return
    if bool(result.oracle) != bool(contender.mark):
        raise RuntimeError(f"{contender.label} on {case.name}: lengths were known: {result.oracle!r}")
    if case.blocks:
        for number, found in enumerate(blocks(result, scenario, case.blocks)):
            yield {**key, "replicate": number, **found}
        return
    yield {**key, "replicate": seed, **numbers(summarise(result, scenario.slo.bounds(), scenario.warmup_s))}


def simulate_all(path: Path, seeds: int) -> None:
    """What is not in the file yet."""
    there = set()
    if path.exists():
        with path.open(encoding="utf-8", newline="") as file:
            there = {(row["case"], row["contender"], int(row["replicate"])) for row in csv.DictReader(file)}
    for seed in range(seeds):
        for case in CASES:
            if case.blocks and seed:
                continue
            for contender in contenders(case):
                if (case.name, contender.label, seed) in there:
                    continue
                with path.open("a", encoding="utf-8", newline="") as file:
                    writer = csv.DictWriter(file, FIELDS)
                    if not file.tell():
                        writer.writeheader()
                    writer.writerows(list(rows(case, contender, seed)))
            print(f"seed {seed}: {case.name}", file=sys.stderr, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=8)
    parser.add_argument("--out", type=Path, default=Path("results/policies"))
    parser.add_argument("--tables-only", action="store_true")
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    path = given.out / "runs.csv"
    if not given.tables_only:
        simulate_all(path, given.seeds)
    runs, left_out = read_runs(path)
    estimates = estimated(runs)
    estimates.to_csv(given.out / "estimates.csv", index=False, float_format="%.6g")
    write_readme(given.out / "README.md", estimates, left_out)
    draw(given.out / "plots", estimates)


main()
