"""What ``simroute validate`` does: checks, runs what is missing live, simulates everything, and shows the finding."""

import json
import shlex
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import click
from rich.console import Console

from live.replay.launcher import backends_of
from live.replay.run import LiveOptions
from simcore.errors import UserError
from simcore.experiment.check import check_experiment
from simcore.remote_profile import AnyProfile
from simcore.run_folder import write_document, write_plots
from simcore.scenario import PolicySpec, Scenario, resolved_yaml
from simcore.staging import check_out

from .findings import Pairing, Validation, find
from .gates import ErrorGateFailure, failures, parse_gate
from .grid import Cell, Load, cells_of, loaded, with_profile_of
from .page import show_validation, validation_page
from .plots import validation_plots
from .sitting import Fleet, run_missing
from .twins import LiveCell, Twins

__all__ = ["End", "ValidateCommand", "carry_out"]


@dataclass(frozen=True, slots=True)
class ValidateCommand:
    """The options of ``simroute validate``; one of ``servers`` and ``emulate`` is given. ``words`` repeat it."""

    scenario: str
    policies: tuple[tuple[str, dict[str, object]], ...]
    loads: tuple[Load, ...]
    repeats: int
    requests: int | None
    seed: int | None
    overrides: tuple[str, ...]
    servers: tuple[str, ...]
    emulate: int | None
    options: LiveOptions
    gates: tuple[str, ...]
    rerun_invalid: bool
    cell_profiles: Path | None
    draws: int
    out: Path | None
    as_json: bool
    quiet: bool
    words: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class End:
    """What decides the exit code."""

    interrupted: bool
    gates_failed: bool


async def carry_out(command: ValidateCommand) -> End:
    """Run, simulate and show. Raises UserError and PolicyError."""
    scenarios, profiles = _scenarios(command)
    first = scenarios[command.loads[0]]
    gates = [parse_gate(text) for text in command.gates]
    out = command.out or Path("results") / f"validate-{first.name}"
    check_out(out)
    emulated = command.emulate is not None
    twins = Twins(out, profiles, emulated=emulated)
    seed = first.seed if command.seed is None else command.seed
    cells = cells_of(first.policies, command.loads, command.repeats, seed)
    simulated = [_as_simulated(cell, scenarios[cell.load], command.cell_profiles) for cell in cells]
    found = _found(cells, scenarios, twins, rerun_invalid=command.rerun_invalid)
    missing = [cell for cell in cells if cell.name not in found]
    if len(missing) < len(cells) and not command.quiet:
        click.echo(f"{len(cells) - len(missing)} of {len(cells)} cells are in {out} already", err=True)
    interrupted = False
    if missing:
        options = replace(command.options, backends=backends_of(profiles)) if emulated else command.options
        fleet = Fleet(command.servers, command.emulate, tuple(profiles), options, seed)
        interrupted = await run_missing(missing, scenarios, twins, fleet, quiet=command.quiet)
        found |= _found(missing, scenarios, twins, rerun_invalid=False)
    validation = find(first.name, _pairings(cells, found, simulated, twins, command.draws))
    failed = failures(gates, validation)
    _write(out, validation, first, command.words)
    _show(validation, failed, out, as_json=command.as_json)
    if interrupted:
        click.echo("simroute: interrupted: the same command goes on from here", err=True)
    return End(interrupted, bool(failed))


def _scenarios(command: ValidateCommand) -> tuple[dict[Load, Scenario], list[AnyProfile]]:
    """The scenario under each load, checked."""
    scenarios = {}
    for load in command.loads:
        scenario = loaded(command.scenario, command.overrides, load, command.requests)
        if command.policies:
            given = tuple(PolicySpec(name=name, params=params) for name, params in command.policies)
            scenario = scenario.model_copy(update={"policies": given})
        profiles = check_experiment(scenario)
        scenarios[load] = scenario
    servers = command.emulate if command.emulate is not None else len(command.servers)
    if servers != len(profiles):
        raise UserError(
            f"the scenario has {len(profiles)} servers, and {servers} are given: what is simulated must be what runs. "
            f"Try --set servers.0.count={servers}"
        )
    return scenarios, profiles


def _found(
    cells: Sequence[Cell], scenarios: dict[Load, Scenario], twins: Twins, *, rerun_invalid: bool
) -> dict[str, LiveCell]:
    """The cells that have a live run, by name."""
    found = {}
    for cell in cells:
        live = twins.find(cell, scenarios[cell.load])
        if live is not None and rerun_invalid and not live.proves_something:
            twins.discard(cell)
        elif live is not None:
            found[cell.name] = live
    return found


def _as_simulated(cell: Cell, scenario: Scenario, cell_profiles: Path | None) -> Scenario:
    return scenario if cell_profiles is None else with_profile_of(cell, scenario, cell_profiles)


def _pairings(
    cells: Sequence[Cell], found: dict[str, LiveCell], simulated: Sequence[Scenario], twins: Twins, draws: int
) -> list[Pairing]:
    """The cells that were run, simulated anew: that is cheap, and the model may have changed since."""
    pairings = []
    for cell, scenario in zip(cells, simulated, strict=True):
        if live := found.get(cell.name):
            pairings.append(Pairing(live, live.side, twins.simulate(live, scenario, draws)))
    if not pairings:
        raise KeyboardInterrupt
    return pairings


def _write(out: Path, validation: Validation, scenario: Scenario, words: Sequence[str]) -> None:
    config, drawn = resolved_yaml(scenario), validation_plots(validation)
    page = validation_page(validation, drawn, config=config, command=shlex.join(words))
    (out / "config.yaml").write_text(config, encoding="utf-8")
    (out / "report.html").write_text(page, encoding="utf-8")
    write_document(out / "validation.json", validation.to_dict())
    if (out / "plots").exists():
        shutil.rmtree(out / "plots")
    write_plots(out / "plots", drawn)


def _show(validation: Validation, failed: Sequence[ErrorGateFailure], out: Path, *, as_json: bool) -> None:
    if as_json:
        gates = [{"gate": str(one.gate), "setting": one.setting, "value": one.value} for one in failed]
        document = {**validation.to_dict(), "folder": str(out), "gates_failed": gates}
        click.echo(json.dumps(document, indent=2, allow_nan=False, ensure_ascii=False))
    else:
        show_validation(Console(), validation, out)
    for failure in failed:
        click.echo(f"simroute: {failure}", err=True)
