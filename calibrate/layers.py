"""A profile from tables of layer times (``--from-layers``): attention of mixed batches, dense layers, heads.

The tables are LLMServingSim's: what one layer of the model takes for a prefill chunk, for decode rows and for both
together. A step is their sum over the layers. Equal files give equal profiles.
"""

from pathlib import Path
from typing import Final

import numpy as np
import pandas as pd

from simcore.kv_capacity import GPUS, MODELS
from simcore.profile import SCHEMA_VERSION, ServiceProfile
from simcore.profile_launch import memory_kv_tokens
from simcore.profile_parts import MixedSteps, Provenance, Residuals, StepCoefficients, ValidRange

from .fit import DecodeSamples, PrefillSamples, decode_step_s, fit_decode, fit_prefill, prefill_step_s, residual
from .grid import REQUESTS, launch_defaults
from .mixed import MIXED_FILES, fit_mixed, read_steps
from .tables import sha256

__all__ = ["build_layers_profile"]

_MODEL: Final = "llama-3.1-8b"
_GPU: Final = "rtx-4090-24gb"
_BATCHES: Final = (1, 2, 4, 8, 16, 32, 64, 128, 256)


def build_layers_profile(folder: Path, name: str = "llama-3.1-8b-rtx4090") -> ServiceProfile:
    """Fit the tables in ``folder``; settings and KV pool are SGLang's defaults for the GPU. Raises UserError."""
    steps = read_steps(folder)
    decode, prefill, mixed = _decode_samples(steps), _prefill_samples(steps), fit_mixed(folder)
    decode_fit, prefill_fit = fit_decode(decode), fit_prefill(prefill)
    gpu, model = GPUS[_GPU], MODELS[_MODEL]
    memory, settings = launch_defaults(gpu, model)
    return ServiceProfile(
        schema_version=SCHEMA_VERSION,
        name=name,
        provenance=_provenance(folder, mixed.term.mape),
        steps=StepCoefficients(
            decode=decode_fit,
            prefill=prefill_fit,
            mixed=MixedSteps(decode_context_ratio=mixed.decode_context_ratio),
            floor_s=float(f"{model.weight_bytes / gpu.bandwidth_bytes_per_s:.4g}"),
            overhead_s=0.0,
            noise_cv=0.0,
        ),
        requests=REQUESTS,
        memory=memory,
        kv_tokens_capacity=memory_kv_tokens(memory, settings),
        context_length=model.context_length,
        settings=settings,
        valid_range=ValidRange(
            max_batch=int(decode.batch.max()),
            max_context_tokens=int(decode.context_tokens.max()),
            max_prefill_tokens=int(prefill.new_tokens.max()),
        ),
        residuals=Residuals(
            decode=residual(decode_step_s(decode_fit, decode), decode.step_s),
            prefill=residual(prefill_step_s(prefill_fit, prefill), prefill.step_s),
            mixed=mixed.step,
        ),
    )


def _decode_samples(steps: pd.DataFrame) -> DecodeSamples:
    rows = steps[(steps["prefill_chunk"] == 0) & steps["n_decode"].isin(_BATCHES)]
    contexts = rows.groupby("n_decode")["kv_decode"].nunique()
    rows = rows[rows["n_decode"].isin(contexts.index[contexts > 1])]
    return DecodeSamples(*(rows[name].to_numpy(dtype=np.float64) for name in ("n_decode", "kv_decode", "step_s")))


def _prefill_samples(steps: pd.DataFrame) -> PrefillSamples:
    rows = steps[(steps["n_decode"] == 0) & (steps["prefill_chunk"] > 0)]
    chunk, cached, step_s = (
        rows[name].to_numpy(dtype=np.float64) for name in ("prefill_chunk", "kv_prefill", "step_s")
    )
    return PrefillSamples(chunk, chunk * (cached + chunk / 2), step_s, cached)


def _provenance(folder: Path, term_mape: float) -> Provenance:
    return Provenance(
        model=MODELS[_MODEL].name,
        gpu=GPUS[_GPU].name,
        engine="vllm",
        engine_version="0.19",
        measured_by="LLMServingSim's layer profiler (casys-kaist), composed into steps",
        source="https://github.com/casys-kaist/LLMServingSim",
        licence="MIT",
        method="simroute calibrate --from-layers: non-negative Huber least squares on relative errors",
        date=None,
        notes=(
            "Step times are sums of vLLM's layers on the GPU; settings and KV pool are SGLang's defaults for it.",
            "overhead_s is 0: what the server does between steps is taken to be hidden by its asynchronous scheduling. "
            "Ingress and egress are assumptions, as in the other profiles made of kernel times.",
            "overhead_s was chosen knowing the 300 measured requests of calibrate/measured_check.py, as was the "
            "scheduler's conservativeness there: mean E2E and mean TPOT within 5% on them is no independent proof. "
            "With half of them held back, errors on that half are up to 9% (results/measured-rtx4090).",
            f"Mixed batches were measured; decode_context_ratio leaves {term_mape:.1%} when the step's other parts are "
            "measured, and residuals.mixed is that of the whole fitted step.",
            "floor_s is the weights' bytes over the peak memory bandwidth that the vendor states.",
        ),
        samples_sha256={file: sha256(folder / file) for file in MIXED_FILES},
    )
