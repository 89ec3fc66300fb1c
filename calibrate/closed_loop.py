"""A calibrated profile against its server: ``python -m calibrate.closed_loop --url URL --profile PROFILE --out TABLE``.

The requests of ``node-continuous`` are sent to the server by as many clients as the concurrency says, each sending its
next when an answer is complete; the same requests are simulated with the profile. Lengths beyond the server's context
are clipped in both worlds.

A machine that changes its pace between the two is no error of the profile: with ``--in-turns FOLDER`` calibration and
closed loop take turns, and the means of all loops are held against what was calibrated in all turns.
"""

import asyncio
import json
import random
import sys
from collections.abc import Sequence
from dataclasses import asdict, astuple, dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import click
import numpy as np
import numpy.typing as npt

from simcore.cli.duration import DurationOption
from simcore.engine import simulate
from simcore.errors import UserError
from simcore.profile import ServiceProfile
from simcore.scenario import PolicySpec, Scenario, load_scenario
from simcore.workload import Workload, build_workload

from .client import Answer, SglangClient
from .host import Spell, beside
from .neighbours import Neighbours
from .session import Order, calibrate_server

__all__ = ["Outcome", "compare", "in_turns", "main", "measure", "simulated"]

Floats = npt.NDArray[np.float64]
Load = tuple[int, int]
"""Concurrency and requests."""

_SEED = 0
_PROFILE = "profile.json"
_BARS = {"tpot_s": 0.05, "ttft_s": 0.15, "throughput_tps": 0.05}


@dataclass(frozen=True, slots=True)
class Outcome:
    """Mean TPOT and TTFT over the requests (seconds), output tokens per second over the whole run; the share of the
    machine's time that was stolen meanwhile, and how long the work took that tells its pace (seconds): 0 and None where
    that could not be seen."""

    tpot_s: float
    ttft_s: float
    throughput_tps: float
    stolen: float = 0.0
    work_s: float | None = None


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
    with Neighbours(client.url) as neighbours:
        neighbours.start()
        clock = asyncio.get_running_loop().time
        started = clock()
        answers = await _drive(client, workload, concurrency)
        duration_s = clock() - started
        meanwhile = neighbours.meanwhile()
    outcome = _outcome(
        np.array([answer.ttft_s for answer in answers]),
        np.array([answer.token_at[-1] - answer.token_at[0] for answer in answers]),
        np.array([float(answer.tokens[-1]) for answer in answers]),
        duration_s,
    )
    return replace(outcome, stolen=meanwhile.stolen, work_s=meanwhile.work_s)


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


async def _drive_all(url: str, profile: Path, loads: list[Load]) -> list[Outcome]:
    async with SglangClient(url) as client:
        return [
            await measure(client, closed_loop_scenario(profile, concurrency, requests), concurrency)
            for concurrency, requests in loads
        ]


async def in_turns(url: str, folder: Path, turns: int, budget_s: float, loads: list[Load]) -> list[Outcome]:
    """The mean of each load over the turns; the profile in ``folder`` has the samples of all of them. Raises UserError
    when the server fails."""
    rounds = []
    for turn in range(turns):
        order = Order(
            url=url,
            api_key=None,
            budget_s=budget_s,
            folder=folder,
            resume=turn > 0,
            allow_busy=False,
            name=folder.name,
            gpu=None,
            command=["python", "-m", "calibrate.closed_loop", *sys.argv[1:]],
        )
        await calibrate_server(order, lambda *_: None, click.echo)
        rounds.append(await _drive_all(url, folder / _PROFILE, loads))
    return [_mean(outcomes) for outcomes in zip(*rounds, strict=True)]


def _mean(outcomes: Sequence[Outcome]) -> Outcome:
    columns = np.array([astuple(outcome) for outcome in outcomes], dtype=np.float64).T
    means = [float(column.mean()) for column in columns]
    # Timed beside all of them, or beside none.
    return replace(Outcome(*means), work_s=None if np.isnan(means[-1]) else means[-1])


def _measured_before(table: Path) -> tuple[list[Load], list[Outcome]]:
    rows = json.loads(table.read_text(encoding="utf-8"))
    return [(row["concurrency"], row["requests"]) for row in rows], [Outcome(**row["measured"]) for row in rows]


def _row(concurrency: int, requests: int, measured: Outcome, profile: Path) -> dict[str, object]:
    """What was measured beside what is simulated, on a machine as it was meanwhile; said as well."""
    with TemporaryDirectory() as folder:
        file = Path(folder) / profile.name
        calibrated = ServiceProfile.load(profile.name, profile.parent)
        profile_then = beside(calibrated, [Spell(0.0, measured.stolen, measured.work_s)])
        file.write_text(profile_then.to_json(), encoding="utf-8")
        found = simulated(closed_loop_scenario(file, concurrency, requests))
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
@click.option("--profile", type=click.Path(path_type=Path, dir_okay=False, exists=True), help="Its profile.")
@click.option(
    "--in-turns",
    "folder",
    type=click.Path(path_type=Path, file_okay=False),
    help="Instead: calibrate the server into this folder, in turns with the closed loop.",
)
@click.option("--turns", type=click.IntRange(1), default=4, show_default=True)
@click.option(
    "--budget", type=DurationOption(), default="60s", show_default=True, help="Of the calibration in each turn."
)
@click.option("--concurrency", "levels", type=int, multiple=True, default=(1, 4, 16), show_default=True)
@click.option("--requests", type=int, default=24, show_default=True, help="At concurrency 1; more of them above.")
@click.option("--out", type=click.Path(path_type=Path), help="Also write the table as JSON here.")
def main(
    url: str | None,
    measured: Path | None,
    profile: Path | None,
    folder: Path | None,
    turns: int,
    budget: float,
    levels: tuple[int, ...],
    requests: int,
    out: Path | None,
) -> None:
    """Drive the server closed loop, simulate the same, and print both."""
    if (url is None) == (measured is None):
        raise click.UsageError("one of --url and --measured is needed")
    if (profile is None) == (folder is None) or (folder is not None and url is None):
        raise click.UsageError("--profile is needed, or --in-turns with --url")
    loads = [(level, requests * max(1, round(level**0.5))) for level in levels]
    source = profile if folder is None else folder / _PROFILE
    assert source is not None
    try:
        if url is None:
            assert measured is not None
            loads, outcomes = _measured_before(measured)
        elif folder is None:
            outcomes = asyncio.run(_drive_all(url, source, loads))
        else:
            outcomes = asyncio.run(in_turns(url, folder, turns, budget, loads))
        rows = [_row(*load, outcome, source) for load, outcome in zip(loads, outcomes, strict=True)]
    except UserError as error:
        click.echo(f"error: {error}", err=True)
        raise SystemExit(2) from error
    if out is not None:
        out.write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
