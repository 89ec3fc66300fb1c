"""Macro-steps are exact: the same timestamps as one event a step, over random workloads and settings."""

import math
from dataclasses import dataclass

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.servers import Bench, Log, request


@dataclass(frozen=True)
class Case:
    settings: dict[str, object]
    kv_tokens: int
    requests: list[tuple[float, int, int, int, int, bool]]
    cancels: list[tuple[float, int]]
    caps: list[tuple[float, int]]


@st.composite
def cases(draw: st.DrawFn) -> Case:
    page = draw(st.sampled_from([1, 1, 4, 16]))
    chunk = draw(st.sampled_from([None, 64, 256]))
    launch: dict[str, object] = {
        "max_running_requests": draw(st.integers(1, 12)),
        "page_size": page,
        "chunked_prefill_size": chunk,
        "max_prefill_tokens": draw(st.sampled_from([200, 16384])),
        "radix_cache": draw(st.booleans()),
        "overlap": draw(st.booleans()),
        "mixed_chunk": draw(st.booleans()) and chunk is not None,
        "schedule_policy": draw(st.sampled_from(["fcfs", "fcfs", "lpm", "lof", "shortest-prefill-first"])),
        "schedule_conservativeness": draw(st.sampled_from([0.05, 0.3, 1.0])),
        "max_queued_requests": draw(st.sampled_from([None, None, 3])),
    }
    gaps = st.floats(0, 0.5, allow_nan=False).map(lambda gap: gap * math.pi / 3)
    shared = st.integers(0, 2)
    rows = draw(
        st.lists(
            st.tuples(gaps, shared, st.integers(1, 300), st.integers(1, 80), st.integers(0, 200), st.booleans()),
            min_size=1,
            max_size=25,
        )
    )
    requests, at = [], 0.0
    for gap, group, prompt, output, slack, _ in rows:
        at += gap
        fixed = draw(st.booleans())
        requests.append((at, group, prompt, output, output if fixed else output + slack, fixed))
    cancels = draw(st.lists(st.tuples(gaps.map(lambda g: g * 10), st.integers(0, len(requests) - 1)), max_size=3))
    caps = draw(st.lists(st.tuples(gaps.map(lambda g: g * 10), st.integers(1, 12)), max_size=2))
    return Case(launch, draw(st.integers(700, 3000)), requests, cancels, caps)


def play(case: Case, *, exact: bool) -> tuple[Log, Bench]:
    bench = Bench(kv_tokens=case.kv_tokens, exact_steps=exact, **case.settings)
    sent = []
    for index, (at, group, prompt, output, max_new, fixed) in enumerate(case.requests):
        pieces = [(2 * index, 0, prompt)]
        if group:
            pieces = [(-group, 0, 50 * group), *pieces]
        sent.append(request(index, pieces, output, at=at, max_new=max_new, ignore_eos=fixed))
    bench.send(*sent)
    cancelled = set()
    for at, index in case.cancels:
        if at > sent[index].ready_at and index not in cancelled:
            cancelled.add(index)
            bench.clock.at(at, lambda now, gone: bench.server.cancel(gone, now), sent[index])
    for at, cap in case.caps:
        limit = min(cap, bench.settings.max_running_requests)
        bench.clock.at(at, lambda _, limit: bench.continuous.set_max_running_requests(limit), limit)
    log = bench.run()
    assert all(one.done for one in sent), "a request was lost"
    outcomes = [set(log.ended_at), set(log.failures), cancelled]
    assert set().union(*outcomes) == set(range(len(sent)))
    assert not set(log.ended_at) & set(log.failures), "a request both ended and failed"
    return log, bench


@settings(max_examples=250, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(cases())
def test_macro_steps_equal_exact_steps(case: Case) -> None:
    macro, exact = play(case, exact=False), play(case, exact=True)
    assert macro[0].failures == exact[0].failures
    for got, wanted in ((macro[0].first, exact[0].first), (macro[0].ended_at, exact[0].ended_at)):
        assert got.keys() == wanted.keys()
        assert all(abs(got[key] - wanted[key]) <= 1e-9 for key in wanted)
    assert macro[1].server.telemetry.retractions == exact[1].server.telemetry.retractions
    assert macro[1].server.telemetry.cached_tokens == exact[1].server.telemetry.cached_tokens
    assert macro[1].server.telemetry.totals.steps == exact[1].server.telemetry.totals.steps


@settings(max_examples=100, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(cases())
def test_kv_is_never_overdrawn_and_all_comes_back(case: Case) -> None:
    _, bench = play(case, exact=False)
    pool = bench.continuous.scheduler.pool
    assert bench.server.telemetry.totals.peak_kv_tokens <= pool.capacity
    # Whatever ran, in the end no request holds anything: the pool is free or evictable.
    assert pool.used == 0
    assert pool.cache.locked_tokens == 0
    assert pool.free + pool.cache.evictable_tokens == pool.capacity
