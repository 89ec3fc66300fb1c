"""From samples of step times to the coefficients of the step-time model.

Least squares on relative errors (a step of 5 ms matters as much as one of 500 ms), with non-negative coefficients and
Huber weights, so that a few odd samples do not bend the rest. No randomness: equal samples give equal coefficients.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum, auto
from statistics import median

import numpy as np
import numpy.typing as npt
from scipy.optimize import nnls

from simcore.profile_parts import DecodeSteps, PrefillSteps, Residual

__all__ = [
    "DecodeForm",
    "DecodeSamples",
    "PrefillSamples",
    "decode_form",
    "decode_step_s",
    "fit_decode",
    "fit_non_negative",
    "fit_prefill",
    "prefill_step_s",
    "residual",
]

Floats = npt.NDArray[np.float64]

_HUBER = 1.345  # of a standard deviation: 95% efficient on normal errors (Huber 1981)
_MAD_TO_SIGMA = 1.4826
_SMALLEST_SIGMA = 1e-6  # relative; keeps exact samples from dividing by zero
_ROUNDS = 50
_SETTLED = 1e-9  # change of coefficients, relative to the largest: far below the digits that are kept
_KNEE_STEP = 8  # tokens between the knees that are tried
_LARGEST_KNEE = 2048
_FOLDS = 20
_DIGITS = 6  # significant, of what is written: more than samples can support, fewer than libraries differ in


@dataclass(frozen=True, slots=True)
class DecodeSamples:
    """Decode steps, one a row: batch, context of each of its sequences (the current token included), seconds."""

    batch: Floats
    context_tokens: Floats
    step_s: Floats


@dataclass(frozen=True, slots=True)
class PrefillSamples:
    """Prefill steps, one a row: new tokens in all, attended (sum over chunks of ``s * (h + s / 2)``), seconds.

    ``cached_tokens``: ``h`` of the step's one chunk; None: no step follows cached tokens.
    """

    new_tokens: Floats
    attended: Floats
    step_s: Floats
    cached_tokens: Floats | None = None


class DecodeForm(Enum):
    """What the batches of a decode table share."""

    NOTHING = auto()
    SLOPE = auto()
    """The slope in total context."""
    LINE = auto()
    """The slope, and a line over the batch that their bases are on."""


def fit_decode(samples: DecodeSamples, *, rising: bool = True, form: DecodeForm = DecodeForm.NOTHING) -> DecodeSteps:
    """One base per batch that was sampled, and one slope in total context per batch that was sampled at two contexts;
    a batch with one context has the slope of the next smaller that has its own. ``rising``: bases do not fall as the
    batch grows, which holds where batches are padded and takes noise out; a real server may like four rows better than
    three.

    Raises ValueError where no batch was sampled at two contexts: no slope can be told from a base then.
    """
    batches = np.unique(samples.batch)
    several = _at_several_contexts(samples)
    if not any(several):
        raise ValueError("no decode batch was sampled at two contexts, and a slope cannot be told from one")
    slope_of = np.maximum(np.cumsum(several) - 1, 0) if form is DecodeForm.NOTHING else np.zeros(len(batches), np.intp)
    own = (samples.batch[:, None] == batches).astype(np.float64)
    parts = _parts_of_bases(batches, rising, form)
    context = own @ np.eye(slope_of[-1] + 1)[slope_of] * (samples.batch * samples.context_tokens)[:, None]
    found = fit_non_negative(np.hstack([own @ parts, context]), samples.step_s)
    parts_s, slopes_s = np.split(found, [parts.shape[1]])
    return DecodeSteps(
        batches=tuple(int(batch) for batch in batches),
        base_s=_rounded(parts @ parts_s),
        context_s=_rounded(slopes_s[slope_of]),
    )


def _parts_of_bases(batches: Floats, rising: bool, form: DecodeForm) -> Floats:
    """What non-negative coefficients each batch's base (rows) is the sum of."""
    if form is DecodeForm.LINE:
        return np.column_stack([np.ones_like(batches), batches])
    return np.tri(len(batches)) if rising else np.eye(len(batches))


def _at_several_contexts(samples: DecodeSamples) -> npt.NDArray[np.bool_]:
    """Whether so, for each batch."""
    contexts = (samples.context_tokens[samples.batch == batch] for batch in np.unique(samples.batch))
    return np.array([len(np.unique(found)) > 1 for found in contexts])


def decode_form(samples: DecodeSamples) -> DecodeForm:
    """The form that foretells samples that are left out best (by cross-validation): the more batches share, the less
    is left to noise, as a batch's own slope often rests on one visit of its longest context."""
    if _at_several_contexts(samples).sum() < 2:
        return DecodeForm.NOTHING
    fold = np.arange(len(samples.batch)) % _FOLDS
    folds = [fold == index for index in np.unique(fold)]
    left_out = [which for which in folds if _at_several_contexts(_chosen(samples, ~which)).any()]

    def error(form: DecodeForm) -> float:
        return float(np.concatenate([_foretold(samples, which, form) for which in left_out]).mean())

    return min(DecodeForm, key=error)


def _foretold(samples: DecodeSamples, left_out: npt.NDArray[np.bool_], form: DecodeForm) -> Floats:
    """Relative errors on what is left out of the fit to the rest."""
    fit = fit_decode(_chosen(samples, ~left_out), rising=False, form=form)
    rest = _chosen(samples, left_out)
    return np.abs(decode_step_s(fit, rest) / rest.step_s - 1.0)


def _chosen(samples: DecodeSamples, which: npt.NDArray[np.bool_]) -> DecodeSamples:
    return DecodeSamples(samples.batch[which], samples.context_tokens[which], samples.step_s[which])


def fit_prefill(samples: PrefillSamples, knees: Sequence[int] | None = None) -> PrefillSteps:
    """The knee is the one of those tried that leaves the smallest mean relative error; ``knees`` are tried if given."""
    upper = min(_LARGEST_KNEE, int(samples.new_tokens.max()))
    candidates = knees or range(_KNEE_STEP, upper + 1, _KNEE_STEP)
    fits = [_fit_prefill_at(samples, knee) for knee in candidates]
    return min(fits, key=lambda fit: residual(prefill_step_s(fit, samples), samples.step_s).mape)


def _fit_prefill_at(samples: PrefillSamples, knee: int) -> PrefillSteps:
    """Slopes as one below the knee and a non-negative rise above it: a step never gets cheaper per token."""
    tokens = samples.new_tokens
    columns = [np.ones_like(tokens), tokens, np.maximum(tokens - knee, 0.0), samples.attended]
    cached = samples.cached_tokens
    if cached is not None:
        columns += [cached, cached**2 / 2]
    found = fit_non_negative(np.column_stack(columns), samples.step_s)
    found[2] += found[1]
    base_s, below_knee_s, per_token_s, attended_s, *cached_s = _rounded(found)
    return PrefillSteps(
        base_s=base_s,
        below_knee_s=below_knee_s,
        per_token_s=per_token_s,
        knee_tokens=knee,
        per_attended_s=attended_s,
        **dict(zip(("per_cached_s", "per_cached_pair_s"), cached_s, strict=False)),
    )


def fit_non_negative(columns: Floats, target: Floats, known: Floats | None = None) -> Floats:
    """Non-negative ``x`` with ``known + columns @ x`` near ``target`` (positive), by errors relative to it."""
    relative = columns / target[:, None]
    scale = np.abs(relative).max(axis=0)
    scale[scale == 0.0] = 1.0
    relative = relative / scale
    wanted = np.ones(len(target)) if known is None else 1.0 - known / target
    weights = np.ones(len(target))
    found = np.zeros(columns.shape[1])
    for _ in range(_ROUNDS):
        root, before = np.sqrt(weights), found
        found, _norm = nnls(relative * root[:, None], wanted * root)
        if np.abs(found - before).max() <= _SETTLED * found.max():
            break
        errors = np.abs(relative @ found - wanted)
        # Not numpy's, which takes ten times as long for twenty numbers, and took half of a fit.
        sigma = max(_MAD_TO_SIGMA * median(errors.tolist()), _SMALLEST_SIGMA)
        weights = np.minimum(1.0, _HUBER * sigma / np.maximum(errors, _SMALLEST_SIGMA))
    return np.asarray(found / scale, dtype=np.float64)


def decode_step_s(fit: DecodeSteps, samples: DecodeSamples) -> Floats:
    """The model at the samples, seconds; batches between the table's are interpolated."""
    base_s = np.interp(samples.batch, fit.batches, fit.base_s)
    context_s = np.interp(samples.batch, fit.batches, fit.context_s)
    return base_s + context_s * samples.batch * samples.context_tokens


def prefill_step_s(fit: PrefillSteps, samples: PrefillSamples) -> Floats:
    """The model at the samples, seconds."""
    below = np.minimum(samples.new_tokens, fit.knee_tokens)
    cached = np.zeros_like(below) if samples.cached_tokens is None else samples.cached_tokens
    return (
        fit.base_s
        + fit.below_knee_s * below
        + fit.per_token_s * (samples.new_tokens - below)
        + fit.per_attended_s * samples.attended
        + cached * (fit.per_cached_s + fit.per_cached_pair_s * cached / 2)
    )


def residual(model_s: Floats, sample_s: Floats) -> Residual:
    """How far the model is from the samples, relative to them, to four digits."""
    errors = np.abs(model_s / sample_s - 1.0)
    return Residual(samples=len(errors), mape=round(float(errors.mean()), 4), max_abs=round(float(errors.max()), 4))


def _rounded(values: Floats) -> tuple[float, ...]:
    return tuple(float(f"{value:.{_DIGITS - 1}e}") for value in values)
