"""The bundled profiles, from published step-time grids: ``python -m calibrate.grid --data DIR``.

``DIR`` holds ``profiles/aic_grid_*.csv`` (step times composed by aiconfigurator from measured SGLang kernels) and
``profiles/rtx4090-llama31-8b`` (layer times, for mixed steps). Equal files give equal profiles, to the byte.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

import click
import numpy as np
import pandas as pd

from simcore.errors import UserError
from simcore.kv_capacity import (
    GPUS,
    MODELS,
    Gpu,
    ModelShape,
    default_chunked_prefill_size,
    default_cuda_graph_max_batch,
    default_max_running_requests,
)
from simcore.launch import SchedulerSettings
from simcore.profile import SCHEMA_VERSION, ServiceProfile
from simcore.profile_launch import memory_kv_tokens
from simcore.profile_parts import (
    GpuMemory,
    MixedSteps,
    Provenance,
    RequestOverheads,
    Residuals,
    StepCoefficients,
    ValidRange,
)

from .fit import DecodeSamples, PrefillSamples, decode_step_s, fit_decode, fit_prefill, prefill_step_s, residual
from .mixed import MIXED_FILES, MixedFit, fit_mixed
from .tables import read_table, sha256

__all__ = [
    "GRIDS",
    "REQUESTS",
    "SYSTEMS",
    "build_profile",
    "fit_table",
    "import_grid",
    "launch_defaults",
    "main",
    "range_of_table",
]

_RUNTIME_MIB = 1024
_OVERHEAD_S = 0.0007
REQUESTS = RequestOverheads(ingress_s=0.005, ingress_per_prompt_token_s=2e-6, egress_s=0.001)
_MIXED_FOLDER = "rtx4090-llama31-8b"


@dataclass(frozen=True, slots=True)
class Grid:
    """One server of the published grids: a profile's name and where its rows are."""

    name: str
    model: str
    gpu: str
    file: str
    system: str
    backend: str = "sglang"


def _grids(model: str, file: str, systems: dict[str, str]) -> list[Grid]:
    return [Grid(f"{model}-{system.removesuffix('_sxm')}", model, gpu, file, system) for system, gpu in systems.items()]


SYSTEMS = {"a100_sxm": "a100-80gb-sxm", "h100_sxm": "h100-80gb-sxm", "h200_sxm": "h200-141gb-sxm", "l40s": "l40s-48gb"}
GRIDS: Final = [
    *_grids("llama-2-7b", "aic_grid_llama2_7b_fp16.csv", {name: SYSTEMS[name] for name in ("a100_sxm", "h100_sxm")}),
    *_grids("llama-3.1-8b", "aic_grid_llama31_8b_bf16.csv", SYSTEMS),
]


def build_profile(grid: Grid, folder: Path, mixed: MixedFit) -> ServiceProfile:
    """Fit the grid's rows in ``folder``; settings and KV pool are SGLang's defaults. Raises UserError."""
    table = read_table(folder / grid.file, ["system", "backend", "version", "phase"], ["batch", "isl", "ms"])
    table = table[(table["system"] == grid.system) & (table["backend"] == grid.backend)]
    if not {"decode", "prefill"} <= set(table["phase"]):
        raise UserError(f"{folder / grid.file}: no decode and prefill rows of {grid.backend} on {grid.system}")
    gpu, model = GPUS[grid.gpu], MODELS[grid.model]
    steps, residuals = fit_table(table, mixed, model.weight_bytes / gpu.bandwidth_bytes_per_s)
    memory, settings = launch_defaults(gpu, model)
    return ServiceProfile(
        schema_version=SCHEMA_VERSION,
        name=grid.name,
        provenance=_provenance(grid, folder, " ".join(sorted(set(table["version"]))), mixed),
        steps=steps,
        requests=REQUESTS,
        memory=memory,
        kv_tokens_capacity=memory_kv_tokens(memory, settings),
        context_length=model.context_length,
        settings=settings,
        valid_range=range_of_table(table),
        residuals=residuals,
    )


def import_grid(file: Path, model: str, system: str, backend: str, name: str | None) -> ServiceProfile:
    """A profile from one system's rows of a grid (columns system, backend, version, phase, batch, isl, ms).

    The cost of mixed steps, which no grid has, comes from the layer tables in ``rtx4090-llama31-8b`` beside the file.
    Raises UserError.
    """
    for what, value, known in (("model", model, MODELS), ("system", system, SYSTEMS)):
        if value not in known:
            raise UserError(f"--{what} {value}: not one of {', '.join(known)}")
    layers = file.parent / _MIXED_FOLDER
    if not layers.is_dir():
        raise UserError(f"{layers}: no such folder; layer times of mixed batches are needed beside the grid")
    wanted = name or f"{model}-{system.removesuffix('_sxm')}{'' if backend == 'sglang' else f'-{backend}'}"
    return build_profile(
        Grid(wanted, model, SYSTEMS[system], file.name, system, backend), file.parent, fit_mixed(layers)
    )


def _decode_samples(table: pd.DataFrame) -> DecodeSamples:
    """In decode rows isl is the context of each of the batch's sequences."""
    rows = table[table["phase"] == "decode"]
    batch, isl = (rows[name].to_numpy(dtype=np.float64) for name in ("batch", "isl"))
    return DecodeSamples(batch, isl, _seconds(rows))


def _prefill_samples(table: pd.DataFrame) -> PrefillSamples:
    """In prefill rows isl is the length of each of the batch's prompts; nothing is cached."""
    rows = table[table["phase"] == "prefill"]
    batch, isl = (rows[name].to_numpy(dtype=np.float64) for name in ("batch", "isl"))
    return PrefillSamples(batch * isl, batch * isl * isl / 2, _seconds(rows))


def _seconds(rows: pd.DataFrame) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    return rows["ms"].to_numpy(dtype=np.float64) / 1000.0


def range_of_table(table: pd.DataFrame) -> ValidRange:
    """What the rows of one system cover."""
    decode, prefill = _decode_samples(table), _prefill_samples(table)
    return ValidRange(
        max_batch=int(decode.batch.max()),
        max_context_tokens=int(decode.context_tokens.max()),
        max_prefill_tokens=int(prefill.new_tokens.max()),
    )


def fit_table(table: pd.DataFrame, mixed: MixedFit, floor_s: float) -> tuple[StepCoefficients, Residuals]:
    """Fit one system's rows (columns phase, batch, isl, ms)."""
    decode, prefill = _decode_samples(table), _prefill_samples(table)
    decode_fit, prefill_fit = fit_decode(decode), fit_prefill(prefill)
    steps = StepCoefficients(
        decode=decode_fit,
        prefill=prefill_fit,
        mixed=MixedSteps(decode_context_ratio=mixed.decode_context_ratio),
        floor_s=float(f"{floor_s:.4g}"),
        overhead_s=_OVERHEAD_S,
        noise_cv=0.0,
    )
    residuals = Residuals(
        decode=residual(decode_step_s(decode_fit, decode), decode.step_s),
        prefill=residual(prefill_step_s(prefill_fit, prefill), prefill.step_s),
        mixed=mixed.step,
    )
    return steps, residuals


def launch_defaults(gpu: Gpu, model: ModelShape) -> tuple[GpuMemory, SchedulerSettings]:
    """What SGLang resolves to on this GPU when the user sets nothing."""
    memory = GpuMemory(
        gpu_memory_mib=gpu.memory_mib,
        runtime_mib=_RUNTIME_MIB,
        weight_bytes=model.weight_bytes,
        kv_bytes_per_token=model.kv_bytes_per_token,
        prefill_graph_max_tokens=model.prefill_graph_max_tokens,
    )
    settings = SchedulerSettings(
        max_running_requests=1,  # known once the pool is; it does not enter the pool's size
        chunked_prefill_size=default_chunked_prefill_size(gpu.memory_mib),
        cuda_graph_max_batch=default_cuda_graph_max_batch(gpu.memory_mib),
    )
    running = default_max_running_requests(memory_kv_tokens(memory, settings), model.context_length)
    return memory, settings.model_copy(update={"max_running_requests": running})


def _provenance(grid: Grid, folder: Path, version: str, mixed: MixedFit) -> Provenance:
    samples = [grid.file, *(f"{_MIXED_FOLDER}/{name}" for name in MIXED_FILES)]
    return Provenance(
        model=MODELS[grid.model].name,
        gpu=GPUS[grid.gpu].name,
        engine=grid.backend,
        engine_version=version,
        measured_by="aiconfigurator's kernel tables (ai-dynamo), composed into steps; nothing measured end to end",
        source="https://github.com/ai-dynamo/aiconfigurator; mixed steps: https://github.com/casys-kaist/LLMServingSim",
        licence="aiconfigurator Apache-2.0; LLMServingSim MIT",
        method="python -m calibrate.grid: non-negative Huber least squares on relative errors",
        date=None,
        notes=_notes(mixed),
        samples_sha256={name: sha256(folder / name) for name in samples},
    )


def _notes(mixed: MixedFit) -> tuple[str, ...]:
    term = mixed.term
    return (
        "Step times are sums of kernels. overhead_s is an assumption for what a server spends besides them (launch "
        "gaps, sampling, results); the simulator adds no other scheduler time to a step, so none is counted twice, and "
        "with overlap part of it hides behind the GPU: it is an upper figure.",
        "requests (ingress, egress) are assumptions: no end-to-end run at low load was at hand. Servers are known to "
        "spend up to 20 ms a request on HTTP, tokenizer and scheduler.",
        "mixed.decode_context_ratio comes from attention kernels of vLLM 0.19 on an RTX 4090 with Llama-3.1-8B and is "
        f"carried over to this GPU. There the term leaves {term.mape:.1%} when the step's other parts are measured; "
        "residuals.mixed is that of the whole fitted step, also there.",
        "floor_s is the weights' bytes over the peak memory bandwidth that the vendor states.",
        f"kv_tokens_capacity follows SGLang 0.5.23's formula; memory.runtime_mib ({_RUNTIME_MIB}) is an assumption for "
        "the CUDA context and the driver.",
        "Decode batches above the largest CUDA graph run at the same pace; what eager launches add is not known.",
    )


@click.command()
@click.option("--data", type=click.Path(path_type=Path), required=True, help="Folder with profiles/*.csv.")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    default=Path("scenarios/profiles"),
    show_default=True,
    help="Where to write.",
)
def main(data: Path, out: Path) -> None:
    """Fit the bundled profiles from published step-time grids and write one JSON file each."""
    folder = data / "profiles"
    try:
        mixed = fit_mixed(folder / _MIXED_FOLDER)
        profiles = [build_profile(grid, folder, mixed) for grid in GRIDS]
    except UserError as error:
        click.echo(f"error: {error}", err=True)
        raise SystemExit(2) from error
    out.mkdir(parents=True, exist_ok=True)
    for profile in profiles:
        (out / f"{profile.name}.json").write_text(profile.to_json(), encoding="utf-8")
        click.echo(_line(profile))


def _line(profile: ServiceProfile) -> str:
    decode, prefill = profile.residuals.decode, profile.residuals.prefill
    errors = [f"{phase} {found.mape:.1%}" for phase, found in (("decode", decode), ("prefill", prefill)) if found]
    return f"{profile.name:20} MAPE {', '.join(errors)}; {profile.kv_tokens_capacity} KV tokens"


if __name__ == "__main__":
    main()
