"""From a calibration's raw samples to coefficients, with what they leave unexplained.

The profile's coefficients are fitted to all samples. How well the model does on samples it has not seen is told by
five more fits, each to four fifths of them and scored on the fifth held back (cross-validation). Confidence is a
bootstrap within the points.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.stats import theilslopes

from simcore.errors import UserError
from simcore.profile_measurement import Confidence, Host
from simcore.profile_parts import (
    DecodeSteps,
    MixedSteps,
    PrefillSteps,
    RequestOverheads,
    Residual,
    Residuals,
    StepCoefficients,
)

from .fit import (
    DecodeForm,
    DecodeSamples,
    PrefillSamples,
    decode_form,
    decode_step_s,
    fit_decode,
    fit_non_negative,
    fit_prefill,
    prefill_step_s,
    residual,
)
from .host import evened, find_host
from .neighbours import TOO_MUCH_CORES
from .samples import DecodeSample, PrefillSample, RideSample
from .split import Split, fifths, resample

__all__ = ["Fitted", "fit_all", "ride_extra_s"]

Floats = npt.NDArray[np.float64]

_Compared = dict[str, tuple[Floats, Floats]]
"""By term: what a fit says of samples, and the samples, seconds."""

_SEED = 5
_BOOTSTRAPS = 40
_NORMAL_95 = 1.96


@dataclass(frozen=True, slots=True)
class Fitted:
    """``residuals`` of the fit to all samples on all, ``held_back`` of fits to four fifths on the rest."""

    steps: StepCoefficients
    requests: RequestOverheads
    residuals: Residuals
    held_back: Residuals
    confidence: Confidence
    prefill_scheduling_s: float
    """What a prefill costs requests that decode beyond the prefill step itself; part of ``steps.prefill.base_s``."""
    host: Host | None


@dataclass(frozen=True, slots=True)
class _Fit:
    form: DecodeForm
    decode: DecodeSteps
    prefill: PrefillSteps
    mixed: MixedSteps
    scheduling_s: float

    def coefficients(self) -> StepCoefficients:
        return StepCoefficients(
            decode=self.decode, prefill=self.prefill, mixed=self.mixed, floor_s=0.0, overhead_s=0.0, noise_cv=0.0
        )


def fit_all(split: Split, *, mixed_chunk: bool) -> Fitted:
    """Fit, score and judge. Raises UserError where there are too few samples for a fit."""
    _check_enough(split)
    rng = np.random.default_rng(_SEED)
    held_back = [_blind(training, rest, mixed_chunk) for training, rest in fifths(split, rng)]
    fit, host = _fit_evened(split, mixed_chunk)
    even = evened(split, host)
    return Fitted(
        steps=fit.coefficients(),
        requests=_requests(split, fit.scheduling_s),
        residuals=_residuals([_compare(even, fit, mixed_chunk)]),
        held_back=_residuals(held_back),
        confidence=_confidence(even, fit, rng),
        prefill_scheduling_s=fit.scheduling_s,
        host=host,
    )


def _check_enough(split: Split) -> None:
    contexts: dict[int, set[float]] = {}
    for sample in split.decode:
        contexts.setdefault(sample.batch, set()).add(sample.context_tokens)
    usable = [batch for batch, found in contexts.items() if len(found) > 1]
    lengths = {sample.new_tokens for sample in split.prefill}
    if not usable or len(lengths) < 4:
        raise UserError(
            f"too few samples for a fit: {len(split.decode)} of decode steps, {len(split.prefill)} of prefill steps; "
            "give more time with --budget, and go on from these with --resume"
        )


def _fit_evened(split: Split, mixed_chunk: bool) -> tuple[_Fit, Host | None]:
    fit = _fit_steps(split, mixed_chunk)
    host = find_host(split, lambda even: _fitted_s(even, fit))
    return fit if host is None else _fit_steps(evened(split, host), mixed_chunk), host


def _blind(training: Split, rest: Split, mixed_chunk: bool) -> _Compared:
    fit, host = _fit_evened(training, mixed_chunk)
    return _compare(evened(rest, host), fit, mixed_chunk)


def _fit_like(fit: _Fit, split: Split) -> tuple[DecodeSteps, PrefillSteps]:
    """Of the same form, with the same knee."""
    decode = fit_decode(_decode_arrays(split.decode), rising=False, form=fit.form)
    return decode, fit_prefill(_prefill_arrays(split.prefill), knees=[int(fit.prefill.knee_tokens)])


def _fitted_s(split: Split, like: _Fit) -> tuple[Floats, Floats]:
    """Of decode steps and of prefill steps, by a fit to them."""
    decode, prefill = _fit_like(like, split)
    decode_s = decode_step_s(decode, _decode_arrays(split.decode))
    return decode_s, prefill_step_s(prefill, _prefill_arrays(split.prefill))


def _fit_steps(split: Split, mixed_chunk: bool) -> _Fit:
    decodes = _decode_arrays(split.decode)
    form = decode_form(decodes)
    decode = fit_decode(decodes, rising=False, form=form)
    plain = fit_prefill(_prefill_arrays(split.prefill))
    if mixed_chunk:
        mixed = MixedSteps(decode_context_ratio=_context_ratio(split.ride, decode, plain))
        return _Fit(form, decode, plain, mixed, scheduling_s=0.0)
    # A prefill that comes while others decode costs them more than its step: the work around it. Beside more work on
    # the machine than there was beside the prefills it is compared with, that work's share cannot be told.
    most = float(np.median([sample.others_cores for sample in split.prefill])) + TOO_MUCH_CORES
    scheduling_s = _scheduling_s([sample for sample in split.ride if sample.others_cores <= most], plain)
    whole = plain.model_copy(update={"base_s": plain.base_s + scheduling_s})
    return _Fit(form, decode, whole, MixedSteps(decode_context_ratio=1.0), scheduling_s)


def _scheduling_s(samples: Sequence[RideSample], prefill: PrefillSteps) -> float:
    """By which the gaps with a prefill are longer than a decode step and the prefill alone."""
    if not samples:
        return 0.0
    known, gap_s = np.array(
        [(_alone_s(prefill, one) + one.decode_step_s, one.extra_s + one.decode_step_s) for one in samples]
    ).T
    return float(f"{fit_non_negative(np.ones((len(samples), 1)), gap_s, known)[0]:.4g}")


def _decode_arrays(samples: Sequence[DecodeSample]) -> DecodeSamples:
    columns = zip(*((s.batch, s.context_tokens, s.step_s) for s in samples), strict=True)
    return DecodeSamples(*(np.array(column, dtype=np.float64) for column in columns))


def _prefill_arrays(samples: Sequence[PrefillSample]) -> PrefillSamples:
    new, cached, step_s = (
        np.array(column, dtype=np.float64)
        for column in zip(*((s.new_tokens, s.cached_tokens, s.step_s) for s in samples), strict=True)
    )
    return PrefillSamples(new, new * (cached + new / 2), step_s, cached if cached.any() else None)


def _alone_s(prefill: PrefillSteps, sample: RideSample) -> float:
    """The prefill step of a ride's prompt, as a step of its own."""
    new = np.array([float(sample.new_tokens)])
    return float(prefill_step_s(prefill, PrefillSamples(new, new * new / 2, new))[0])


def _mixed_parts(sample: RideSample, decode: DecodeSteps, prefill: PrefillSteps) -> tuple[float, float]:
    """Of a mixed step: the part that the prefill model gives, and the rows' attention at its cost in a decode step."""
    new = float(sample.new_tokens)
    tokens = np.array([new + sample.batch])
    known = float(prefill_step_s(prefill, PrefillSamples(tokens, np.array([new * new / 2]), tokens))[0])
    context_s = float(np.interp(sample.batch, decode.batches, decode.context_s))
    return known, context_s * sample.batch * sample.context_tokens


def _context_ratio(samples: Sequence[RideSample], decode: DecodeSteps, prefill: PrefillSteps) -> float:
    if not samples:
        return 1.0
    known, context = np.array([_mixed_parts(sample, decode, prefill) for sample in samples]).T
    step_s = np.array([sample.extra_s + sample.decode_step_s for sample in samples])
    return round(float(fit_non_negative(context[:, None], step_s, known)[0]), 3)


def ride_extra_s(sample: RideSample, steps: StepCoefficients, *, mixed_chunk: bool) -> float:
    """What the model says of ``extra_s``, seconds."""
    if not mixed_chunk:
        return _alone_s(steps.prefill, sample)
    known, context_s = _mixed_parts(sample, steps.decode, steps.prefill)
    return known + steps.mixed.decode_context_ratio * context_s - sample.decode_step_s


def _compare(split: Split, fit: _Fit, mixed_chunk: bool) -> _Compared:
    """Prefill steps on an idle server are without the scheduling around them."""
    alone = fit.prefill.model_copy(update={"base_s": fit.prefill.base_s - fit.scheduling_s})
    found: _Compared = {}
    if split.decode:
        decodes = _decode_arrays(split.decode)
        found["decode"] = decode_step_s(fit.decode, decodes), decodes.step_s
    if split.prefill:
        prefills = _prefill_arrays(split.prefill)
        found["prefill"] = prefill_step_s(alone, prefills), prefills.step_s
    if split.ride:
        steps = fit.coefficients()
        model = np.array([ride_extra_s(sample, steps, mixed_chunk=mixed_chunk) for sample in split.ride])
        gaps = np.array([sample.decode_step_s for sample in split.ride])
        extra = np.array([sample.extra_s for sample in split.ride])
        # Relative to the whole gap that the requests see.
        found["mixed"] = model + gaps, extra + gaps
    return found


def _residuals(fits: Sequence[_Compared]) -> Residuals:
    """Of all of them together."""
    found: dict[str, Residual | None] = {}
    for term in ("decode", "prefill", "mixed"):
        pairs = [compared[term] for compared in fits if term in compared]
        found[term] = residual(*map(np.concatenate, zip(*pairs, strict=True))) if pairs else None
    return Residuals.model_validate(found)


def _requests(split: Split, scheduling_s: float) -> RequestOverheads:
    """Ingress as a line over the prompt's length; scheduling is part of the step and not counted twice."""
    tokens = np.array([float(s.new_tokens + s.cached_tokens) for s in split.prefill])
    ingress = np.array([s.ingress_s for s in split.prefill])
    # Medians of slopes: milliseconds drown in whatever else the machine does, now and then. The slope's interval, which
    # is not used, is that of a negative variance where nearly all times are equal.
    with np.errstate(invalid="ignore"):
        per_token_s = max(float(theilslopes(ingress, tokens).slope), 0.0)
    base_s = float(np.median(ingress - per_token_s * tokens))
    egress_s = float(np.median([s.egress_s for s in split.prefill]))
    spacings = [s.ingress_spacing_s for s in split.decode if s.ingress_spacing_s is not None]
    last_tokens = [s.last_token_s for s in split.decode if s.last_token_s is not None]
    return RequestOverheads(
        ingress_s=float(f"{max(base_s - scheduling_s, 0.0):.4g}"),
        ingress_per_prompt_token_s=float(f"{per_token_s:.4g}"),
        egress_s=float(f"{max(egress_s - max(scheduling_s - base_s, 0.0), 0.0):.4g}"),
        ingress_spacing_s=float(f"{np.median(spacings) if spacings else 0.0:.4g}"),
        last_token_s=float(f"{max(np.median(last_tokens), 0.0) if last_tokens else 0.0:.4g}"),
    )


def _confidence(split: Split, fit: _Fit, rng: np.random.Generator) -> Confidence:
    """Of fits like it."""
    decodes, prefills = _decode_arrays(split.decode), _prefill_arrays(split.prefill)
    decode_draws, prefill_draws = [], []
    for _ in range(_BOOTSTRAPS):
        drawn = resample(split, rng)
        decode, prefill = _fit_like(fit, drawn)
        decode_draws.append(decode_step_s(decode, decodes))
        prefill_draws.append(prefill_step_s(prefill, prefills))
    return Confidence(decode=_half_width(decode_draws), prefill=_half_width(prefill_draws), mixed=_ride_width(split))


def _half_width(draws: list[Floats]) -> float:
    predictions = np.array(draws)
    return round(float((_NORMAL_95 * predictions.std(axis=0, ddof=1) / predictions.mean(axis=0)).mean()), 4)


def _ride_width(split: Split) -> float | None:
    """Of the mean gap at each point, as there is nothing of its own to fit on most servers."""
    groups: dict[str, list[float]] = {}
    for sample in split.ride:
        groups.setdefault(sample.point, []).append(sample.extra_s + sample.decode_step_s)
    widths = [
        _NORMAL_95 * float(np.std(values, ddof=1)) / len(values) ** 0.5 / float(np.mean(values))
        for values in groups.values()
        if len(values) > 1
    ]
    return round(float(np.mean(widths)), 4) if widths else None
