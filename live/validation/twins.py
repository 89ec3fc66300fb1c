"""A cell's two runs in the grid's folder: which are there already, and how the simulated one is made."""

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from live.replay.run import LiveRun
from simcore.cli.run_sim import profile_digest
from simcore.compare.side import Side, side_of
from simcore.engine import simulate
from simcore.errors import UserError
from simcore.fleet import fleet_profiles
from simcore.manifest import make_manifest
from simcore.metrics import observe, summarise
from simcore.records import RunResult
from simcore.remote_profile import AnyProfile, own_profiles
from simcore.report import MeasuredRun
from simcore.run_folder import StoredRun, load_run, write_run
from simcore.scenario import Scenario, resolved_yaml
from simcore.twin import twin_of

from .grid import Cell

__all__ = ["LiveCell", "Twins"]

_LIVE, _SIMULATED = "live", "sim"


@dataclass(frozen=True, slots=True)
class LiveCell:
    """A cell that was run live; ``notes`` is its ``live.json``."""

    cell: Cell
    stored: StoredRun
    notes: dict[str, Any]

    @property
    def proves_something(self) -> bool:
        """Whether the run is valid and no request of it failed."""
        return bool(self.notes["valid"]) and not self.stored.summary.counts["failed"]

    @property
    def side(self) -> Side:
        return Side.make(f"{self.cell.policy.label} live", self.stored.result, self.stored.summary)


class Twins:
    """The cells' folders under ``out/cells``. ``emulated``: the profiles decide what live servers do."""

    def __init__(self, out: Path, profiles: Sequence[AnyProfile], *, emulated: bool) -> None:
        self._out = out / "cells"
        self._profiles = profiles
        self._emulated = emulated

    def find(self, cell: Cell, scenario: Scenario) -> LiveCell | None:
        """The live run of a cell, where there is one. Raises UserError where it is of another scenario."""
        folder = self._out / cell.name / _LIVE
        if not folder.is_dir():
            return None
        stored = load_run(folder)
        if not self._is_of(stored.config, _config(scenario, cell)) or self._has_other_profiles(stored):
            raise UserError(
                f"{folder} was run with another scenario or other servers than are given now: name another --out, or "
                "remove it to have it run again"
            )
        return LiveCell(cell, stored, json.loads((folder / "live.json").read_text(encoding="utf-8")))

    def discard(self, cell: Cell) -> None:
        """Remove a cell's live run."""
        shutil.rmtree(self._out / cell.name / _LIVE)

    def keep(self, cell: Cell, scenario: Scenario, run: LiveRun, started_at: datetime) -> None:
        """Write a live run that has ended well."""
        self._write(cell, _LIVE, scenario, run.result, started_at, self._profiles if self._emulated else (), run.files)

    def simulate(self, live: LiveCell, scenario: Scenario, draws: int) -> tuple[Side, ...]:
        """The cell's runs in the simulated world, the first written beside the live one in place of an earlier one.
        Raises UserError where a profile of the scenario cannot be read, or leaves nothing to draw."""
        cell, started_at = live.cell, datetime.now(UTC)
        profiles = fleet_profiles(scenario)
        if draws > 1 and not any(own.steps.noise_cv for own in own_profiles(profiles)):
            raise UserError(f"{draws} draws of {cell} would be the same: no profile has noise in its steps (noise_cv)")
        twin = twin_of(scenario, profiles, emulated=live.notes["emulated"])
        label = f"{cell.policy.label} simulated"
        first = simulate(twin, cell.policy, cell.seed)
        folder = self._out / cell.name / _SIMULATED
        if folder.exists():
            shutil.rmtree(folder)
        written = self._write(cell, _SIMULATED, twin, first, started_at, profiles)
        more = (side_of(label, simulate(twin, cell.policy, cell.seed, draw=draw), twin) for draw in range(1, draws))
        return Side.make(label, first, written.summary), *more

    def _write(
        self,
        cell: Cell,
        world: str,
        scenario: Scenario,
        result: RunResult,
        started_at: datetime,
        profiles: Sequence[AnyProfile],
        attached: tuple[Path, ...] = (),
    ) -> MeasuredRun:
        slo = scenario.slo.bounds()
        run = MeasuredRun(summarise(result, slo, scenario.warmup_s), observe(result, slo, scenario.warmup_s))
        manifest = make_manifest(
            result,
            command=["simroute", "sim" if world == _SIMULATED else "live", "--scenario", "config.yaml"],
            profiles=_digests(profiles),
            started_at=started_at,
            finished_at=datetime.now(UTC),
        )
        config = _config(scenario, cell)
        folder = self._out / cell.name
        write_run(folder, result, run, config=config, manifest=manifest, attached=attached, name=world, with_page=False)
        return run

    def _has_other_profiles(self, stored: StoredRun) -> bool:
        return self._emulated and stored.manifest["profiles"] != _digests(self._profiles)

    def _is_of(self, stored: str, config: str) -> bool:
        """Whether a live run of the one is one of the other. Nearly always the texts are the same, and that is told
        without the twentieth of a second that reading them takes."""
        return stored == config or self._identity(stored) == self._identity(config)

    def _identity(self, config: str) -> dict[str, Any]:
        """What decides a live run: of real servers the profile says nothing."""
        document = YAML(typ="safe", pure=True).load(config)
        return {key: value for key, value in document.items() if self._emulated or key != "servers"}


def _digests(profiles: Sequence[AnyProfile]) -> dict[str, str]:
    return {profile.name: profile_digest(profile) for profile in profiles}


def _config(scenario: Scenario, cell: Cell) -> str:
    return resolved_yaml(scenario.model_copy(update={"policies": (cell.policy,), "seed": cell.seed}))
