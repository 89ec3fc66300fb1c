"""Random workloads and settings for one server, tight enough that every rule of its scheduler comes into play."""

import math
from collections import Counter
from dataclasses import dataclass, field

from hypothesis import strategies as st
from support.servers import Bench, request

from simcore.profile_parts import Slowdown
from simcore.server.interface import Load
from simcore.server.request import ServerRequest

__all__ = ["Case", "Play", "cases", "play"]


@dataclass(frozen=True)
class Job:
    """One request; ``group`` 0 shares nothing, the others begin with 50 tokens a number of common ones."""

    at: float
    group: int
    prompt: int
    output: int
    slack: int
    fixed: bool


@dataclass(frozen=True)
class Case:
    settings: dict[str, object]
    kv_tokens: int
    jobs: list[Job]
    cancels: dict[int, float]
    caps: list[tuple[float, int]]
    looks: list[float]
    slowdowns: list[Slowdown]


def _times(scale: float) -> st.SearchStrategy[float]:
    """Irrational, so that nothing falls on a step boundary by chance but what does by design."""
    return st.floats(0, 1, allow_nan=False).map(lambda share: share * scale * math.pi / 3)


@st.composite
def _launches(draw: st.DrawFn, *, tight: bool) -> dict[str, object]:
    page = draw(st.sampled_from([1, 1, 4, 16]))
    chunk = draw(st.sampled_from([None, 64, 128]))
    radix_cache = draw(st.booleans())
    policies = ["fcfs", "fcfs", "lpm", "lof", *(["shortest-prefill-first"] * radix_cache)]
    return {
        "max_running_requests": draw(st.sampled_from([8, 16] if tight else [1, 3, 12])),
        "page_size": page,
        "chunked_prefill_size": chunk,
        "max_prefill_tokens": draw(st.sampled_from([200, 16384])),
        "radix_cache": radix_cache,
        "overlap": draw(st.booleans()),
        "mixed_chunk": chunk is not None and draw(st.booleans()),
        "schedule_policy": draw(st.sampled_from(policies)),
        "schedule_conservativeness": 0.02 if tight else draw(st.sampled_from([0.3, 1.0])),
        "max_queued_requests": draw(st.sampled_from([None, None, None, 3])),
    }


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """Half of the cases are tight: many requests with short prompts and long answers, of which far more are admitted
    than the pool holds. The longest fits in it alone."""
    tight = draw(st.booleans())
    prompts, outputs = (
        (st.integers(1, 60), st.integers(60, 280)) if tight else (st.integers(1, 200), st.integers(1, 120))
    )
    gaps = _times(draw(st.sampled_from([0.05, 0.15] if tight else [0.02, 0.1, 0.5])))
    row = st.tuples(gaps, st.integers(0, 2), prompts, outputs, st.integers(0, 60))
    jobs, at = [], 0.0
    for gap, group, prompt, output, slack in draw(st.lists(row, min_size=8 if tight else 1, max_size=20)):
        at += gap
        jobs.append(Job(at, group, prompt, output, slack, fixed=slack % 4 == 0))
    index = st.integers(0, len(jobs) - 1)
    after = draw(st.lists(st.tuples(index, _times(2.0)), max_size=4))
    cancels = {number: jobs[number].at + wait for number, wait in after if wait > 0}
    caps = draw(st.lists(st.tuples(_times(4.0), st.integers(1, 16)), max_size=2))
    factors = st.sampled_from([0.7, 1.0, 1.9])
    looks = sorted(draw(st.lists(_times(4.0), max_size=3)))
    changes = draw(st.lists(st.tuples(_times(4.0), factors, factors), max_size=3, unique_by=lambda change: change[0]))
    slowdowns = [Slowdown(at_s=at, decode=decode, prefill=prefill) for at, decode, prefill in sorted(changes)]
    return Case(draw(_launches(tight=tight)), draw(st.integers(550, 800)), jobs, cancels, caps, looks, slowdowns)


@dataclass
class Play:
    """A case, played to its end."""

    bench: Bench
    sent: list[ServerRequest]
    loads: list[Load]
    seen: Counter[str] = field(default_factory=Counter)
    """Which rules came into play, by a name."""


def play(case: Case, *, exact_steps: bool = False, lone_shareable: bool = True) -> Play:
    """Play a case. ``lone_shareable``: requests that share nothing are submitted as if they might."""
    bench = Bench(kv_tokens=case.kv_tokens, exact_steps=exact_steps, slowdowns=case.slowdowns, **case.settings)
    sent = []
    for number, job in enumerate(case.jobs):
        pieces = [(2 * number, 0, job.prompt)]
        if job.group:
            pieces = [(-job.group, 0, 50 * job.group), *pieces]
        max_new = job.output if job.fixed else job.output + job.slack
        sent.append(
            request(
                *(number, pieces, job.output),
                at=job.at,
                max_new=max_new,
                ignore_eos=job.fixed,
                shareable=bool(job.group) or lone_shareable,
            )
        )
    bench.send(*sent)
    for number, at in case.cancels.items():
        bench.cancel(sent[number], at=at)
    for at, cap in case.caps:
        bench.limit(min(cap, bench.settings.max_running_requests), at=at)
    loads = bench.watch(*case.looks)
    bench.run()
    return Play(bench, sent, loads, _seen(case, bench, sent))


def _seen(case: Case, bench: Bench, sent: list[ServerRequest]) -> Counter[str]:
    telemetry, chunk = bench.server.telemetry, case.settings["chunked_prefill_size"]
    failed, ended = set(bench.log.failures), set(bench.log.ended_at)
    return Counter(
        {
            "retraction": telemetry.retractions > 0,
            "chunk": isinstance(chunk, int) and any(one.prompt_tokens - one.cached_tokens > chunk for one in sent),
            "mixed step": telemetry.totals.mixed_s > 0,
            "cache hit": telemetry.cached_tokens > 0,
            "refusal": bool(failed),
            "cancel": any(number not in ended | failed for number in case.cancels),
            "row in vain": bench.settings.overlap and any(not one.ends_by_length() for one in sent),
            "change of the cap": bool(case.caps),
            "slowdown": any(one.at_s < bench.clock.now for one in case.slowdowns),
        }
    )
