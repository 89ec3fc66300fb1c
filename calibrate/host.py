"""Step times on a machine that is not alone: its pace changes, and the host of a virtual machine has some of its
processor time for others ("steal").

Both come and go in seconds, and hit some samples and not others. How much longer steps take with them is found from the
samples themselves, and all are brought to what there was on average.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from itertools import chain

import numpy as np
import numpy.typing as npt
from scipy.optimize import curve_fit
from scipy.stats import median_abs_deviation

from simcore.profile import ServiceProfile
from simcore.profile_measurement import Host, Pace, Steal

from .samples import DecodeSample, PrefillSample, RideSample
from .split import Split

__all__ = ["beside", "evened", "find_host"]

Floats = npt.NDArray[np.float64]
_Kinds = tuple[Sequence[DecodeSample | PrefillSample], ...]

_ROUNDS = 4  # of fitting and correcting
_DIGITS = 4
_HUBER = 1.345
_SMALLEST_SIGMA = 1e-6
_EXPECTED = ((1.0, 0.5), (0.5, 0.5))
"""What stolen time and the pace cost, give or take, before any sample says so. Steps that are all computation on the
machine take a percent longer with each percent stolen, and with each percent that the pace is slower; steps that sleep,
or compute on a GPU, less; steps that also wait for a core, more. Minutes in which next to nothing was stolen say as
good as nothing of it, and neither 0 nor what a few chance samples say would do for minutes in which much is."""


def find_host(split: Split, fitted_s: Callable[[Split], tuple[Floats, Floats]]) -> Host | None:
    """``fitted_s`` fits the step times of a split, and gives those of its decode and of its prefill samples by the fit,
    seconds. None where nothing of the machine was seen."""
    kinds: _Kinds = (split.decode, split.prefill)
    host = _without_costs(list(chain(*kinds)))
    if host is None:
        return None
    for _ in range(_ROUNDS):
        even_s = fitted_s(evened(split, host))
        longer = [np.array([one.step_s for one in kind]) / fit_s for kind, fit_s in zip(kinds, even_s, strict=True)]
        host = _with_costs(host, kinds, longer)
    return host


def _without_costs(samples: Sequence[DecodeSample | PrefillSample]) -> Host | None:
    stolen = float(np.mean([one.stolen for one in samples]))
    timed = [one.work_s for one in samples if one.work_s is not None]
    if stolen == 0 and not timed:
        return None
    pace = Pace(work_s=float(f"{np.mean(timed):.4g}"), cost=0.0) if timed else None
    return Host(steal=Steal(mean=round(stolen, _DIGITS), cost=0.0), pace=pace)


def _with_costs(host: Host, kinds: _Kinds, longer: Sequence[Floats]) -> Host:
    """Steps over their fit are, for each kind of step from another height, a line of what was stolen, times a power of
    the pace: how steep, with Huber's loss.

    One cost for decode and prefill steps, though it need not be quite the same: in calm minutes hardly anything is
    stolen beside one kind or the other, and a single slow visit would decide.
    """
    work_s = None if host.pace is None else host.pace.work_s
    stolen = np.array([one.stolen for one in chain(*kinds)])
    slower = np.array([1.0 if work_s is None or one.work_s is None else one.work_s / work_s for one in chain(*kinds)])
    of_host = np.array([host.factor(one.stolen, one.work_s) for one in chain(*kinds)])
    is_decode = np.repeat([True, False], [len(times) for times in longer])
    times = np.concatenate(longer)

    def model(_: Floats, decode: float, prefill: float, of_stolen: float, of_pace: float) -> Floats:
        heights = np.where(is_decode, decode, prefill)
        return np.append(heights * (1 + of_stolen * stolen) * slower**of_pace, (of_stolen, of_pace))

    found, _ = curve_fit(
        model,
        times,
        np.append(times, [expected for expected, _ in _EXPECTED]),
        p0=[1.0, 1.0, host.steal.cost, 0.0 if host.pace is None else host.pace.cost],
        sigma=np.append(_spread(times / of_host, is_decode), [give_or_take for _, give_or_take in _EXPECTED]),
        absolute_sigma=True,
        bounds=(0, np.inf),
        loss="huber",
        f_scale=_HUBER,
    )
    of_stolen, of_pace = (round(float(cost), _DIGITS) for cost in found[2:])
    pace = None if host.pace is None else host.pace.model_copy(update={"cost": of_pace})
    return Host(steal=host.steal.model_copy(update={"cost": of_stolen}), pace=pace)


def _spread(times: Floats, is_decode: npt.NDArray[np.bool_]) -> Floats:
    """Of each kind of step, robust."""
    decode, prefill = (
        max(median_abs_deviation(times[kind], scale="normal"), _SMALLEST_SIGMA) for kind in (is_decode, ~is_decode)
    )
    return np.where(is_decode, decode, prefill)


def evened(split: Split, host: Host | None) -> Split:
    """As the samples would be, had the machine been beside each as it was on average."""
    if host is None:
        return split

    def factor(one: DecodeSample | PrefillSample | RideSample) -> float:
        return host.factor(one.stolen, one.work_s)

    return replace(
        split,
        decode=tuple(replace(one, step_s=one.step_s / factor(one)) for one in split.decode),
        prefill=tuple(replace(one, step_s=one.step_s / factor(one)) for one in split.prefill),
        ride=tuple(
            replace(one, extra_s=one.extra_s / factor(one), decode_step_s=one.decode_step_s / factor(one))
            for one in split.ride
        ),
    )


def beside(profile: ServiceProfile, stolen: Iterable[tuple[float, float]], work_s: float | None) -> ServiceProfile:
    """The profile on a machine where the timed work takes so long, and ``stolen`` is: from when on (seconds), which
    share. As it was measured where it does not tell what that costs."""
    if profile.host is None:
        return profile
    slowdowns = tuple(profile.host.slowdown(at_s, share, work_s) for at_s, share in stolen)
    return profile.model_copy(update={"slowdowns": slowdowns})
