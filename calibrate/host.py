"""Step times on a machine that is not alone: its pace changes, and the host of a virtual machine has some of its
processor time for others ("steal").

Both come and go in seconds, and hit some samples and not others. How much longer steps take with them is found from the
samples themselves, and all are brought to what there was on average.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from itertools import chain
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.optimize import curve_fit
from scipy.stats import median_abs_deviation

from simcore.errors import UserError
from simcore.profile import ServiceProfile
from simcore.profile_measurement import Host, Pace, Steal

from .pace import WORK
from .samples import DecodeSample, PrefillSample, RideSample
from .split import Split

__all__ = ["Spell", "beside", "evened", "find_host"]

Floats = npt.NDArray[np.float64]
_Kinds = tuple[Sequence[DecodeSample | PrefillSample], ...]

_ROUNDS = 4  # of fitting and correcting
_DIGITS = 4
_MOST = 20.0  # of a cost: powers of more overflow on the way
_SETTLED = 1e-6  # relative: below the digits that are kept
_HUBER = 1.345
_SMALLEST_SIGMA = 1e-3  # no step is told better, and a server that is emulated leaves nothing to tell
_STEAL_COST, _PACE_COST = (1.0, 0.5), (0.5, 0.5)
"""What stolen time costs steps, and what the pace does, give or take, before any sample says so. Steps that are all
computation on the machine take a percent longer with each percent stolen, and with each percent that the pace is
slower; steps that sleep, or compute on a GPU, less; steps that also wait for a core, more. Minutes in which next to
nothing was stolen say as good as nothing of it, and neither 0 nor what a few chance samples say would do for minutes in
which much is."""
_COMPUTED_COST_GIVE_OR_TAKE = 0.05
"""Of the pace's cost to decode steps where it is seen how much of them the server computes: as much is expected. A
server that waits for a GPU on a core looks as busy; there steps tell well enough that the pace costs nothing. On a
machine in which pace and stolen time rise and fall together twenty samples do not."""


class Spell(NamedTuple):
    """What a machine was like from a moment of a run on."""

    at_s: float
    stolen: float
    """The share of its processor time that its host had for others."""
    work_s: float | None
    """How long the timed work took, seconds; None where that is not known."""


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
    work_s = float(f"{np.mean(timed):.4g}") if timed else None
    pace = None if work_s is None else Pace(work_s=work_s, work=WORK, decode_cost=0.0, prefill_cost=0.0)
    return Host(steal=Steal(mean=round(stolen, _DIGITS), cost=0.0), pace=pace)


def _with_costs(host: Host, kinds: _Kinds, longer: Sequence[Floats]) -> Host:
    """Steps over their fit are, for each kind of step from another height, a line of what was stolen, times a power of
    the pace: how steep, with Huber's loss.

    What is stolen costs decode and prefill steps the same, though that need not be quite so: in calm minutes hardly
    anything is stolen beside one kind or the other, and a single slow visit would decide.
    """
    work_s = None if host.pace is None else host.pace.work_s
    stolen = np.array([one.stolen for one in chain(*kinds)])
    slower = np.array([1.0 if work_s is None or one.work_s is None else one.work_s / work_s for one in chain(*kinds)])
    is_decode = np.repeat([True, False], [len(times) for times in longer])
    times = np.concatenate(longer)
    expected, give_or_take = zip(_STEAL_COST, _decode_pace_cost(kinds[0]), _PACE_COST, strict=True)
    of_host = np.where(is_decode, *np.array([host.factors(one.stolen, one.work_s) for one in chain(*kinds)]).T)

    def model(_: Floats, decode: float, prefill: float, *costs: float) -> Floats:
        of_stolen, *of_pace = costs
        heights, powers = np.where(is_decode, decode, prefill), np.where(is_decode, *of_pace)
        return np.append(heights * (1 + of_stolen * stolen) * slower**powers, costs)

    found, _ = curve_fit(
        model,
        times,
        np.append(times, expected),
        p0=[1.0, 1.0, *expected],
        sigma=np.append(_spread(times / of_host, is_decode), give_or_take),
        absolute_sigma=True,
        bounds=(0, _MOST),
        x_scale="jac",
        ftol=_SETTLED,
        xtol=_SETTLED,
        loss="huber",
        f_scale=_HUBER,
    )
    of_stolen, of_decode, of_prefill = (round(float(cost), _DIGITS) for cost in found[2:])
    of_pace = {"decode_cost": of_decode, "prefill_cost": of_prefill}
    pace = None if host.pace is None else host.pace.model_copy(update=of_pace)
    return Host(steal=host.steal.model_copy(update={"cost": of_stolen}), pace=pace)


def _decode_pace_cost(samples: Iterable[DecodeSample | PrefillSample]) -> tuple[float, float]:
    """As expected, give or take."""
    computed = [min(one.server_cores, 1.0) for one in samples if one.server_cores is not None]
    return (float(np.mean(computed)), _COMPUTED_COST_GIVE_OR_TAKE) if computed else _PACE_COST


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

    def factors(one: DecodeSample | PrefillSample | RideSample) -> tuple[float, float]:
        return host.factors(one.stolen, one.work_s)

    def even(ride: RideSample) -> RideSample:
        decode, prefill = factors(ride)
        return replace(ride, extra_s=ride.extra_s / prefill, decode_step_s=ride.decode_step_s / decode)

    return replace(
        split,
        decode=tuple(replace(one, step_s=one.step_s / factors(one)[0]) for one in split.decode),
        prefill=tuple(replace(one, step_s=one.step_s / factors(one)[1]) for one in split.prefill),
        ride=tuple(map(even, split.ride)),
    )


def beside(profile: ServiceProfile, spells: Iterable[Spell]) -> ServiceProfile:
    """The profile on a machine that is as said from time to time. As it was measured where it does not tell what that
    costs. Raises UserError where the profile's pace was told by other work."""
    if profile.host is None:
        return profile
    if profile.host.pace is not None and profile.host.pace.work != WORK:
        raise UserError(f"profile {profile.name}: other work told the machine's pace beside it; calibrate anew")
    slowdowns = tuple(profile.host.slowdown(*spell) for spell in spells)
    return profile.model_copy(update={"slowdowns": slowdowns})
