"""StepTimes against the profile's formula, at bucket edges and over the range of the bundled profiles."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simcore.launch import SchedulerSettings
from simcore.profile import ServiceProfile, bundled_profiles
from simcore.profile_parts import DecodeSteps, MixedSteps, PrefillSteps, StepCoefficients
from simcore.step_time import StepTimes

STEPS = StepCoefficients(
    decode=DecodeSteps(batches=(1, 8, 16), base_s=(0.010, 0.024, 0.032), context_s=(1e-6, 8e-6, 4e-6)),
    prefill=PrefillSteps(base_s=0.010, below_knee_s=1e-5, per_token_s=1e-4, knee_tokens=100, per_attended_s=1e-8),
    mixed=MixedSteps(decode_context_ratio=2.0),
    floor_s=0.0,
    overhead_s=0.0,
    noise_cv=0.0,
)


def compiled(steps: StepCoefficients = STEPS, graphs: int = 0, running: int = 40) -> StepTimes:
    return StepTimes(steps, SchedulerSettings(max_running_requests=running, cuda_graph_max_batch=graphs))


def test_lists_reach_the_running_limit() -> None:
    times = compiled(running=40)
    assert len(times.decode_base_s) == len(times.decode_context_s) == 41
    assert times.decode_base_s[0] == times.decode_context_s[0] == 0.0


def test_decode_is_linear_between_the_tables_batches() -> None:
    times = compiled()
    assert times.decode_base_s[8] == pytest.approx(0.024)
    assert times.decode_base_s[5] == pytest.approx(0.010 + 4 * 0.002)
    assert times.decode_context_s[12] == pytest.approx(6e-6)


def test_decode_above_the_table_keeps_the_last_slope_of_the_base_only() -> None:
    times = compiled()
    assert times.decode_base_s[40] == pytest.approx(0.032 + 24 * 0.001)
    assert times.decode_context_s[40] == 4e-6


def test_a_base_may_fall_within_the_table_and_never_above_it() -> None:
    decode = STEPS.decode.model_copy(update={"base_s": (0.010, 0.024, 0.020)})
    times = compiled(STEPS.model_copy(update={"decode": decode}))
    assert times.decode_base_s[12] == pytest.approx(0.022)
    assert times.decode_base_s[40] == 0.020


def test_decode_pads_the_base_to_the_graph_bucket_and_not_above_the_largest() -> None:
    padded, eager = compiled(graphs=16), compiled()
    for batch, bucket in [
        (1, 1),
        (2, 2),
        (3, 4),
        (4, 4),
        (5, 8),
        (8, 8),
        (9, 12),
        (12, 12),
        (13, 16),
        (16, 16),
        (17, 17),
    ]:
        assert padded.decode_base_s[batch] == eager.decode_base_s[bucket]
        assert padded.decode_context_s[batch] == eager.decode_context_s[batch]


def test_prefill_has_a_knee() -> None:
    times = compiled()
    assert times.prefill_s(50, 0.0) == pytest.approx(0.0105)
    assert times.prefill_s(100, 0.0) == pytest.approx(0.011)
    assert times.prefill_s(300, 0.0) == pytest.approx(0.011 + 200e-4)
    assert times.prefill_s(300, 45_000.0) == pytest.approx(0.031 + 45_000e-8)


def test_mixed_counts_decode_rows_as_tokens_and_scales_their_attention() -> None:
    times = compiled(graphs=16)
    expected = times.prefill_s(205, 20_000.0) + 2.0 * compiled().decode_context_s[5] * 3000
    assert times.mixed_s(200, 20_000.0, 5, 3000) == pytest.approx(expected)


def test_floor_bounds_the_context_free_part_of_every_step() -> None:
    times = compiled(STEPS.model_copy(update={"floor_s": 0.02}))
    assert times.decode_base_s[1] == 0.02
    assert times.decode_base_s[8] == 0.024
    assert times.prefill_s(10, 1000.0) == pytest.approx(0.02 + 1e-5)


def test_overhead_is_added_once_to_every_step() -> None:
    plain, slow = compiled(), compiled(STEPS.model_copy(update={"overhead_s": 0.001}))
    assert slow.decode_base_s[3] - plain.decode_base_s[3] == pytest.approx(0.001)
    assert slow.prefill_s(10, 0.0) - plain.prefill_s(10, 0.0) == pytest.approx(0.001)
    assert slow.mixed_s(10, 0.0, 2, 10) - plain.mixed_s(10, 0.0, 2, 10) == pytest.approx(0.001)


@pytest.fixture(scope="module", params=bundled_profiles())
def bundled(request: pytest.FixtureRequest) -> StepTimes:
    profile = ServiceProfile.load(request.param, Path())
    return StepTimes(profile.steps, profile.settings)


def test_a_larger_batch_is_never_faster(bundled: StepTimes) -> None:
    base_s, context_s = bundled.decode_base_s, bundled.decode_context_s
    for batch in range(2, len(base_s)):
        for context in (1, 1000, 8000):
            before = base_s[batch - 1] + context_s[batch - 1] * (batch - 1) * context
            assert base_s[batch] + context_s[batch] * batch * context >= before


def test_tables_agree_with_the_coefficients_at_the_batches_measured() -> None:
    profile = ServiceProfile.load("llama-3.1-8b-h100", Path())
    times, decode = StepTimes(profile.steps, profile.settings), profile.steps.decode
    for batch, base_s, context_s in zip(decode.batches, decode.base_s, decode.context_s, strict=True):
        assert times.decode_base_s[batch] == pytest.approx(base_s + profile.steps.overhead_s)
        assert times.decode_context_s[batch] == context_s


@given(st.integers(1, 16384), st.floats(0, 1e8), st.integers(1, 40), st.integers(1, 10**6))
def test_more_work_takes_longer(tokens: int, attended: float, rows: int, context: int) -> None:
    times = compiled()
    prefill_s = times.prefill_s(tokens, attended)
    assert prefill_s <= times.prefill_s(tokens + 1, attended)
    assert prefill_s <= times.prefill_s(tokens, attended + 1e4)
    assert (
        prefill_s < times.mixed_s(tokens, attended, rows, context) < times.mixed_s(tokens, attended, rows, context + 9)
    )


@given(st.floats(0.5, 3), st.floats(0.5, 3), st.integers(1, 40), st.integers(1, 300), st.sampled_from([0.0, 0.02]))
def test_slowed_times_are_as_many_times_as_long(
    decode: float, prefill: float, batch: int, tokens: int, floor_s: float
) -> None:
    cached = {"per_cached_s": 1e-5, "per_cached_pair_s": 2e-8}
    steps = STEPS.model_copy(
        update={"prefill": STEPS.prefill.model_copy(update=cached), "floor_s": floor_s, "overhead_s": 1e-3}
    )
    times = compiled(steps)
    slowed = times.slowed(decode, prefill)
    assert slowed.decode_base_s[batch] == pytest.approx(decode * times.decode_base_s[batch])
    assert slowed.decode_context_s[batch] == pytest.approx(decode * times.decode_context_s[batch])
    assert slowed.prefill_s(tokens, 9e3) == pytest.approx(prefill * times.prefill_s(tokens, 9e3))
    mixed = (tokens, 9e3, batch, 700)
    assert slowed.mixed_s(*mixed) == pytest.approx(prefill * times.mixed_s(*mixed))
    assert slowed.cached_s([50, 900]) == pytest.approx(prefill * times.cached_s([50, 900]))
    assert compiled(steps).prefill_s(tokens, 9e3) == times.prefill_s(tokens, 9e3)
