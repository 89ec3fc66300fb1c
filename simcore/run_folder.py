"""The run folder, in which everything about a run lies together, and back.

``config.yaml`` the resolved scenario, ``manifest.json`` where it comes from, ``summary.json`` the numbers,
``requests.parquet``, ``servers.parquet``, ``timeline.parquet``, ``itl.parquet`` and ``caps.parquet`` the records
(columns as in simcore/records.py; what did not happen is null), ``report.html`` the page, ``plots/*.svg``. A
comparison's folder holds ``config.yaml``, ``comparison.json``, ``report.html``, ``plots/`` and one run folder for each
policy and seed.
"""

import json
import shlex
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from simcore.errors import UserError
from simcore.manifest import MANIFEST_SCHEMA_VERSION, Manifest
from simcore.records import CAP_DTYPES, ITL_DTYPES, REQUEST_DTYPES, SERVER_DTYPES, TIMELINE_DTYPES, RunResult
from simcore.report.comparison import Comparison, MeasuredRun, compare
from simcore.report.html import comparison_page, comparison_plots, run_page, run_plots
from simcore.staging import slug, staged_folder
from simcore.summary import Summary

__all__ = [
    "RECORDS_SCHEMA_VERSION",
    "ComparisonFolder",
    "StoredRun",
    "comparison_folder",
    "load_run",
    "write_document",
    "write_plots",
    "write_run",
]

RECORDS_SCHEMA_VERSION: Final = 1
"""Stored in each parquet file's metadata as ``simroute.schema_version``; new columns alone do not raise it."""

_PRICES: Final = ("price_per_hour", "input_price_per_million", "output_price_per_million")
_ADDED: Final = {"requests": ("server_queue_s", "prefill_s"), "servers": ("model", *_PRICES)}
"""Columns that runs of earlier versions lack; NaN there, and empty for text."""

_TABLES: Final = {
    "requests": REQUEST_DTYPES,
    "servers": SERVER_DTYPES,
    "timeline": TIMELINE_DTYPES,
    "itl": ITL_DTYPES,
    "caps": CAP_DTYPES,
}
_ADDED_TABLES: Final = ("caps",)
"""Tables that runs of earlier versions lack; empty there."""

_ARROW_TYPES: Final = {"int64": pa.int64(), "float64": pa.float64(), "str": pa.string()}


@dataclass(frozen=True, slots=True)
class StoredRun:
    """What ``load_run`` reads; ``manifest`` and ``config`` as they were written."""

    path: Path
    result: RunResult
    summary: Summary
    manifest: dict[str, object]
    config: str


def write_run(
    out: Path,
    result: RunResult,
    run: MeasuredRun,
    *,
    config: str,
    manifest: Manifest,
    attached: Sequence[Path] = (),
    name: str | None = None,
    with_page: bool = True,
) -> Path:
    """Write ``out/<time>-<scenario>-<policy>/``, or ``out/name``, whole or not at all; ``config`` is the resolved
    scenario as YAML text, ``attached`` are files that are copied in beside the rest. Without ``with_page`` it has no
    ``report.html`` and no ``plots``.

    Raises UserError if ``out`` cannot be written. Returns the folder.
    """
    started = datetime.fromisoformat(manifest.started_at)
    with staged_folder(out, name or _folder_name(started, result.scenario, result.policy)) as folder:
        _write_records(folder.staging, result, run, config, manifest, attached)
        if with_page:
            _write_page(folder.staging, result, run, config, manifest)
    return folder.final


class ComparisonFolder:
    """A comparison's folder under construction: ``add`` each run as it ends, then ``finish``.

    Runs are written at once, so that only what a comparison needs of them stays in memory. ``path`` is the folder once
    the ``with`` block of ``comparison_folder`` has ended.
    """

    def __init__(self, staging: Path) -> None:
        self._staging = staging
        self._links: list[tuple[str, str]] = []
        self.path = staging

    def add(
        self,
        result: RunResult,
        run: MeasuredRun,
        *,
        config: str,
        manifest: Manifest,
        attached: Sequence[Path] = (),
    ) -> None:
        """Write one run's own folder inside the comparison's."""
        name = slug(f"{result.policy}-seed{result.seed}")
        taken = {address for _, address in self._links}
        while f"{name}/report.html" in taken:
            name += "-2"
        folder = self._staging / name
        folder.mkdir()
        _write_records(folder, result, run, config, manifest, attached)
        _write_page(folder, result, run, config, manifest)
        self._links.append((f"{result.policy}, seed {result.seed}", f"{name}/report.html"))

    def finish(self, comparison: Comparison, *, config: str, command: Sequence[str]) -> None:
        """Write what compares the runs: ``comparison.json``, the page and its plots."""
        drawn = comparison_plots(comparison)
        page = comparison_page(comparison, drawn, config=config, command=shlex.join(command), links=self._links)
        _write_text(self._staging / "config.yaml", config)
        write_document(self._staging / "comparison.json", comparison.to_dict())
        _write_text(self._staging / "report.html", page)
        write_plots(self._staging / "plots", drawn)


@contextmanager
def comparison_folder(out: Path, scenario: str, started_at: datetime) -> Iterator[ComparisonFolder]:
    """A new ``out/<time>-<scenario>-comparison/``, there when the block ends; if it raises, nothing stays.

    Raises UserError if ``out`` cannot be written.
    """
    with staged_folder(out, _folder_name(started_at, scenario, "comparison")) as folder:
        comparison = ComparisonFolder(folder.staging)
        yield comparison
    comparison.path = folder.final


def load_run(path: Path) -> StoredRun:
    """Read a run folder back. Raises UserError for a folder that is not one, or that a newer simroute wrote."""
    missing = [name for name in _required_files() if not (path / name).is_file()]
    if missing:
        if (path / "comparison.json").is_file():
            runs = sorted(child.parent.name for child in path.glob("*/summary.json"))
            raise UserError(f"{path} is a comparison; its runs are {', '.join(runs)}")
        raise UserError(f"{path} is not a run folder: {missing[0]} is missing")
    summary = Summary.from_dict(_read_json(path / "summary.json"), str(path / "summary.json"))
    manifest = _read_manifest(path / "manifest.json")
    tables = {name: _read_table(path, name, dtypes) for name, dtypes in _TABLES.items()}
    wall_s = manifest["wall_s"]
    assert isinstance(wall_s, float)
    result = RunResult(
        scenario=summary.scenario,
        policy=summary.policy,
        seed=summary.seed,
        kind=summary.kind,
        duration_s=summary.duration_s,
        wall_s=wall_s,
        interrupted=summary.interrupted,
        warnings=list(summary.warnings),
        oracle=summary.oracle,
        controller=summary.controller,
        **tables,
    )
    return StoredRun(path, result, summary, manifest, (path / "config.yaml").read_text(encoding="utf-8"))


def _folder_name(started_at: datetime, scenario: str, what: str) -> str:
    return f"{started_at:%Y%m%d-%H%M%S}-{slug(scenario)}-{slug(what)}"


def _write_records(
    folder: Path, result: RunResult, run: MeasuredRun, config: str, manifest: Manifest, attached: Sequence[Path]
) -> None:
    for file in attached:
        shutil.copy(file, folder / file.name)
    for name, dtypes in _TABLES.items():
        _write_table(folder / f"{name}.parquet", getattr(result, name), dtypes)
    _write_text(folder / "config.yaml", config)
    write_document(folder / "manifest.json", manifest.to_dict())
    write_document(folder / "summary.json", run.summary.to_dict())


def _write_page(folder: Path, result: RunResult, run: MeasuredRun, config: str, manifest: Manifest) -> None:
    alone = compare([run])
    drawn = run_plots(result, alone)
    _write_text(folder / "report.html", run_page(alone, drawn, config=config, command=shlex.join(manifest.command)))
    write_plots(folder / "plots", drawn)


def _write_table(path: Path, frame: pd.DataFrame, dtypes: Mapping[str, str]) -> None:
    """Columns, their order and types are fixed, and no library's metadata is added: same data, same bytes."""
    fields = [(name, _ARROW_TYPES[dtype]) for name, dtype in dtypes.items()]
    schema = pa.schema(fields, metadata={"simroute.schema_version": str(RECORDS_SCHEMA_VERSION)})
    columns = [pa.array(frame[name], type=kind, from_pandas=True) for name, kind in fields]
    pq.write_table(pa.table(columns, schema=schema), path, compression="zstd")


def _read_table(folder: Path, table_name: str, dtypes: Mapping[str, str]) -> pd.DataFrame:
    path, added = folder / f"{table_name}.parquet", _ADDED.get(table_name, ())
    if table_name in _ADDED_TABLES and not path.is_file():
        return pd.DataFrame(columns=list(dtypes)).astype(dict(dtypes))
    try:
        table = pq.read_table(path)
    except (OSError, pa.ArrowException) as error:
        raise UserError(f"{path}: not a readable parquet file: {error}") from error
    version = (table.schema.metadata or {}).get(b"simroute.schema_version", b"").decode()
    if version != str(RECORDS_SCHEMA_VERSION):
        raise UserError(f"{path}: schema_version is {version!r}, this simroute reads {RECORDS_SCHEMA_VERSION}")
    there = [name for name in dtypes if name in table.column_names or name not in added]
    frame: pd.DataFrame = table.select(there).to_pandas()
    texts = {name: "" for name in added if dtypes[name] == "str" and name not in there}
    return frame.assign(**texts).reindex(columns=list(dtypes)).astype(dict(dtypes))


def write_plots(folder: Path, drawn: Mapping[str, str]) -> None:
    """Each plot as ``folder/NAME.svg``."""
    folder.mkdir()
    for name, svg in drawn.items():
        _write_text(folder / f"{name}.svg", svg)


def _write_text(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")


def write_document(path: Path, data: object) -> None:
    """As JSON, the way all of simroute's files are written."""
    _write_text(path, json.dumps(data, indent=2, allow_nan=False, ensure_ascii=False) + "\n")


def _read_json(path: Path) -> object:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{path}: not readable JSON: {error}") from error


def _read_manifest(path: Path) -> dict[str, object]:
    manifest = _read_json(path)
    version = manifest.get("schema_version") if isinstance(manifest, dict) else None
    if not isinstance(manifest, dict) or version != MANIFEST_SCHEMA_VERSION:
        raise UserError(f"{path}: schema_version is {version!r}, this simroute reads {MANIFEST_SCHEMA_VERSION}")
    return manifest


def _required_files() -> list[str]:
    tables = [f"{name}.parquet" for name in _TABLES if name not in _ADDED_TABLES]
    return ["summary.json", "manifest.json", "config.yaml", *tables]
