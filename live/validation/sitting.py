"""Runs the cells that are missing, live, one after the other, and says how it goes."""

import tempfile
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import click

from live.replay.launcher import emulators
from live.replay.progress import LiveProgress
from live.replay.run import LiveOptions, run_live
from simcore.errors import UserError
from simcore.remote_profile import AnyProfile
from simcore.scenario import Scenario

from .grid import Cell, Load
from .twins import Twins

__all__ = ["Fleet", "run_missing"]


@dataclass(frozen=True, slots=True)
class Fleet:
    """The live servers: addresses of some that run, or else how many to emulate, at the pace of ``profiles``."""

    urls: tuple[str, ...]
    emulate: int | None
    profiles: tuple[AnyProfile, ...]
    options: LiveOptions
    seed: int

    @asynccontextmanager
    async def running(self) -> AsyncIterator[list[str]]:
        """Their addresses, while the block runs."""
        if self.emulate is None:
            yield list(self.urls)
            return
        async with emulators(self.profiles, speed=self.options.speed, seed=self.seed) as urls:
            yield urls


async def run_missing(
    cells: Sequence[Cell], scenarios: Mapping[Load, Scenario], twins: Twins, fleet: Fleet, *, quiet: bool
) -> bool:
    """Run the cells and keep each as it ends; returns whether it was interrupted, which leaves the cell out that ran.

    Raises UserError and PolicyError.
    """
    took_s: list[float] = []
    async with AsyncExitStack() as stack:
        progress = stack.enter_context(LiveProgress(quiet=quiet))
        urls = await stack.enter_async_context(fleet.running())
        for number, cell in enumerate(cells, 1):
            name = f"[{number}/{len(cells)}] {cell}"
            progress.begin(name)
            began = time.monotonic()
            if not await _run(cell, scenarios[cell.load], urls, twins, fleet.options, progress, name):
                return True
            took_s.append(time.monotonic() - began)
            if not quiet:
                left_s = (len(cells) - number) * sum(took_s) / len(took_s)
                click.echo(f"{name}: {took_s[-1]:.1f} s; about {_span(left_s)} left", err=True)
    return False


async def _run(
    cell: Cell,
    scenario: Scenario,
    urls: Sequence[str],
    twins: Twins,
    options: LiveOptions,
    progress: LiveProgress,
    name: str,
) -> bool:
    """One cell; False where it was interrupted. Raises UserError where the servers are gone."""
    started_at = datetime.now(UTC)
    with tempfile.TemporaryDirectory(prefix="simroute-") as folder:
        show = partial(progress.show, name)
        run = await run_live(scenario, cell.policy, cell.seed, urls, options, Path(folder), show)
        if run.gave_up:
            raise UserError(f"{name}: {run.invalid}")
        if run.result.interrupted:
            return False
        if run.invalid is not None:
            click.echo(f"{name}: invalid: {run.invalid}", err=True)
        twins.keep(cell, scenario, run, started_at)
    return True


def _span(seconds: float) -> str:
    return f"{seconds / 60:.0f} min" if seconds >= 90 else f"{seconds:.0f} s"
