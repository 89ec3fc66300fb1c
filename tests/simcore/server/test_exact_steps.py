"""Macro-steps are exact: the same timestamps as one event a step, over random workloads and settings.

Each test also asserts that the rules it is about came into play in many of its cases.
"""

from collections import Counter
from unittest.mock import patch

import pytest
from hypothesis import HealthCheck, given, settings
from support.cases import Case, Play, cases, play

from simcore.server.radix_cache import RadixCache
from simcore.server.step_log import itl_frame

thoroughly = settings(
    max_examples=400, deadline=None, derandomize=True, database=None, suppress_health_check=[HealthCheck.too_slow]
)


def assert_same_times(got: dict[int, float], wanted: dict[int, float]) -> None:
    assert got.keys() == wanted.keys()
    assert all(abs(got[number] - wanted[number]) <= 1e-9 for number in wanted)


def assert_equal(got: Play, wanted: Play) -> None:
    """Every timestamp, every count and every sum."""
    logs = got.bench.log, wanted.bench.log
    assert logs[0].failures == logs[1].failures
    assert_same_times(logs[0].failed_at, logs[1].failed_at)
    assert_same_times(logs[0].first, logs[1].first)
    assert_same_times(logs[0].ended_at, logs[1].ended_at)
    for one, other in zip(got.sent, wanted.sent, strict=True):
        assert (one.retractions, one.cached_tokens) == (other.retractions, other.cached_tokens)
    mine, theirs = got.bench.server.telemetry, wanted.bench.server.telemetry
    for name in ("retractions", "cached_tokens", "ttft_count", "gaps", "peak_running"):
        assert getattr(mine, name) == getattr(theirs, name), name
    assert got.bench.generated_tokens == wanted.bench.generated_tokens
    for name in ("steps", "prefill_tokens", "decode_tokens"):
        assert getattr(mine.totals, name) == getattr(theirs.totals, name), name
    for name in ("prefill_s", "decode_s", "mixed_s"):
        assert getattr(mine.totals, name) == pytest.approx(getattr(theirs.totals, name), abs=1e-6), name
    assert mine.ttft_sum_s == pytest.approx(theirs.ttft_sum_s, abs=1e-6)
    assert mine.gap_sum_s == pytest.approx(theirs.gap_sum_s, abs=1e-6)


def test_macro_steps_equal_exact_steps() -> None:
    seen: Counter[str] = Counter()

    @thoroughly
    @given(cases())
    def check(case: Case) -> None:
        macro, exact = play(case), play(case, exact_steps=True)
        assert_equal(macro, exact)
        for got, wanted in zip(macro.loads, exact.loads, strict=True):
            # The KV of a step that is formed ahead may be allocated as early as that.
            assert got._replace(kv_tokens_used=0, gap_sum_s=0) == wanted._replace(kv_tokens_used=0, gap_sum_s=0)
            assert got.gap_sum_s == pytest.approx(wanted.gap_sum_s, abs=1e-9)
            assert got.kv_tokens_used == wanted.kv_tokens_used or case.settings["overlap"]
        seen.update(macro.seen)

    check()
    assert len(seen) == 9
    assert min(seen.values()) > 15, seen


def test_gaps_between_tokens_are_as_many_and_as_long() -> None:
    @thoroughly
    @given(cases())
    def check(case: Case) -> None:
        frames = [
            itl_frame([played.bench.server.telemetry.steps]) for played in (play(case), play(case, exact_steps=True))
        ]
        assert frames[0]["count"].sum() == frames[1]["count"].sum()
        sums = [(frame["gap_s"] * frame["count"]).sum() for frame in frames]
        # They are kept to three digits, and those of a run of steps as their mean.
        assert sums[0] == pytest.approx(sums[1], rel=5e-3)

    check()


def test_kv_is_never_overdrawn_and_all_comes_back_and_nobody_is_lost() -> None:
    seen: Counter[str] = Counter()
    evict = RadixCache.evict

    def counted(cache: RadixCache, tokens: int) -> int:
        freed = evict(cache, tokens)
        seen["eviction"] += freed > 0
        return freed

    @thoroughly
    @given(cases())
    def check(case: Case) -> None:
        played = play(case)
        pool, log = played.bench.continuous.scheduler.pool, played.bench.log
        assert played.bench.server.peak_kv_tokens <= pool.capacity
        assert all(0 <= load.kv_tokens_used <= pool.capacity for load in played.loads)
        # Whatever ran, in the end no request holds anything: the pool is free or evictable.
        assert pool.used == pool.cache.locked_tokens == 0
        assert pool.free + pool.cache.evictable_tokens == pool.capacity
        # Each request has one outcome. ``Log`` sees to it that nobody is told of twice.
        assert all(one.done for one in played.sent)
        assert not set(log.ended_at) & set(log.failures)
        assert set(log.ended_at) | set(log.failures) | set(case.cancels) == set(range(len(played.sent)))
        assert set(log.ended_at) <= set(log.first)
        seen.update(played.seen)

    with patch.object(RadixCache, "evict", counted):
        check()
    assert min(seen["eviction"], seen["retraction"], seen["cancel"], seen["chunk"]) > 25, seen


def test_requests_that_share_nothing_need_not_say_so() -> None:
    """``shareable`` is for speed alone: without nodes of their own in the prefix cache they fare the same."""
    seen: Counter[str] = Counter()

    @thoroughly
    @given(cases())
    def check(case: Case) -> None:
        alone, as_others = play(case, lone_shareable=False), play(case)
        assert_equal(alone, as_others)
        assert alone.loads == as_others.loads
        assert alone.bench.continuous.scheduler.pool.free % alone.bench.settings.page_size == 0
        if case.settings["radix_cache"]:
            seen.update(alone.seen)

    check()
    assert min(seen["retraction"], seen["cache hit"], seen["cancel"], seen["chunk"]) > 25, seen
