"""How two profiles differ: in what they predict over the range that both were measured in, and in their settings."""

from dataclasses import dataclass

import numpy as np

from .profile import ServiceProfile
from .profile_measurement import Host, Pace
from .step_time import StepTimes

__all__ = ["ProfileDifference", "TermDifference", "compare_profiles", "implausibilities"]

_POINTS = 12


@dataclass(frozen=True, slots=True)
class TermDifference:
    """Predictions of the second over those of the first, less one: mean, mean of the sizes, and the largest size."""

    term: str
    mean: float
    mean_abs: float
    max_abs: float


@dataclass(frozen=True, slots=True)
class ProfileDifference:
    """``fields``: what is set differently, as (name, first, second). ``stolen``: the shares of processor time that were
    stolen beside the two calibrations, ``work_s``: how long the timed work took; None where one does not tell, or it
    was not the same work."""

    terms: tuple[TermDifference, ...]
    fields: tuple[tuple[str, object, object], ...]
    stolen: tuple[float, float] | None
    work_s: tuple[float, float] | None


def compare_profiles(first: ServiceProfile, second: ServiceProfile) -> ProfileDifference:
    """Over a grid of the range valid for both; on a machine as it was beside the first, where both tell of theirs."""
    batch = min(p.valid_range.max_batch for p in (first, second))
    batch = min(batch, *(p.settings.max_running_requests for p in (first, second)))
    context = min(p.valid_range.max_context_tokens for p in (first, second))
    tokens = min(p.valid_range.max_prefill_tokens for p in (first, second))
    times = [StepTimes(first.steps, first.settings), _times_beside(second, first.host)]
    decode = [
        [one.decode_base_s[rows] + one.decode_context_s[rows] * rows * length for one in times]
        for rows in _spread(1, batch)
        for length in _spread(min(64, context), context)
    ]
    prefill = [[one.prefill_s(new, new * new / 2) for one in times] for new in _spread(1, tokens)]
    requests = [
        [
            p.requests.ingress_s + p.requests.egress_s + p.requests.ingress_per_prompt_token_s * new
            for p in (first, second)
        ]
        for new in _spread(1, tokens)
    ]
    # Overheads are told by what a request sees of them on an idle server: alone they are small, and the share of them
    # that a fit gives to the step varies.
    ttft = [[step + around for step, around in zip(*pair, strict=True)] for pair in zip(prefill, requests, strict=True)]
    terms = [_term("decode step", decode), _term("prefill step", prefill), _term("TTFT at idle", ttft)]
    return ProfileDifference(tuple(terms), tuple(_fields(first, second)), *_hosts(first.host, second.host))


def _hosts(first: Host | None, second: Host | None) -> tuple[tuple[float, float] | None, tuple[float, float] | None]:
    """What was stolen, and how long the timed work took, beside both."""
    if first is None or second is None:
        return None, None
    stolen = first.steal.mean, second.steal.mean
    if second.pace is None or (work_s := _work_s(first, second.pace)) is None:
        return stolen, None
    return stolen, (work_s, second.pace.work_s)


def _work_s(host: Host, other: Pace | None) -> float | None:
    """How long the timed work took, where it is the work of the other."""
    return host.pace.work_s if host.pace and other and host.pace.work == other.work else None


def _times_beside(second: ServiceProfile, host: Host | None) -> StepTimes:
    """Of the second, on a machine that is as it was beside the first."""
    times = StepTimes(second.steps, second.settings)
    if host is None or second.host is None:
        return times
    return times.slowed(*second.host.factors(host.steal.mean, _work_s(host, second.host.pace)))


def _spread(low: int, high: int) -> list[int]:
    """Whole numbers from ``low`` to ``high``, evenly spaced in their logarithm."""
    return sorted({round(value) for value in np.geomspace(low, high, _POINTS)})


def _term(name: str, pairs: list[list[float]]) -> TermDifference:
    old, new = np.array(pairs).T
    change = new / old - 1
    return TermDifference(name, float(change.mean()), float(np.abs(change).mean()), float(np.abs(change).max()))


def _fields(first: ServiceProfile, second: ServiceProfile) -> list[tuple[str, object, object]]:
    def flat(profile: ServiceProfile) -> dict[str, object]:
        provenance = profile.provenance
        return {
            "model": provenance.model,
            "gpu": provenance.gpu,
            "engine": f"{provenance.engine} {provenance.engine_version}",
            "kv_tokens_capacity": profile.kv_tokens_capacity,
            "context_length": profile.context_length,
            **profile.settings.model_dump(),
            **(profile.measurement.server_args if profile.measurement else {}),
        }

    old, new = flat(first), flat(second)
    return [(name, old.get(name), new.get(name)) for name in {**old, **new} if old.get(name) != new.get(name)]


def implausibilities(profile: ServiceProfile) -> list[str]:
    """What in a profile that can be read should still make its user look twice."""
    found = []
    measurement = profile.measurement
    if measurement is not None and measurement.verdict != "good":
        found.append(f"its calibration said: {measurement.verdict}, because {'; '.join(measurement.reasons)}")
    for term, bound in (("decode", 0.1), ("prefill", 0.15)):
        left = getattr(profile.residuals, term)
        if left is not None and left.mape > bound:
            found.append(f"{term} steps are {left.mape:.0%} off the samples on average")
    running, valid = profile.settings.max_running_requests, profile.valid_range
    if running > valid.max_batch:
        found.append(f"max_running_requests is {running}, batches were measured up to {valid.max_batch}")
    if profile.context_length > 2 * valid.max_context_tokens:
        found.append(
            f"contexts may be {profile.context_length} tokens long, they were measured up to {valid.max_context_tokens}"
        )
    return found
