"""The cost of decode rows that ride in a prefill step, from measured layer times.

LLMServingSim publishes times of single layers of Llama-3.1-8B on an RTX 4090: attention of prefill chunks, of decode
rows and of both together, and the dense layers by tokens. A step is their sum over the model's layers, so what decode
rows add to a prefill's attention can be told apart from everything else.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import pandas as pd

from simcore.errors import UserError
from simcore.profile_parts import Residual

from .fit import PrefillSamples, fit_non_negative, fit_prefill, prefill_step_s, residual
from .tables import read_table

__all__ = ["MIXED_FILES", "MixedFit", "fit_mixed", "read_steps"]

MIXED_FILES: Final = ("attention.csv", "dense.csv", "per_sequence.csv")

_LAYERS = 32
_KV_TOKENS_CAPACITY = 41_408  # of the GPU in the same publication; larger batches cannot run on it
_ONCE_A_LAYER = ("qkv_proj", "rotary_emb", "o_proj", "gate_up_proj", "act_fn", "down_proj", "layernorm", "layernorm")
_ONCE_A_STEP = ("embedding", "final_layernorm")
_PER_SEQUENCE = ("lm_head", "sampler")
_MICROSECOND = 1e-6

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class MixedFit:
    """``decode_context_ratio`` and how well the step-time model does with it."""

    decode_context_ratio: float
    term: Residual
    """Every other part of the step as measured."""
    step: Residual
    """Every other part of the step from the fitted prefill."""


def fit_mixed(folder: Path) -> MixedFit:
    """Read the tables of layer times in ``folder`` and fit. Raises UserError where one is missing or malformed."""
    steps = read_steps(folder)
    decode = steps[steps["prefill_chunk"] == 0]
    prefill = steps[steps["n_decode"] == 0]
    mixed = steps[(steps["prefill_chunk"] > 0) & (steps["n_decode"] > 0)].merge(
        prefill[["prefill_chunk", "kv_prefill", "attention_s"]],
        on=["prefill_chunk", "kv_prefill"],
        suffixes=("", "_alone"),
    )
    context_s = _decode_context_s(decode) * _column(mixed, "context")
    step_s, known_s = _column(mixed, "step_s"), _column(mixed, "dense_s") + _column(mixed, "attention_s_alone")
    ratio = round(float(fit_non_negative(context_s[:, None], step_s, known_s)[0]), 2)
    fitted_s = prefill_step_s(fit_prefill(_prefill_samples(prefill)), _prefill_samples(mixed))
    return MixedFit(
        ratio, residual(known_s + ratio * context_s, step_s), residual(fitted_s + ratio * context_s, step_s)
    )


def _decode_context_s(decode: pd.DataFrame) -> float:
    """Seconds per token of total context of pure decode steps, one for all batches: base, per row, per token."""
    rows, context = _column(decode, "n_decode"), _column(decode, "context")
    found = fit_non_negative(np.column_stack([np.ones_like(rows), rows, context]), _column(decode, "step_s"))
    return float(found[2])


def _prefill_samples(steps: pd.DataFrame) -> PrefillSamples:
    """Decode rows count as tokens, and attend to nothing: their attention has its own term."""
    chunk = _column(steps, "prefill_chunk")
    attended = chunk * (_column(steps, "kv_prefill") + chunk / 2)
    return PrefillSamples(chunk + _column(steps, "n_decode"), attended, _column(steps, "step_s"))


def read_steps(folder: Path) -> pd.DataFrame:
    """One row a step that fits the GPU: what is in it, and the seconds of its attention, dense layers and in all."""
    attention, dense, per_sequence = (folder / name for name in MIXED_FILES)
    steps = read_table(attention, [], ["prefill_chunk", "kv_prefill", "n_decode", "kv_decode", "time_us"])
    steps["context"] = steps["n_decode"] * steps["kv_decode"]
    steps = steps[steps["context"] + steps["prefill_chunk"] + steps["kv_prefill"] <= _KV_TOKENS_CAPACITY]
    tokens = _column(steps, "prefill_chunk") + _column(steps, "n_decode")
    sequences = (_column(steps, "prefill_chunk") > 0) + _column(steps, "n_decode")
    layers = read_table(dense, ["layer"], ["tokens", "time_us"])
    dense_us = _LAYERS * _at(dense, layers, _ONCE_A_LAYER, tokens) + _at(dense, layers, _ONCE_A_STEP, tokens)
    heads = read_table(per_sequence, ["layer"], ["sequences", "time_us"])
    dense_us += _at(per_sequence, heads, _PER_SEQUENCE, sequences)
    dense_s, attention_s = dense_us * _MICROSECOND, _LAYERS * _column(steps, "time_us") * _MICROSECOND
    return steps.assign(dense_s=dense_s, attention_s=attention_s, step_s=dense_s + attention_s)


def _at(file: Path, table: pd.DataFrame, layers: Sequence[str], wanted: Floats) -> Floats:
    """The layers' microseconds, summed, at the wanted sizes (the table's second column); linear between those given."""
    size = table.columns[1]
    total = np.zeros_like(wanted)
    for layer in layers:
        rows = table[table["layer"] == layer]
        if rows.empty:
            raise UserError(f"{file}: no rows of layer {layer!r}")
        total += np.interp(wanted, rows[size], rows["time_us"])
    return total


def _column(table: pd.DataFrame, name: str) -> Floats:
    return table[name].to_numpy(dtype=np.float64)
