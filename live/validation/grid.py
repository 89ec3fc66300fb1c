"""The cells of a validation: policies by loads by repeats."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from simcore.errors import UserError
from simcore.scenario import PolicySpec, Scenario, load_scenario
from simcore.staging import slug

__all__ = ["Cell", "Load", "cells_of", "loaded", "with_profile_of"]


@dataclass(frozen=True, slots=True)
class Load:
    """What a scenario is run under: requests a second, clients in a closed loop, or its own arrivals."""

    kind: Literal["rate", "concurrency", "as is"]
    value: float = 0.0

    def __str__(self) -> str:
        match self.kind:
            case "rate":
                return f"{self.value:g} req/s"
            case "concurrency":
                return f"{self.value:g} client{'s' if self.value > 1 else ''}"
            case "as is":
                return "its own load"

    @property
    def slug(self) -> str:
        """For a file's name."""
        return {"rate": f"{self.value:g}rps", "concurrency": f"{self.value:g}clients", "as is": "asis"}[self.kind]

    def overrides(self, requests: int | None) -> list[str]:
        """What it changes in a scenario; ``requests`` is how many are sent, in a closed loop times the square root of
        the clients, as many clients are done with as many sooner."""
        changes = []
        total = requests
        if self.kind == "rate":
            changes.append(f"workload.arrivals.rate_rps={self.value:g}")
        elif self.kind == "concurrency":
            changes.append(f"workload.arrivals={{kind: closed_loop, max_concurrency: {self.value:g}}}")
            total = None if requests is None else max(int(self.value), round(requests * self.value**0.5))
        if total is not None:
            changes += ["workload.duration_s=null", f"workload.requests={total}"]
        return changes


@dataclass(frozen=True, slots=True)
class Cell:
    """One run, live and simulated. Repeats differ in their seed."""

    policy: PolicySpec
    load: Load
    repeat: int
    seed: int

    @property
    def name(self) -> str:
        """Its folder's."""
        return f"{slug(self.policy.label)}-{self.load.slug}-r{self.repeat}"

    def __str__(self) -> str:
        return f"{self.policy.label}, {self.load}, repeat {self.repeat + 1}"


def cells_of(policies: Sequence[PolicySpec], loads: Sequence[Load], repeats: int, seed: int) -> list[Cell]:
    """Repeat after repeat, so that what is interrupted has covered the grid. Raises UserError for equal names."""
    cells = [
        Cell(policy, load, repeat, seed + repeat) for repeat in range(repeats) for load in loads for policy in policies
    ]
    names = [cell.name for cell in cells]
    for cell in cells:
        if names.count(cell.name) > 1:
            raise UserError(f"{cell} is in the grid twice")
    return cells


def loaded(name_or_path: str, overrides: Sequence[str], load: Load, requests: int | None) -> Scenario:
    """The scenario under that load. Raises UserError."""
    return load_scenario(name_or_path, [*overrides, *load.overrides(requests)])


def with_profile_of(cell: Cell, scenario: Scenario, folder: Path) -> Scenario:
    """The scenario with the cell's own profile, ``folder/CELL.json``. Raises UserError."""
    if len(scenario.servers) != 1:
        raise UserError(
            f"--cell-profiles: scenario {scenario.name} has several kinds of servers, and a cell one profile"
        )
    file = folder / f"{cell.name}.json"
    if not file.is_file():
        raise UserError(f"--cell-profiles: {file} is missing, the profile of {cell}")
    group = scenario.servers[0].model_copy(update={"profile": str(file.resolve())})
    return scenario.model_copy(update={"servers": (group,)})
