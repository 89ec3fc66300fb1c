"""Step times where the host of a virtual machine has some of its processor time for others ("steal").

It comes and goes in seconds, and hits some samples and not others. How much longer steps take with it is found from the
samples themselves, and all are brought to what was stolen on average.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt
from scipy.stats import median_abs_deviation

from simcore.profile import ServiceProfile
from simcore.profile_measurement import Steal

from .fit import fit_non_negative
from .samples import DecodeSample, PrefillSample
from .split import Split

__all__ = ["evened", "find_steal", "where_stolen"]

Floats = npt.NDArray[np.float64]

_ROUNDS = 4  # of fitting and correcting
_DIGITS = 4
_NORMAL_95 = 1.96


def find_steal(split: Split, fitted_s: Callable[[Split], tuple[Floats, Floats]]) -> Steal | None:
    """``fitted_s`` fits the step times of a split, and gives those of its decode and of its prefill samples by the fit,
    seconds. None where nothing was stolen, or that could not be seen."""
    mean = float(np.mean([*(one.stolen for one in split.decode), *(one.stolen for one in split.prefill)]))
    if mean == 0:
        return None
    steal = Steal(mean=round(mean, _DIGITS), decode=0.0, prefill=0.0)
    for _ in range(_ROUNDS):
        decode_s, prefill_s = fitted_s(evened(split, steal))
        decode, prefill = _lengthening(split.decode, decode_s), _lengthening(split.prefill, prefill_s)
        steal = steal.model_copy(update={"decode": decode, "prefill": prefill})
    return steal


def _lengthening(samples: Sequence[DecodeSample | PrefillSample], fitted_s: Floats) -> float:
    """Samples over the fit are a line of what was stolen: by how much it rises from where nothing was. 0 where the rise
    is within its 95% interval of none, as it is where the same was stolen beside all."""
    stolen, step_s = np.array([(sample.stolen, sample.step_s) for sample in samples]).T
    if np.ptp(stolen) == 0:
        return 0.0
    line = np.column_stack([np.ones_like(stolen), stolen])
    longer = step_s / fitted_s
    beside_none, slope = fit_non_negative(line, longer)
    sigma = float(median_abs_deviation(longer - line @ (beside_none, slope), scale="normal"))
    if slope < _NORMAL_95 * sigma / (len(longer) ** 0.5 * stolen.std()):
        return 0.0
    return round(float(slope / beside_none), _DIGITS)


def evened(split: Split, steal: Steal | None) -> Split:
    """As the samples would be, had as much been stolen beside each as there was on average."""
    if steal is None:
        return split
    return replace(
        split,
        decode=tuple(replace(one, step_s=one.step_s / steal.decode_factor(one.stolen)) for one in split.decode),
        prefill=tuple(replace(one, step_s=one.step_s / steal.prefill_factor(one.stolen)) for one in split.prefill),
        ride=tuple(
            replace(
                one,
                extra_s=one.extra_s / steal.prefill_factor(one.stolen),
                decode_step_s=one.decode_step_s / steal.decode_factor(one.stolen),
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
