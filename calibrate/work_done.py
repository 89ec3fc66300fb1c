"""What a server did while each request decoded, told from a run's records: decode steps, and prefills in between.

Between two events (a first token, a last token) the batch is constant, so a decode step's time is known up to the
factors sought. How many steps lie between two events follows from the time between them; their sum over a request's
answer is known to be its output tokens less one, to which it is scaled.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from simcore.profile import ServiceProfile
from simcore.step_time import StepTimes

__all__ = ["TERMS", "WorkDone", "work_done"]

Floats = npt.NDArray[np.float64]

TERMS = ("decode base", "decode context", "prefill base", "prefill tokens", "request overhead")
_SAME_STEP = 0.5  # of the shortest prefill: first tokens closer than that came from one step


@dataclass(frozen=True, slots=True)
class WorkDone:
    """Rows are latencies: the decode times of all requests, then times to first token of those that found the server
    idle. ``seconds[row, term]`` is what each of ``TERMS`` contributes to it according to the profile, ``at`` when its
    request was dispatched."""

    seconds: Floats
    latency_s: Floats
    at: Floats


def work_done(requests: pd.DataFrame, profile: ServiceProfile, factors: Floats) -> WorkDone:
    """``requests``: one server's finished requests of two output tokens or more; ``factors``: the best guess so far."""
    columns = ("dispatched_at", "first_token_at", "finished_at", "prompt_tokens", "cached_tokens", "output_tokens")
    dispatched, first, last, prompt, cached, output = (requests[name].to_numpy(dtype=np.float64) for name in columns)
    new = np.maximum(prompt - cached, 1.0)
    edges, owner = _edges(first, last)
    rows, context = _batch(edges, first, last, prompt, output)
    prefill = _prefills(profile, owner, new, cached, first, edges)
    decode = _decode_steps(profile, rows, context)
    steps = np.maximum(np.diff(edges) - prefill[:-1] @ factors[2:4], 0.0) / np.maximum(decode @ factors[:2], 1e-9)
    steps[rows == 0] = 0.0
    if profile.settings.mixed_chunk:
        steps += prefill[:-1, 0] > 0
    begin, end = np.searchsorted(edges, first), np.searchsorted(edges, last)
    sums = np.vstack([np.zeros(5), np.cumsum(np.column_stack([steps, steps[:, None] * decode, prefill[:-1]]), axis=0)])
    inside = sums[end] - sums[begin]
    scale = (output - 1) / np.maximum(inside[:, 0], 1e-9)
    overhead = _overheads(profile, prompt)
    last_token_s = np.full(len(first), profile.requests.last_token_s)
    decodes = np.column_stack([scale[:, None] * inside[:, 1:3], inside[:, 3:5], last_token_s])
    idle = _found_idle(dispatched, first, last)
    own = _own_prefill(profile, new, cached)
    starts = np.column_stack([np.zeros((len(first), 2)), own, overhead])[idle]
    return WorkDone(
        np.vstack([decodes, starts]),
        np.concatenate([last - first, (first - dispatched)[idle]]),
        np.concatenate([dispatched, dispatched[idle]]),
    )


def _edges(first: Floats, last: Floats) -> tuple[Floats, npt.NDArray[np.int64]]:
    """All events in order of time, and of each first token the index of the interval that ends with it."""
    edges = np.unique(np.concatenate([first, last]))
    return edges, np.searchsorted(edges, first) - 1


def _batch(edges: Floats, first: Floats, last: Floats, prompt: Floats, output: Floats) -> tuple[Floats, Floats]:
    """Per interval: requests that decode in it, and the sum of their contexts in its middle."""
    begin, end = np.searchsorted(edges, first), np.searchsorted(edges, last)
    size = len(edges)
    middle = (edges[:-1] + edges[1:]) / 2
    pace = (output - 1) / np.maximum(last - first, 1e-9)
    # A request's context is a line over time: prompt + 1 + pace * (t - first).
    level, slope, count = np.zeros(size), np.zeros(size), np.zeros(size)
    for total, value in ((level, prompt + 1 - pace * first), (slope, pace), (count, np.ones_like(pace))):
        np.add.at(total, begin, value)
        np.add.at(total, end, -value)
    running = np.cumsum(count)[:-1]
    return running, np.maximum(np.cumsum(level)[:-1] + np.cumsum(slope)[:-1] * middle, running)


def _decode_steps(profile: ServiceProfile, rows: Floats, context: Floats) -> Floats:
    """Per interval: seconds of a decode step's base and of its context."""
    times = StepTimes(profile.steps, profile.settings)
    index = np.clip(rows.astype(np.int64), 0, len(times.decode_base_s) - 1)
    base_s, context_s = np.array(times.decode_base_s)[index], np.array(times.decode_context_s)[index]
    return np.column_stack([base_s, context_s * context])


def _prefill_s(profile: ServiceProfile, new: Floats, attended: Floats, cached_s: Floats) -> Floats:
    """Per prefill: seconds that are a step's base (one for each chunk), and the rest."""
    times, chunk = StepTimes(profile.steps, profile.settings), profile.settings.chunked_prefill_size or np.inf
    base_s = profile.steps.prefill.base_s + profile.steps.overhead_s
    whole = np.array([times.prefill_s(int(n), a) for n, a in zip(new, attended, strict=True)]) + cached_s
    return np.column_stack([np.ceil(new / chunk) * base_s, np.maximum(whole - base_s, 0.0)])


def _parts(profile: ServiceProfile, new: Floats, cached: Floats) -> tuple[Floats, Floats]:
    """Per request: what its prompt attends to, and the seconds that its cached tokens add."""
    prefill = profile.steps.prefill
    return new * (cached + new / 2), cached * (prefill.per_cached_s + prefill.per_cached_pair_s * cached / 2)


def _own_prefill(profile: ServiceProfile, new: Floats, cached: Floats) -> Floats:
    """Per request: its prefill as a step of its own."""
    return _prefill_s(profile, new, *_parts(profile, new, cached))


def _prefills(
    profile: ServiceProfile, owner: npt.NDArray[np.int64], new: Floats, cached: Floats, first: Floats, edges: Floats
) -> Floats:
    """Per interval: base and rest of the prefill step that ends with it, of all the requests in that step."""
    order = np.argsort(first)
    shortest = float(_own_prefill(profile, new, cached).sum(axis=1).min()) * _SAME_STEP
    begins = np.flatnonzero(np.diff(first[order], prepend=-np.inf) >= shortest)
    sums = [np.add.reduceat(column[order], begins) for column in (new, *_parts(profile, new, cached))]
    seconds, at = _prefill_s(profile, *sums), owner[order][begins]
    found = np.zeros((len(edges), 2))
    np.add.at(found, at[at >= 0], seconds[at >= 0])
    return found


def _overheads(profile: ServiceProfile, prompt: Floats) -> Floats:
    requests = profile.requests
    return requests.ingress_s + requests.ingress_per_prompt_token_s * prompt + requests.egress_s


def _found_idle(dispatched: Floats, first: Floats, last: Floats) -> npt.NDArray[np.bool_]:
    """Requests dispatched when no other was on the server, and whose first token no other's dispatch preceded."""
    order = np.argsort(dispatched)
    ended = np.concatenate([[-np.inf], np.maximum.accumulate(last[order])[:-1]])
    following = np.concatenate([dispatched[order][1:], [np.inf]])
    alone = np.zeros(len(dispatched), dtype=bool)
    alone[order] = (ended <= dispatched[order]) & (following >= first[order])
    return alone
