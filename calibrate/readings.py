"""What answers and load reports say of a step's time."""

from dataclasses import asdict, dataclass, replace
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from .client import Answer
from .neighbours import Meanwhile
from .plan import PrefillPoint, RidePoint
from .samples import DecodeSample, PrefillSample, RideSample

__all__ = [
    "FEWEST_STEPS",
    "Rider",
    "full_batch_arrivals",
    "ingress_spacing_s",
    "last_token_s",
    "mean_decode",
    "mean_prefill",
    "mean_step_s",
    "prefill_sample",
    "ride_sample",
    "server_prefill_s",
    "server_step_s",
]

Floats = npt.NDArray[np.float64]

FEWEST_STEPS: Final = 16
"""Fewer tell nothing of a mean."""
_FEWEST_BETWEEN = 8  # steps without a rider
_STALL = 3.0  # a step so many times the median is no step of the server's


@dataclass(frozen=True, slots=True)
class Rider:
    """A prompt that came while others decoded, and its one token."""

    new_tokens: int
    answer: Answer


def full_batch_arrivals(answers: list[Answer]) -> Floats:
    """When the tokens came of the request that began last, while all were running. Those of a part that holds several
    count as evenly spread: it would look like one long step."""
    last = _began_last(answers)
    end = min(answer.token_at[-1] for answer in answers)
    tokens, parts = np.unique(last.tokens, return_index=True)
    arrivals: Floats = np.interp(np.arange(tokens[0], tokens[-1] + 1), tokens, np.array(last.token_at)[parts])
    return arrivals[arrivals <= end + 1e-4]


def ingress_spacing_s(answers: list[Answer]) -> float | None:
    """Between requests of one moment as the server passed them to its scheduler, seconds; None where it does not say
    when, or there was one. The median: the process may be held up for once, by the first prefill on a busy machine."""
    passed_on = [answer.meta.get("api_server_dispatch_finish_ts") for answer in answers]
    if len(answers) == 1 or not all(passed_on):
        return None
    return float(np.median(np.diff(np.sort(np.array(passed_on, dtype=float)))))


def _began_last(answers: list[Answer]) -> Answer:
    return max(answers, key=lambda answer: answer.token_at[0])


def mean_step_s(gaps: Floats) -> float:
    """The mean, and not the median: requests live through the slow steps too."""
    return float(gaps[_no_stall(gaps)].mean())


def last_token_s(gaps: Floats) -> float | None:
    """What a request's first and last step together take longer than two others; None where one of them stalled."""
    steps = _no_stall(gaps)
    if not (steps[0] and steps[-1]):
        return None
    return float(gaps[0] + gaps[-1] - 2 * gaps[1:-1][steps[1:-1]].mean())


def _no_stall(steps_s: Floats) -> npt.NDArray[np.bool_]:
    return steps_s <= _STALL * np.median(steps_s)


def mean_decode(runs: list[DecodeSample], meanwhile: Meanwhile) -> DecodeSample:
    """One sample of several of a point."""
    spacings = [run.ingress_spacing_s for run in runs if run.ingress_spacing_s is not None]
    last_tokens = [run.last_token_s for run in runs if run.last_token_s is not None]
    return replace(
        runs[0],
        steps=sum(run.steps for run in runs),
        step_s=float(np.mean([run.step_s for run in runs])),
        client_step_s=float(np.mean([run.client_step_s for run in runs])),
        ingress_spacing_s=float(np.median(spacings)) if spacings else None,
        last_token_s=float(np.mean(last_tokens)) if last_tokens else None,
        **asdict(meanwhile),
    )


def mean_prefill(shots: list[PrefillSample], meanwhile: Meanwhile) -> PrefillSample:
    """One sample of several of a point, without stalls."""
    steps = _no_stall(np.array([shot.step_s for shot in shots]))

    def mean(values: list[float]) -> float:
        return float(np.array(values)[steps].mean())

    return replace(
        shots[0],
        new_tokens=round(mean([shot.new_tokens for shot in shots])),
        cached_tokens=round(mean([shot.cached_tokens for shot in shots])),
        step_s=mean([shot.step_s for shot in shots]),
        ttft_s=mean([shot.ttft_s for shot in shots]),
        ingress_s=mean([shot.ingress_s for shot in shots]),
        egress_s=mean([shot.egress_s for shot in shots]),
        **asdict(meanwhile),
    )


def server_step_s(before: dict[str, Any], after: dict[str, Any], batch: int) -> float | None:
    """The server's own mean decode step, seconds, if it counted ``batch`` in all of them."""
    new, old = after.get("decode_moments"), before.get("decode_moments") or [0.0] * 6
    if new is None:
        return None
    steps, rows, micros = (new[index] - old[index] for index in range(3))
    if steps < FEWEST_STEPS or abs(rows / steps - batch) > 0.02 * batch:
        return None
    return float(micros / steps * 1e-6)


def server_prefill_s(before: dict[str, Any], after: dict[str, Any], new_tokens: int) -> float | None:
    """The server's own time of the prefill, seconds, if it computed these tokens alone."""
    tokens = after.get("total_prefill_uncached_tokens", 0) - before.get("total_prefill_uncached_tokens", 0)
    micros = after.get("total_prefill_busy_us", 0) - before.get("total_prefill_busy_us", 0)
    return micros * 1e-6 if tokens == new_tokens and micros > 0 else None


def prefill_sample(
    point: PrefillPoint, new_tokens: int, answer: Answer, cached: int, busy_s: float | None
) -> PrefillSample:
    """Ingress and egress by the server's timestamps where it gives them (``--enable-metrics``) and its clock is ours;
    else all that is not the step counts as ingress."""
    meta = answer.meta
    entry, finished = meta.get("forward_entry_time"), meta.get("prefill_finished_time")
    step_s = busy_s
    if step_s is None:
        step_s = finished - entry if entry and finished else answer.ttft_s
    rest_s = max(answer.ttft_s - step_s, 0.0)
    egress_s = 0.0
    if entry and finished and answer.sent_wall < entry < finished < answer.first_wall:
        egress_s = min(answer.first_wall - finished, rest_s)
    return PrefillSample(
        new_tokens=new_tokens,
        cached_tokens=cached,
        step_s=step_s,
        ttft_s=answer.ttft_s,
        ingress_s=rest_s - egress_s,
        egress_s=egress_s,
        others_cores=0.0,
        point=point.name,
    )


def ride_sample(
    point: RidePoint, answers: list[Answer], riders: list[Rider], meanwhile: Meanwhile
) -> RideSample | None:
    """What the riders among the requests cost them, on average: the time that steps took while one was under way, over
    that of as many others. So what the server does when a prompt arrives counts, and not its prefill step alone. None
    where no rider came among them, too few steps were without one, or steps cannot be told apart as tokens came two at
    a time."""
    if (np.diff(_began_last(answers).tokens) > 1).any():
        return None
    arrivals = full_batch_arrivals(answers)
    gaps = np.diff(arrivals)
    beside = np.zeros(len(gaps), dtype=np.bool_)
    lengths: list[int] = []
    for rider in riders:
        sent, came = np.searchsorted(arrivals, (rider.answer.sent_at, rider.answer.token_at[0])) - 1
        if sent >= 0 and came < len(gaps):
            beside[sent : came + 1] = True
            lengths.append(rider.new_tokens)
    if not lengths or len(gaps) - beside.sum() < _FEWEST_BETWEEN:
        return None
    step_s = mean_step_s(gaps[~beside])
    return RideSample(
        batch=point.batch,
        context_tokens=point.prompt_tokens + point.steps / 2 + 1,
        new_tokens=round(float(np.mean(lengths))),
        extra_s=float(gaps[beside].sum() - beside.sum() * step_s) / len(lengths),
        decode_step_s=step_s,
        point=point.name,
        **asdict(meanwhile),
    )
