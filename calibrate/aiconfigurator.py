"""A profile of any dense model on any GPU that aiconfigurator knows, without a GPU (``--from-aiconfigurator``).

Its step times are composed from measured kernels. The package is an extra: ``pip install 'simroute[aiconfigurator]'``.
"""

import importlib
import importlib.metadata
import importlib.resources
import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import pandas as pd

from simcore.errors import UserError
from simcore.kv_capacity import GPUS, ModelShape
from simcore.profile import SCHEMA_VERSION, ServiceProfile
from simcore.profile_launch import memory_kv_tokens
from simcore.profile_parts import Provenance
from simcore.staging import slug

from .grid import REQUESTS, SYSTEMS, fit_table, launch_defaults, range_of_table
from .mixed import MixedFit

__all__ = ["import_aiconfigurator", "model_shape"]

_BATCHES: Final = (1, 4, 16, 32, 64, 128)
_CONTEXTS: Final = (129, 513, 1025, 2049, 4097)
_PREFILLS: Final = (*((1, 2**power) for power in range(4, 14)), (4, 64), (4, 512), (4, 2048))
_MIXED_FROM: Final = "llama-3.1-8b-rtx4090"
_SHAPE: Final = (
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "intermediate_size",
    "vocab_size",
    "max_position_embeddings",
)


def import_aiconfigurator(model: str, system: str, backend: str, name: str | None) -> ServiceProfile:
    """``model``: a Hugging Face name that aiconfigurator has the configuration of, or a folder with a config.json.

    Settings and KV pool are SGLang's defaults for the GPU. Raises UserError.
    """
    estimate = _estimator()
    if system not in SYSTEMS:
        raise UserError(f"--system {system}: not one of {', '.join(SYSTEMS)}")
    shape, gpu = model_shape(model, _config(model)), GPUS[SYSTEMS[system]]
    table, version = _ask(estimate, model, system, backend)
    known = ServiceProfile.load(_MIXED_FROM, Path())
    assert known.residuals.mixed is not None
    mixed = MixedFit(known.steps.mixed.decode_context_ratio, known.residuals.mixed, known.residuals.mixed)
    steps, residuals = fit_table(table, mixed, shape.weight_bytes / gpu.bandwidth_bytes_per_s)
    memory, settings = launch_defaults(gpu, shape)
    return ServiceProfile(
        schema_version=SCHEMA_VERSION,
        name=name or slug(f"{shape.name.rpartition('/')[2]}-{system.removesuffix('_sxm')}").lower(),
        provenance=_provenance(shape.name, gpu.name, backend, version),
        steps=steps,
        requests=REQUESTS,
        memory=memory,
        kv_tokens_capacity=memory_kv_tokens(memory, settings),
        context_length=shape.context_length,
        settings=settings,
        valid_range=range_of_table(table),
        residuals=residuals,
    )


def model_shape(name: str, config: dict[str, Any]) -> ModelShape:
    """From a dense transformer's ``config.json``, two bytes a parameter. Raises UserError for any other kind."""
    missing = [key for key in _SHAPE if key not in config]
    if missing:
        raise UserError(f"{name}: its configuration has no {missing[0]!r}; dense transformers can be imported")
    if any("expert" in key and config[key] for key in config):
        raise UserError(f"{name}: mixtures of experts cannot be imported")
    hidden, layers, heads, inner, vocabulary, context = (int(config[key]) for key in _SHAPE)
    kv_heads = int(config.get("num_key_value_heads") or heads)
    head_dim = int(config.get("head_dim") or hidden // heads)
    attention = 2 * hidden * head_dim * (heads + kv_heads)
    embeddings = vocabulary * hidden * (1 if config.get("tie_word_embeddings") else 2)
    parameters = embeddings + layers * (attention + 3 * hidden * inner + 2 * hidden) + hidden
    return ModelShape(Path(name).name if Path(name).exists() else name, layers, kv_heads, head_dim, parameters, context)


def _estimator() -> Callable[..., Any]:
    try:
        found: Callable[..., Any] = importlib.import_module("aiconfigurator.cli.api").cli_estimate
    except ImportError as error:
        raise UserError("--from-aiconfigurator needs a package more: pip install 'simroute[aiconfigurator]'") from error
    return found


def _config(model: str) -> dict[str, Any]:
    path = Path(model)
    if path.is_dir():
        file: Any = path / "config.json"
    else:
        file = (
            importlib.resources.files("aiconfigurator_core")
            / "model_configs"
            / f"{model.replace('/', '--')}_config.json"
        )
    try:
        return dict(json.loads(file.read_text(encoding="utf-8")))
    except OSError as error:
        raise UserError(
            f"--model {model}: aiconfigurator has no such model; give the folder of its config.json"
        ) from error
    except ValueError as error:
        raise UserError(f"{file}: not JSON: {error}") from error


def _ask(estimate: Callable[..., Any], model: str, system: str, backend: str) -> tuple[pd.DataFrame, str]:
    """A table like the published grids, and the version of the engine whose kernels were measured."""
    rows: list[dict[str, object]] = []
    version = ""
    points = [("decode", batch, isl) for batch, isl in itertools.product(_BATCHES, _CONTEXTS)]
    points += [("prefill", batch, isl) for batch, isl in _PREFILLS]
    for phase, batch, isl in points:
        mode = "static_gen" if phase == "decode" else "static_ctx"
        try:
            found = estimate(model, system, mode=mode, backend_name=backend, batch_size=batch, isl=isl, osl=2)
        except (ValueError, KeyError, RuntimeError) as error:
            raise UserError(
                f"aiconfigurator has no {phase} times of {model} on {system} with {backend}: {error}"
            ) from error
        rows.append({"phase": phase, "batch": batch, "isl": isl, "ms": found.tpot if phase == "decode" else found.ttft})
        version = str(found.backend_version)
    return pd.DataFrame(rows).astype({"batch": "float64", "isl": "float64", "ms": "float64"}), version


def _provenance(model: str, gpu: str, backend: str, version: str) -> Provenance:
    return Provenance(
        model=model,
        gpu=gpu,
        engine=backend,
        engine_version=version,
        measured_by="aiconfigurator's kernel tables (ai-dynamo), composed into steps; nothing measured end to end",
        source=f"aiconfigurator {importlib.metadata.version('aiconfigurator')} (https://github.com/ai-dynamo/aiconfigurator)",
        licence="Apache-2.0",
        method="simroute calibrate --from-aiconfigurator: non-negative Huber least squares on relative errors",
        date=None,
        notes=(
            "overhead_s, ingress and egress are assumptions for what a server spends besides its kernels.",
            f"mixed.decode_context_ratio and residuals.mixed are those of {_MIXED_FROM}, another GPU and engine.",
            "floor_s is the weights' bytes, two a parameter, over the peak memory bandwidth that the vendor states.",
        ),
    )
