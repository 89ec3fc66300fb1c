"""From a calibration's raw samples to coefficients, with what they leave unexplained.

The profile's coefficients are fitted to all samples. How well the model does on samples it has not seen is told by a
second fit, to four fifths of them, scored on the fifth held back. Confidence is a bootstrap within the points.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
import numpy.typing as npt
from scipy.stats import theilslopes

from simcore.errors import UserError
from simcore.profile_measurement import Confidence
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
from .neighbours import TOO_MUCH_CORES
from .samples import DecodeSample, PrefillSample, RideSample, Sample

__all__ = ["Fitted", "Split", "fit_all", "ride_extra_s", "split_samples"]

Floats = npt.NDArray[np.float64]

_HELD_BACK = 5  # one in so many
_SEED = 5
_BOOTSTRAPS = 40
_NORMAL_95 = 1.96

_S = TypeVar("_S", DecodeSample, PrefillSample, RideSample)


@dataclass(frozen=True, slots=True)
class Split:
    """Samples by kind, without those that other work on the machine disturbed, where their point has calmer ones."""

    decode: tuple[DecodeSample, ...]
    prefill: tuple[PrefillSample, ...]
    ride: tuple[RideSample, ...]
    left_out: int

    def __len__(self) -> int:
        return len(self.decode) + len(self.prefill) + len(self.ride)


@dataclass(frozen=True, slots=True)
class Fitted:
    """``residuals`` of the fit to all samples on all, ``held_back`` of the fit to four fifths on the rest."""

    steps: StepCoefficients
    requests: RequestOverheads
    residuals: Residuals
    held_back: Residuals
    confidence: Confidence
    prefill_scheduling_s: float
    """What a prefill costs requests that decode beyond the prefill step itself; part of ``steps.prefill.base_s``."""


def split_samples(samples: Sequence[Sample]) -> Split:
    """By kind."""
    decode, decode_out = _calm([sample for sample in samples if isinstance(sample, DecodeSample)])
    prefill, prefill_out = _calm([sample for sample in samples if isinstance(sample, PrefillSample)])
    ride, ride_out = _calm([sample for sample in samples if isinstance(sample, RideSample)])
    return Split(tuple(decode), tuple(prefill), tuple(ride), decode_out + prefill_out + ride_out)


def _calm(samples: list[_S]) -> tuple[list[_S], int]:
    """Without those beside which others used notably more of the machine than beside the calmest of their point."""
    calmest: dict[str, float] = {}
    for sample in samples:
        calmest[sample.point] = min(sample.others_cores, calmest.get(sample.point, np.inf))
    kept = [sample for sample in samples if sample.others_cores <= calmest[sample.point] + TOO_MUCH_CORES]
    return kept, len(samples) - len(kept)


def fit_all(split: Split, *, mixed_chunk: bool) -> Fitted:
    """Fit, score and judge. Raises UserError where there are too few samples for a fit."""
    _check_enough(split)
    rng = np.random.default_rng(_SEED)
    form = decode_form(_decode_arrays(split.decode))
    decode, prefill, mixed, scheduling_s = _fit_steps(split, form, mixed_chunk)
    training, rest = _hold_back(split, rng)
    blind = _fit_steps(training, decode_form(_decode_arrays(training.decode)), mixed_chunk)
    steps = StepCoefficients(decode=decode, prefill=prefill, mixed=mixed, floor_s=0.0, overhead_s=0.0, noise_cv=0.0)
    return Fitted(
        steps=steps,
        requests=_requests(split.prefill, scheduling_s),
        residuals=_score(split, decode, prefill, mixed, scheduling_s, mixed_chunk),
        held_back=_score(rest, *blind, mixed_chunk),
        confidence=_confidence(split, form, prefill, rng),
        prefill_scheduling_s=scheduling_s,
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


def _fit_steps(
    split: Split, form: DecodeForm, mixed_chunk: bool
) -> tuple[DecodeSteps, PrefillSteps, MixedSteps, float]:
    decode = fit_decode(_decode_arrays(split.decode), rising=False, form=form)
    plain = fit_prefill(_prefill_arrays(split.prefill))
    if mixed_chunk:
        return decode, plain, MixedSteps(decode_context_ratio=_context_ratio(split.ride, decode, plain)), 0.0
    # A prefill that comes while others decode costs them more than its step: the work around it. Beside more work on
    # the machine than there was beside the prefills it is compared with, that work's share cannot be told.
    most = float(np.median([sample.others_cores for sample in split.prefill])) + TOO_MUCH_CORES
    excess = [sample.extra_s - _alone_s(plain, sample) for sample in split.ride if sample.others_cores <= most]
    scheduling_s = max(float(f"{np.median(excess):.4g}"), 0.0) if excess else 0.0
    whole = plain.model_copy(update={"base_s": plain.base_s + scheduling_s})
    return decode, whole, MixedSteps(decode_context_ratio=1.0), scheduling_s


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


def _score(
    split: Split, decode: DecodeSteps, prefill: PrefillSteps, mixed: MixedSteps, scheduling_s: float, mixed_chunk: bool
) -> Residuals:
    """Prefill steps on an idle server are without the scheduling around them."""
    alone = prefill.model_copy(update={"base_s": prefill.base_s - scheduling_s})
    found: dict[str, Residual | None] = {"decode": None, "prefill": None, "mixed": None}
    if split.decode:
        decodes = _decode_arrays(split.decode)
        found["decode"] = residual(decode_step_s(decode, decodes), decodes.step_s)
    if split.prefill:
        prefills = _prefill_arrays(split.prefill)
        found["prefill"] = residual(prefill_step_s(alone, prefills), prefills.step_s)
    if split.ride:
        steps = StepCoefficients(decode=decode, prefill=prefill, mixed=mixed, floor_s=0.0, overhead_s=0.0, noise_cv=0.0)
        model = np.array([ride_extra_s(sample, steps, mixed_chunk=mixed_chunk) for sample in split.ride])
        gaps = np.array([sample.decode_step_s for sample in split.ride])
        extra = np.array([sample.extra_s for sample in split.ride])
        # Relative to the whole gap that the requests see.
        found["mixed"] = residual(model + gaps, extra + gaps)
    return Residuals.model_validate(found)


def _hold_back(split: Split, rng: np.random.Generator) -> tuple[Split, Split]:
    """Four fifths to fit to, and a fifth of each kind to score, of points that keep another sample."""
    decode = _choose(split.decode, rng)
    prefill = _choose(split.prefill, rng)
    ride = _choose(split.ride, rng)
    training = Split(tuple(decode[0]), tuple(prefill[0]), tuple(ride[0]), left_out=0)
    return training, Split(tuple(decode[1]), tuple(prefill[1]), tuple(ride[1]), left_out=0)


def _choose(samples: Sequence[_S], rng: np.random.Generator) -> tuple[list[_S], list[_S]]:
    wanted = len(samples) // _HELD_BACK
    left = Counter(sample.point for sample in samples)
    held: set[int] = set()
    for index in rng.permutation(len(samples)).tolist():
        if len(held) < wanted and left[samples[index].point] > 1:
            left[samples[index].point] -= 1
            held.add(index)
    keep = [sample for index, sample in enumerate(samples) if index not in held]
    return keep, [samples[index] for index in sorted(held)]


def _requests(samples: Sequence[PrefillSample], scheduling_s: float) -> RequestOverheads:
    """Ingress as a line over the prompt's length; scheduling is part of the step and not counted twice."""
    tokens = np.array([float(s.new_tokens + s.cached_tokens) for s in samples])
    ingress = np.array([s.ingress_s for s in samples])
    # Medians of slopes: milliseconds drown in whatever else the machine does, now and then.
    per_token_s = max(float(theilslopes(ingress, tokens).slope), 0.0)
    base_s = float(np.median(ingress - per_token_s * tokens))
    egress_s = float(np.median([s.egress_s for s in samples]))
    return RequestOverheads(
        ingress_s=float(f"{max(base_s - scheduling_s, 0.0):.4g}"),
        ingress_per_prompt_token_s=float(f"{per_token_s:.4g}"),
        egress_s=float(f"{max(egress_s - max(scheduling_s - base_s, 0.0), 0.0):.4g}"),
    )


def _confidence(split: Split, form: DecodeForm, prefill: PrefillSteps, rng: np.random.Generator) -> Confidence:
    """Of fits of the same form, with the knee of ``prefill``."""
    decodes, prefills = _decode_arrays(split.decode), _prefill_arrays(split.prefill)
    decode_draws, prefill_draws = [], []
    for _ in range(_BOOTSTRAPS):
        drawn = _resample(split, rng)
        decode_fit = fit_decode(_decode_arrays(drawn.decode), rising=False, form=form)
        decode_draws.append(decode_step_s(decode_fit, decodes))
        prefill_fit = fit_prefill(_prefill_arrays(drawn.prefill), knees=[int(prefill.knee_tokens)])
        prefill_draws.append(prefill_step_s(prefill_fit, prefills))
    return Confidence(decode=_half_width(decode_draws), prefill=_half_width(prefill_draws), mixed=_ride_width(split))


def _resample(split: Split, rng: np.random.Generator) -> Split:
    """As many samples of each point as it has, drawn from them."""

    def drawn(samples: Sequence[_S]) -> tuple[_S, ...]:
        groups: dict[str, list[_S]] = {}
        for sample in samples:
            groups.setdefault(sample.point, []).append(sample)
        return tuple(
            group[int(index)] for group in groups.values() for index in rng.integers(0, len(group), len(group))
        )

    return replace(split, decode=drawn(split.decode), prefill=drawn(split.prefill))


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
