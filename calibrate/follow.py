"""``simroute calibrate --from-run``: the drift of a run's servers from their profiles, once or again and again."""

import time
from collections.abc import Mapping
from datetime import UTC, datetime
from operator import itemgetter
from pathlib import Path
from typing import Any, Final, NoReturn

import click
from ruamel.yaml import YAML

from simcore.errors import UserError
from simcore.fleet import fleet_profiles
from simcore.profile import ServiceProfile
from simcore.remote_profile import own_profiles
from simcore.run_folder import StoredRun, load_run
from simcore.scenario import Scenario
from simcore.staging import check_out

from .drift import Drift, ServerRecords, fit_drift, scaled_profile

__all__ = ["follow_run", "records_by_profile"]

_RUNS: Final = ("summary.json", "*/summary.json", "*/*/summary.json")


def follow_run(options: Mapping[str, Any]) -> bool:
    """Tell the drift and write the refitted profiles. With ``--watch`` until Ctrl-C; then True. Raises UserError."""
    every: float | None = options["watch"]
    folder: Path = options["from_run"]
    if every is None:
        _look(folder, options)
        return False
    try:
        _watch(folder, every, options)
    except KeyboardInterrupt:
        return True


def _watch(folder: Path, every_s: float, options: Mapping[str, Any]) -> NoReturn:
    """Look at the newest run whenever there is a newer one: a router leaves each of its runs in a folder of its own."""
    seen: tuple[Path, float] | None = None
    if _newest_run(folder) is None:
        click.echo(f"waiting for a run in {folder}", err=True)
    while True:
        newest = _newest_run(folder)
        if newest is not None and newest != seen:
            seen = newest
            _look_and_go_on(newest[0], options)
        time.sleep(every_s)


def _newest_run(folder: Path) -> tuple[Path, float] | None:
    """The run written last, and when: ``folder`` itself, or one in it or in a comparison in it."""
    files = [file for pattern in _RUNS for file in folder.glob(pattern)]
    # A name that begins with a dot is a folder still being written.
    whole = [file for file in files if not any(part.startswith(".") for part in file.relative_to(folder).parts)]
    return max(((file.parent, file.stat().st_mtime) for file in whole), key=itemgetter(1), default=None)


def _look_and_go_on(folder: Path, options: Mapping[str, Any]) -> None:
    """A run that tells too little is no reason to stop."""
    click.echo(f"{datetime.now(UTC):%H:%M:%S} {folder}", err=True)
    try:
        _look(folder, options)
    except UserError as error:
        click.echo(f"simroute: {error}; waiting for the next run", err=True)


def _look(folder: Path, options: Mapping[str, Any]) -> None:
    groups = records_by_profile(load_run(folder), options["profile"])
    for number, (profile, records) in enumerate(groups):
        drift = fit_drift(records)
        _tell(profile, drift, options["max_drift"])
        _write(options, folder, profile, drift, number, len(groups))


def records_by_profile(run: StoredRun, profile: str | None) -> list[tuple[ServiceProfile, list[ServerRecords]]]:
    """The run's servers grouped by profile: those of its own scenario, or ``profile`` for all. Raises UserError."""
    profiles = _profiles(run, profile)
    requests = run.result.requests
    groups: list[tuple[ServiceProfile, list[ServerRecords]]] = []
    for server_id, one in zip(run.result.servers["server_id"], profiles, strict=True):
        if one.settings.batching != "continuous":
            raise UserError(f"{run.path}: static batching has no drift to tell; {server_id} does it")
        records = ServerRecords(requests[requests["server_id"] == server_id], one)
        known = next((mine for other, mine in groups if other == one), None)
        if known is None:
            groups.append((one, [records]))
        else:
            known.append(records)
    return groups


def _profiles(run: StoredRun, profile: str | None) -> list[ServiceProfile]:
    """One a server. Emulated servers had the scenario's profiles in turn; real ones may have been more or fewer."""
    servers = run.result.servers
    if profile is not None:
        return [ServiceProfile.load(profile, Path())] * len(servers)
    fleet = fleet_profiles(Scenario.model_validate(YAML(typ="safe", pure=True).load(run.config)))
    profiles = own_profiles(fleet)
    if len(profiles) < len(fleet):
        raise UserError(f"{run.path}: part of its servers are remote APIs, which have no step times to follow")
    if servers["profile"].str.startswith("emulator of ").all():
        return [profiles[index % len(profiles)] for index in range(len(servers))]
    if len(profiles) != len(servers):
        raise UserError(
            f"{run.path}: the run had {len(servers)} servers and its scenario has {len(profiles)}: "
            "name the profile that they should have with --profile"
        )
    return profiles


def _tell(profile: ServiceProfile, drift: Drift, bound: float) -> None:
    click.echo(f"{profile.name}, from {drift.requests} requests:")
    for term in drift.terms:
        click.echo(f"  {term.sentence()}")
    click.echo(
        f"  typical error of a latency: {drift.error_before:.1%} with the profile, {drift.error_after:.1%} refitted"
    )
    beyond = [term.term for term in drift.terms if term.beyond(bound)]
    if beyond:
        click.echo(f"warning: {profile.name} has drifted by more than {bound:.0%}: {', '.join(beyond)}", err=True)


def _write(
    options: Mapping[str, Any], run: Path, profile: ServiceProfile, drift: Drift, number: int, several: int
) -> None:
    """The refitted profile: terms that the run does not tell stay as they were."""
    name = options["name"] or f"{profile.name}-refit"
    refit = scaled_profile(profile, drift.factors).model_copy(update={"name": name, "measurement": None})
    note = (
        f"Refitted to {drift.requests} requests of the run {run.name}; residuals and valid range are those from before."
    )
    provenance = profile.provenance.model_copy(update={"notes": (*profile.provenance.notes, note)})
    folder: Path = options["out"] or Path("results") / f"{run.name}-refit"
    check_out(folder)
    file = folder / (f"profile-{number}.json" if several > 1 else "profile.json")
    file.write_text(refit.model_copy(update={"provenance": provenance}).to_json(), encoding="utf-8")
    click.echo(f"profile {file}")
