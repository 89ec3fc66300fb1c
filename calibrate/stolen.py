"""Step times where the host of a virtual machine has some of its processor time for others ("steal").

It comes and goes in seconds, and hits some samples and not others. How much longer steps take with it is found from the
samples themselves, and all are brought to what was stolen on average.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt
from scipy.optimize import curve_fit
from scipy.stats import median_abs_deviation

from simcore.profile import ServiceProfile
from simcore.profile_measurement import Steal

from .samples import DecodeSample, PrefillSample
from .split import Split

__all__ = ["evened", "find_steal", "where_stolen"]

Floats = npt.NDArray[np.float64]

_ROUNDS = 4  # of fitting and correcting
_DIGITS = 4
_HUBER = 1.345
_SMALLEST_SIGMA = 1e-6
_NORMAL_95 = 1.96


def find_steal(split: Split, fitted_s: Callable[[Split], tuple[Floats, Floats]]) -> Steal | None:
    """``fitted_s`` fits the step times of a split, and gives those of its decode and of its prefill samples by the fit,
    seconds. None where nothing was stolen, or that could not be seen."""
    kinds: tuple[Sequence[DecodeSample | PrefillSample], ...] = (split.decode, split.prefill)
    stolen = [np.array([one.stolen for one in kind]) for kind in kinds]
    steal = Steal(mean=round(float(np.concatenate(stolen).mean()), _DIGITS), cost=0.0)
    if steal.mean == 0:
        return None
    for _ in range(_ROUNDS):
        longer = [
            np.array([one.step_s for one in kind]) / fit_s
            for kind, fit_s in zip(kinds, fitted_s(evened(split, steal)), strict=True)
        ]
        steal = steal.model_copy(update={"cost": _cost(longer, stolen, steal.cost)})
    return steal


def _cost(longer: Sequence[Floats], stolen: Sequence[Floats], before: float) -> float:
    """Steps over their fit are a line of what was stolen, for each kind of step from another height: by how much they
    rise, with Huber's loss. 0 where that is within its 95% interval of none, as where the same was stolen beside all.

    One cost for decode and prefill steps, though it need not be quite the same: in calm minutes hardly anything is
    stolen beside one kind or the other, and a single slow visit would decide.
    """
    if not any(np.ptp(share) for share in stolen):
        return 0.0
    spread = [
        np.full_like(times, max(median_abs_deviation(times / (1 + before * share), scale="normal"), _SMALLEST_SIGMA))
        for times, share in zip(longer, stolen, strict=True)
    ]
    is_decode = np.repeat([1.0, 0.0], [len(times) for times in longer])

    def line(share: Floats, decode: float, prefill: float, cost: float) -> Floats:
        return np.asarray((is_decode * decode + (1 - is_decode) * prefill) * (1 + cost * share))

    found, covariance = curve_fit(
        line,
        np.concatenate(stolen),
        np.concatenate(longer),
        p0=(1.0, 1.0, before),
        sigma=np.concatenate(spread),
        absolute_sigma=True,
        bounds=(0, np.inf),
        loss="huber",
        f_scale=_HUBER,
    )
    return round(float(found[-1]), _DIGITS) if found[-1] > _NORMAL_95 * covariance[-1, -1] ** 0.5 else 0.0


def evened(split: Split, steal: Steal | None) -> Split:
    """As the samples would be, had as much been stolen beside each as there was on average."""
    if steal is None:
        return split
    return replace(
        split,
        decode=tuple(replace(one, step_s=one.step_s / steal.factor(one.stolen)) for one in split.decode),
        prefill=tuple(replace(one, step_s=one.step_s / steal.factor(one.stolen)) for one in split.prefill),
        ride=tuple(
            replace(
                one,
                extra_s=one.extra_s / steal.factor(one.stolen),
                decode_step_s=one.decode_step_s / steal.factor(one.stolen),
            )
            for one in split.ride
        ),
    )


def where_stolen(profile: ServiceProfile, share: float) -> ServiceProfile:
    """The profile where such a share of the processor time is stolen from the start; as it was measured where it does
    not tell what that costs."""
    if profile.steal is None:
        return profile
    return profile.model_copy(update={"slowdowns": (profile.steal.slowdown(0.0, share),)})
