"""The check against measured requests, with a half held back: ``python -m calibrate.measured_halves --data DIR``.

``measured_check`` has two values that no table gives, and that were chosen knowing the requests they are scored on:
``schedule_conservativeness`` and the profile's ``overhead_s``. Here they are chosen anew, by the requests of one half,
and scored on those of the other, which had no say. All 300 requests are simulated each time, as they shared the GPU.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import click
import numpy as np
import numpy.typing as npt
import pandas as pd

from simcore.errors import UserError
from simcore.profile import ServiceProfile

from .measured_check import Agreement, agreements, read_measured, simulated

__all__ = ["GRID", "Choice", "HeldBack", "held_back", "main", "splits"]

GRID: Final = tuple(
    (conservativeness, overhead_s)
    for overhead_s in (0.0, 0.0005, 0.001, 0.002)
    for conservativeness in (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.8, 1.0)
)
"""Conservativeness, and seconds a step beside its kernels."""

_SCORED: Final = ("mean E2E", "mean TPOT")

Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Choice:
    """Values of the grid, and what they give: records of all the requests."""

    conservativeness: float
    overhead_s: float
    records: pd.DataFrame


@dataclass(frozen=True, slots=True)
class HeldBack:
    """What was chosen by one half, and how it agrees there and on the other."""

    chosen_by: str
    scored_on: str
    choice: Choice
    chosen: list[Agreement]
    scored: list[Agreement]


def splits(count: int) -> list[tuple[str, str, Mask]]:
    """Two ways to halve requests in order of arrival, each taken both ways round: names of the halves, and which
    requests are in the first. Neighbours share what the server did; the halves in time share less."""
    early, even = np.arange(count) < count // 2, np.arange(count) % 2 == 0
    return [
        ("first half", "second half", early),
        ("second half", "first half", ~early),
        ("even ones", "odd ones", even),
        ("odd ones", "even ones", ~even),
    ]


def held_back(rows: pd.DataFrame, choices: Sequence[Choice]) -> list[HeldBack]:
    """For each split, the choice whose larger error of mean E2E and mean TPOT is the least on its half."""
    found = []
    for chosen_by, scored_on, mask in splits(len(rows)):

        def worst(choice: Choice, mask: Mask = mask) -> float:
            said = agreements(rows[mask], choice.records[mask])
            return max(abs(one.error) for one in said if one.name in _SCORED)

        best = min(choices, key=worst)
        chosen, scored = (agreements(rows[part], best.records[part]) for part in (mask, ~mask))
        found.append(HeldBack(chosen_by, scored_on, best, chosen, scored))
    return found


def _simulate_all(rows: pd.DataFrame, profile: ServiceProfile) -> list[Choice]:
    choices = []
    for conservativeness, overhead_s in GRID:
        steps = profile.steps.model_copy(update={"overhead_s": overhead_s})
        records = simulated(rows, profile.model_copy(update={"steps": steps}), conservativeness)
        choices.append(Choice(conservativeness, overhead_s, records))
    return choices


def _sentence(agreed: Sequence[Agreement]) -> str:
    return ", ".join(f"{one.name} {one.error:+.1%}" for one in agreed)


@click.command()
@click.option("--data", type=click.Path(path_type=Path), required=True, help="Folder with measured/.")
@click.option("--profile", default="llama-3.1-8b-rtx4090", show_default=True, help="Profile to simulate with.")
def main(data: Path, profile: str) -> None:
    """Choose by one half of the measured requests, score on the other, and print both."""
    try:
        rows = read_measured(data)
        found = held_back(rows, _simulate_all(rows, ServiceProfile.load(profile, Path())))
    except UserError as error:
        click.echo(f"error: {error}", err=True)
        raise SystemExit(2) from error
    for one in found:
        chosen = f"conservativeness {one.choice.conservativeness:g}, overhead {one.choice.overhead_s * 1e3:g} ms"
        click.echo(f"chosen by the {one.chosen_by}: {chosen} ({_sentence(one.chosen)})")
        click.echo(f"  scored on the {one.scored_on}: {_sentence(one.scored)}")


if __name__ == "__main__":
    main()
