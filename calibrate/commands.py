"""What ``simroute calibrate`` does with its options: exactly one source, one profile or several out."""

import asyncio
import os
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from simcore.errors import UserError
from simcore.profile import ServiceProfile
from simcore.staging import check_out, slug

from .launcher import launched_server
from .page import error_rows
from .presets import Preset, load_presets, merged_flags
from .progress import CalibrationProgress
from .session import Calibration, Order, calibrate_server

__all__ = ["End", "carry_out"]

_SOURCES = ("url", "launch", "presets", "from_grid", "from_layers", "from_aiconfigurator", "from_run")


@dataclass(frozen=True, slots=True)
class End:
    """What decides the exit code."""

    interrupted: bool = False


def carry_out(options: Mapping[str, Any], argv: Sequence[str]) -> End:
    """Raises UserError."""
    source = _source(options)
    if options["sglang_flags"] and source not in ("launch", "presets"):
        raise UserError(f"{options['sglang_flags'][0]!r}: flags of SGLang need --launch or --preset")
    match source:
        case "url":
            _show(_measure(options, argv, options["url"], options["name"]))
        case "launch" | "presets":
            _launch_all(options, argv, source)
        case "from_run":
            from .follow import follow_run

            return End(interrupted=follow_run(options))
        case _:
            _write_import(options, _imported(source, options))
    return End()


def _source(options: Mapping[str, Any]) -> str:
    given = [name for name in _SOURCES if options[name]]
    if given == ["launch", "presets"]:
        return "presets"
    if len(given) != 1:
        flags = ", ".join(f"--{name.replace('_', '-')}" for name in _SOURCES).replace("--presets", "--preset")
        raise UserError(f"give exactly one of {flags}")
    return given[0]


def _measure(options: Mapping[str, Any], argv: Sequence[str], url: str, name: str | None) -> Calibration:
    return asyncio.run(_measure_async(options, argv, url, name))


async def _measure_async(options: Mapping[str, Any], argv: Sequence[str], url: str, name: str | None) -> Calibration:
    resume: Path | None = options["resume"]
    order = Order(
        url=url,
        api_key=_api_key(options["api_key_env"]),
        budget_s=options["budget"],
        folder=resume or _folder(options, name or "server"),
        resume=resume is not None,
        allow_busy=options["allow_busy"],
        name=name,
        gpu=options["gpu"],
        command=("simroute", *argv[1:]),
    )
    quiet = options["quiet"]
    say = _nothing if quiet else lambda text: click.echo(text, err=True)
    with CalibrationProgress(quiet=quiet) as progress:
        return await calibrate_server(order, progress.update_point, say)


def _nothing(text: str) -> None:
    del text


def _api_key(variable: str | None) -> str | None:
    if variable is None:
        return None
    key = os.environ.get(variable)
    if not key:
        raise UserError(f"--api-key-env {variable}: that environment variable is not set")
    return key


def _folder(options: Mapping[str, Any], name: str) -> Path:
    if options["out"] is not None:
        return Path(options["out"])
    return Path("results") / f"{datetime.now(UTC):%Y%m%d-%H%M%S}-calibrate-{slug(name)}"


def _launch_all(options: Mapping[str, Any], argv: Sequence[str], source: str) -> None:
    """One server after the other; each is gone before the next starts."""
    presets: dict[str | None, Preset] = {None: Preset()}
    if source == "presets":
        known = load_presets(options["presets_file"] or Path("presets.yaml"))
        names = list(known) if options["presets"] == ("all",) else list(options["presets"])
        for name in names:
            if name not in known:
                raise UserError(f"no preset {name!r}; there are {', '.join(known)}")
        presets = {name: known[name] for name in names}
    done: list[Calibration] = []
    for name, preset in presets.items():
        done.append(asyncio.run(_launch(options, argv, name, preset, several=len(presets) > 1)))
        _show(done[-1])
    if len(done) > 1:
        from simcore.cli.profile import print_diff

        for other in done[1:]:
            print_diff(done[0].built.profile, other.built.profile)


async def _launch(
    options: Mapping[str, Any], argv: Sequence[str], name: str | None, preset: Preset, *, several: bool
) -> Calibration:
    model = options["launch"] or preset.model
    if model is None:
        raise UserError(f"preset {name!r} has no model; name one with --launch")
    server = launched_server(
        model,
        merged_flags(preset, options["sglang_flags"]),
        python=options["python"],
        environment=preset.env,
        timeout_s=options["ready_timeout"],
        api_key=_api_key(options["api_key_env"]),
    )
    own = dict(options)
    if several and options["out"] is not None:
        own["out"] = Path(options["out"]) / str(name)
    if not options["quiet"]:
        click.echo(f"starting {model}{f' ({name})' if name else ''}", err=True)
    async with server as url:
        return await _measure_async(own, argv, url, options["name"] or name)


def _show(calibration: Calibration) -> None:
    table = Table(box=None, pad_edge=False)
    for heading in ("steps", "samples", "mean error", "largest", "held back", "95% interval"):
        table.add_column(heading)
    for row in error_rows(calibration.built):
        table.add_row(*row)
    Console(width=110).print(table)
    click.echo(f"{calibration.built.profile.name}: {calibration.built.verdict.sentence()}")
    click.echo(f"profile {calibration.folder / 'profile.json'}, plots {calibration.folder / 'report.html'}")


def _imported(source: str, options: Mapping[str, Any]) -> ServiceProfile:
    match source:
        case "from_layers":
            from .layers import build_layers_profile

            name = {"name": options["name"]} if options["name"] else {}
            return build_layers_profile(options["from_layers"], **name)
        case "from_aiconfigurator":
            from .aiconfigurator import import_aiconfigurator

            model, system = _required(options, "model"), _required(options, "system")
            return import_aiconfigurator(model, system, options["backend"], options["name"])
        case _:
            from .grid import import_grid

            model, system = _required(options, "model"), _required(options, "system")
            return import_grid(options["from_grid"], model, system, options["backend"], options["name"])


def _required(options: Mapping[str, Any], name: str) -> str:
    if options[name] is None:
        raise UserError(f"this import needs --{name}")
    return str(options[name])


def _write_import(options: Mapping[str, Any], profile: ServiceProfile) -> None:
    folder = _folder(options, profile.name)
    check_out(folder)
    file = folder / "profile.json"
    file.write_text(profile.to_json(), encoding="utf-8")
    for term in ("decode", "prefill", "mixed"):
        found = getattr(profile.residuals, term)
        if found is not None:
            click.echo(
                f"{term} steps: mean error {found.mape:.1%}, largest {found.max_abs:.1%}, {found.samples} samples"
            )
    click.echo(f"profile {shlex.quote(str(file))}")
