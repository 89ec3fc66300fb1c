"""The fits recover coefficients that were planted, also under noise and outliers."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from calibrate.fit import (
    DecodeForm,
    DecodeSamples,
    PrefillSamples,
    decode_form,
    decode_step_s,
    fit_decode,
    fit_non_negative,
    fit_prefill,
    prefill_step_s,
    residual,
)
from simcore.profile_parts import DecodeSteps, PrefillSteps

DECODE = DecodeSteps(batches=(1, 8, 64), base_s=(0.006, 0.0065, 0.009), context_s=(5e-8, 4.5e-8, 4e-8))
PREFILL = PrefillSteps(base_s=0.007, below_knee_s=5e-6, per_token_s=2e-5, knee_tokens=320, per_attended_s=1e-9)


def decode_samples(noise: float = 0.0) -> DecodeSamples:
    batch, context = (grid.ravel() for grid in np.meshgrid([1.0, 8.0, 64.0], [129.0, 513.0, 1025.0, 2049.0, 8193.0]))
    samples = DecodeSamples(batch, context, np.ones_like(batch))
    factors = 1 + noise * np.random.default_rng(1).standard_normal(len(batch))
    return DecodeSamples(batch, context, decode_step_s(DECODE, samples) * factors)


def prefill_samples(truth: PrefillSteps = PREFILL, noise: float = 0.0) -> PrefillSamples:
    sizes = [(1, 2.0**power) for power in range(4, 15)] + [(4, 64.0), (4, 256.0), (4, 1024.0), (16, 64.0), (16, 512.0)]
    batch, isl = np.array(sizes).T
    samples = PrefillSamples(batch * isl, batch * isl**2 / 2, np.ones_like(isl))
    factors = 1 + noise * np.random.default_rng(2).standard_normal(len(isl))
    return PrefillSamples(samples.new_tokens, samples.attended, prefill_step_s(truth, samples) * factors)


def test_exact_decode_samples_give_the_planted_table() -> None:
    found = fit_decode(decode_samples())
    assert found.batches == DECODE.batches
    assert found.base_s == pytest.approx(DECODE.base_s, rel=1e-4)
    assert found.context_s == pytest.approx(DECODE.context_s, rel=1e-4)


def test_noisy_decode_samples_give_nearly_the_planted_table() -> None:
    found = fit_decode(decode_samples(noise=0.01))
    assert found.base_s == pytest.approx(DECODE.base_s, rel=0.02)
    assert found.context_s == pytest.approx(DECODE.context_s, rel=0.2)


def test_bases_fall_as_the_batch_grows_only_where_they_may() -> None:
    samples = decode_samples()
    step_s = np.where(samples.batch == 8, samples.step_s * 0.8, samples.step_s)
    dipped = DecodeSamples(samples.batch, samples.context_tokens, step_s)
    base_s = fit_decode(dipped).base_s
    assert list(base_s) == sorted(base_s)
    planted = [0.8 * base if batch == 8 else base for batch, base in zip(DECODE.batches, DECODE.base_s, strict=True)]
    assert fit_decode(dipped, rising=False).base_s == pytest.approx(planted, rel=1e-4)


def test_a_batch_at_one_context_has_the_slope_of_the_next_smaller_one_with_its_own() -> None:
    samples = decode_samples()
    whole = fit_decode(samples)
    largest = samples.batch == whole.batches[-1]
    one_context = ~largest | (samples.context_tokens == samples.context_tokens[largest].min())
    kept = (column[one_context] for column in (samples.batch, samples.context_tokens, samples.step_s))
    found = fit_decode(DecodeSamples(*kept))
    assert found.batches == whole.batches
    assert found.context_s[-1] == found.context_s[-2] == pytest.approx(whole.context_s[-2], rel=1e-4)
    step_s = samples.step_s[largest & one_context].mean()
    total_context = samples.batch[largest][0] * samples.context_tokens[largest].min()
    assert found.base_s[-1] == pytest.approx(step_s - found.context_s[-1] * total_context, rel=1e-4)


def test_one_context_does_not_make_a_slope() -> None:
    with pytest.raises(ValueError, match="no decode batch was sampled at two contexts"):
        fit_decode(DecodeSamples(np.array([4.0, 4.0]), np.array([9.0, 9.0]), np.array([1.0, 1.1])))


ONE_SLOPE_S = (4e-8, 4e-8, 4e-8)


def once_at_the_longest(slopes_s: tuple[float, ...], noise: float, seed: int) -> DecodeSamples:
    """Bases of DECODE and these slopes: two visits a point, and one of each batch's longest context."""
    truth = DecodeSteps(batches=DECODE.batches, base_s=DECODE.base_s, context_s=slopes_s)
    points = [(batch, context) for batch in DECODE.batches for context in (80.0, 400.0)] * 2
    batch, context = np.array([*points, *((batch, 2000.0) for batch in DECODE.batches)]).T
    exact = decode_step_s(truth, DecodeSamples(batch, context, np.ones_like(batch)))
    factors = 1 + noise * np.random.default_rng(seed).standard_normal(len(batch))
    return DecodeSamples(batch, context, exact * factors)


@pytest.mark.parametrize("seed", range(5))
def test_one_slope_is_told_from_noise(seed: int) -> None:
    samples = once_at_the_longest(ONE_SLOPE_S, 0.05, seed)
    assert decode_form(samples) is not DecodeForm.NOTHING
    found = fit_decode(samples, rising=False, form=DecodeForm.SLOPE)
    assert len(set(found.context_s)) == 1
    worst = max(abs(slope / 4e-8 - 1) for slope in fit_decode(samples, rising=False).context_s)
    assert abs(found.context_s[0] / 4e-8 - 1) < worst


def of_small_batches(bases_s: tuple[float, ...], noise: float, seed: int) -> DecodeSamples:
    """Three visits a point, of one to four requests."""
    truth = DecodeSteps(batches=(1, 2, 3, 4), base_s=bases_s, context_s=(1e-6,) * 4)
    batch, context = (grid.ravel() for grid in np.meshgrid([1.0, 2.0, 3.0, 4.0] * 3, [80.0, 200.0, 530.0]))
    exact = decode_step_s(truth, DecodeSamples(batch, context, np.ones_like(batch)))
    return DecodeSamples(batch, context, exact * (1 + noise * np.random.default_rng(seed).standard_normal(len(batch))))


@pytest.mark.parametrize("seed", range(5))
def test_a_line_is_told_from_noise(seed: int) -> None:
    samples = of_small_batches((0.0500, 0.0502, 0.0504, 0.0506), 0.02, seed)
    assert decode_form(samples) is DecodeForm.LINE
    found = fit_decode(samples, rising=False, form=DecodeForm.LINE)
    assert np.ptp(np.diff(found.base_s)) == pytest.approx(0, abs=1e-6)
    assert len(set(found.context_s)) == 1


def test_bases_off_a_line_are_told_from_one() -> None:
    samples = of_small_batches((0.0500, 0.0560, 0.0562, 0.0564), 0.02, 0)
    assert decode_form(samples) is DecodeForm.SLOPE


@pytest.mark.parametrize("noise", [0.0, 0.005])
def test_slopes_that_differ_are_told_from_one(noise: float) -> None:
    samples = once_at_the_longest((4e-7, 8e-8, 4e-8), noise, seed=0)
    assert decode_form(samples) is DecodeForm.NOTHING


def test_there_is_no_choice_where_one_batch_has_several_contexts() -> None:
    samples = once_at_the_longest(ONE_SLOPE_S, 0.05, seed=0)
    kept = (samples.batch == 8) | (samples.context_tokens == 80)
    columns = (column[kept] for column in (samples.batch, samples.context_tokens, samples.step_s))
    assert decode_form(DecodeSamples(*columns)) is DecodeForm.NOTHING


def test_folds_that_leave_no_slope_are_passed_over() -> None:
    """The one long context of each batch is in the same fold of twenty."""
    batch = np.repeat([4.0, 8.0], 20)
    context = np.tile([64.0] * 19 + [512.0], 2)
    samples = DecodeSamples(batch, context, 0.01 + np.repeat([1e-5, 1e-6], 20) * batch * context)
    assert decode_form(samples) is DecodeForm.NOTHING


@settings(max_examples=5, deadline=None)
@given(
    knee=st.integers(8, 64).map(lambda eighth: 8 * eighth),
    base_s=st.floats(0.004, 0.02),
    below_s=st.floats(0, 1e-5),
    per_token_s=st.floats(2e-5, 1e-4),
)
def test_exact_prefill_samples_give_the_planted_times(
    knee: int, base_s: float, below_s: float, per_token_s: float
) -> None:
    truth = PrefillSteps(
        base_s=base_s, below_knee_s=below_s, per_token_s=per_token_s, knee_tokens=knee, per_attended_s=1e-9
    )
    samples = prefill_samples(truth)
    found = fit_prefill(samples)
    assert residual(prefill_step_s(found, samples), samples.step_s).mape < 1e-3
    assert found.per_token_s == pytest.approx(per_token_s, rel=0.01)
    assert found.per_attended_s == pytest.approx(1e-9, rel=0.05)


def test_the_knee_comes_from_the_data() -> None:
    assert fit_prefill(prefill_samples(noise=0.005)).knee_tokens == pytest.approx(320, rel=0.2)


def test_an_outlier_does_not_bend_the_fit() -> None:
    columns = np.column_stack([np.ones(20), np.arange(20.0)])
    target = columns @ [1.0, 0.5]
    target[19] *= 3
    assert fit_non_negative(columns, target) == pytest.approx([1.0, 0.5], rel=0.01)


def test_coefficients_are_never_negative_and_a_known_part_is_kept() -> None:
    columns = np.column_stack([np.ones(10), np.arange(10.0)])
    assert fit_non_negative(columns, 10.0 - 0.5 * np.arange(10.0))[1] == 0.0
    known = np.full(10, 4.0)
    assert fit_non_negative(columns[:, 1:], 4.0 + 2.0 * columns[:, 1], known) == pytest.approx([2.0])


def test_residual_is_relative() -> None:
    found = residual(np.array([1.1, 2.0, 2.7]), np.array([1.0, 2.0, 3.0]))
    assert found.samples == 3
    assert (found.mape, found.max_abs) == pytest.approx((0.0667, 0.1))
