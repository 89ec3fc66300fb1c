"""A calibrated profile against its server: ``python -m calibrate.closed_loop --url URL --profile PROFILE --out TABLE``.

The requests of ``node-continuous`` are sent to the server by as many clients as the concurrency says, each sending its
next when an answer is complete; the same requests are simulated with the profile. Lengths beyond the server's context
are clipped in both worlds.
"""

import asyncio
import json
import random
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import click
import numpy as np
import numpy.typing as npt

from simcore.engine import simulate
from simcore.errors import UserError
from simcore.profile import ServiceProfile
from simcore.scenario import PolicySpec, Scenario, load_scenario
from simcore.workload import Workload, build_workload

from .client import Answer, SglangClient

__all__ = ["Outcome", "compare", "main", "measure", "simulated"]

Floats = npt.NDArray[np.float64]

_SEED = 0
_BARS = {"tpot_s": 0.05, "ttft_s": 0.15, "throughput_tps": 0.05}


@dataclass(frozen=True, slots=True)
class Outcome:
    """Mean TPOT and TTFT over the requests (seconds), output tokens per second over the whole run."""

    tpot_s: float
    ttft_s: float
    throughput_tps: float


def closed_loop_scenario(profile: Path, concurrency: int, requests: int) -> Scenario:
    """``node-continuous`` as a closed loop on one server with the profile."""
    loaded = ServiceProfile.load(profile.name, profile.parent)
    longest = loaded.context_length // 2
    return load_scenario(
        "node-continuous",
        [
            f"workload.arrivals={{kind: closed_loop, max_concurrency: {concurrency}}}",
            "workload.duration_s=null",
            f"workload.requests={requests}",
            f"workload.lengths.prompt.max_tokens={min(longest, 4096)}",
            f"workload.lengths.output.max_tokens={min(longest // 2, 1024)}",
            f"servers.0.profile={profile.resolve()}",
            "warmup_s=0",
        ],
    )


def simulated(scenario: Scenario) -> Outcome:
    """What the simulator says."""
    table = simulate(scenario, PolicySpec(name="round_robin"), _SEED).requests
    return _outcome(
        (table["first_token_at"] - table["arrived_at"]).to_numpy(),
        (table["finished_at"] - table["first_token_at"]).to_numpy(),
        table["output_tokens"].to_numpy(dtype=np.float64),
        float(table["finished_at"].max() - table["arrived_at"].min()),
    )


async def measure(client: SglangClient, scenario: Scenario, concurrency: int) -> Outcome:
    """What the server does with the same requests."""
    # The simulator's own draw of lengths: the first of the streams that a seed gives.
    stream = np.random.SeedSequence(_SEED).spawn(3)[0]
    workload = build_workload(scenario.workload, stream, base_dir=scenario.base_dir)
    await client.flush_cache()
    started = time.perf_counter()
    answers = await _drive(client, workload, concurrency)
    duration_s = time.perf_counter() - started
    return _outcome(
        np.array([answer.ttft_s for answer in answers]),
        np.array([answer.token_at[-1] - answer.token_at[0] for answer in answers]),
        np.array([float(answer.tokens[-1]) for answer in answers]),
        duration_s,
    )


async def _drive(client: SglangClient, workload: Workload, concurrency: int) -> list[Answer]:
    rng = random.Random()
    queue = list(zip(workload.prompt_tokens.tolist(), workload.output_tokens.tolist(), strict=True))[::-1]
    answers: list[Answer] = []

    async def one_client() -> None:
        while queue:
            prompt, output = queue.pop()
            answers.append(await client.generate([rng.randrange(10, 30_000) for _ in range(prompt)], output))

    await asyncio.gather(*(one_client() for _ in range(concurrency)))
    return answers


def _outcome(ttft_s: Floats, decode_s: Floats, tokens: Floats, duration_s: float) -> Outcome:
    several = tokens > 1
    return Outcome(
        tpot_s=float((decode_s[several] / (tokens[several] - 1)).mean()),
        ttft_s=float(ttft_s.mean()),
        throughput_tps=float(tokens.sum() / duration_s),
    )


def compare(measured: Outcome, found: Outcome) -> dict[str, float]:
    """Simulated over measured, less one, for each figure."""
    return {name: getattr(found, name) / getattr(measured, name) - 1 for name in _BARS}


async def _drive_all(url: str, profile: Path, loads: list[tuple[int, int]]) -> list[dict[str, object]]:
    rows = []
    async with SglangClient(url) as client:
        for concurrency, requests in loads:
            measured = await measure(client, closed_loop_scenario(profile, concurrency, requests), concurrency)
            rows.append(_row(concurrency, requests, measured, profile))
    return rows


def _simulate_again(table: Path, profile: Path) -> list[dict[str, object]]:
    rows = json.loads(table.read_text(encoding="utf-8"))
    return [_row(row["concurrency"], row["requests"], Outcome(**row["measured"]), profile) for row in rows]


def _row(concurrency: int, requests: int, measured: Outcome, profile: Path) -> dict[str, object]:
    """What was measured beside what is simulated, said as well."""
    found = simulated(closed_loop_scenario(profile, concurrency, requests))
    errors = compare(measured, found)
    row: dict[str, object] = {
        "concurrency": concurrency,
        "requests": requests,
        "measured": asdict(measured),
        "simulated": asdict(found),
        "error": errors,
        "within_bars": all(abs(errors[name]) <= bar for name, bar in _BARS.items()),
    }
    click.echo(_line(row, measured, found, errors))
    return row


def _line(row: dict[str, object], measured: Outcome, found: Outcome, errors: dict[str, float]) -> str:
    return (
        f"concurrency {row['concurrency']:>3} ({row['requests']} requests): "
        f"TPOT {measured.tpot_s * 1e3:.2f} ms measured, {found.tpot_s * 1e3:.2f} simulated ({errors['tpot_s']:+.1%}); "
        f"TTFT {measured.ttft_s * 1e3:.1f} ms, {found.ttft_s * 1e3:.1f} ({errors['ttft_s']:+.1%}); "
        f"{measured.throughput_tps:.1f} tokens/s, {found.throughput_tps:.1f} ({errors['throughput_tps']:+.1%})"
    )


@click.command()
@click.option("--url", help="The server that was calibrated.")
@click.option(
    "--measured",
    type=click.Path(path_type=Path, dir_okay=False, exists=True),
    help="Instead: the --out of an earlier call, simulated again with a profile that has more samples since.",
)
@click.option("--profile", required=True, type=click.Path(path_type=Path, dir_okay=False), help="Its profile.")
@click.option("--concurrency", "levels", type=int, multiple=True, default=(1, 4, 16), show_default=True)
@click.option("--requests", type=int, default=24, show_default=True, help="At concurrency 1; more of them above.")
@click.option("--out", type=click.Path(path_type=Path), help="Also write the table as JSON here.")
def main(
    url: str | None, measured: Path | None, profile: Path, levels: tuple[int, ...], requests: int, out: Path | None
) -> None:
    """Drive the server closed loop, simulate the same, and print both."""
    if (url is None) == (measured is None):
        raise click.UsageError("one of --url and --measured is needed")
    loads = [(level, requests * max(1, round(level**0.5))) for level in levels]
    try:
        if url is not None:
            rows = asyncio.run(_drive_all(url, profile, loads))
        else:
            assert measured is not None
            rows = _simulate_again(measured, profile)
    except UserError as error:
        click.echo(f"error: {error}", err=True)
        raise SystemExit(2) from error
    if out is not None:
        out.write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
