"""Samples with planted coefficients give them back; outliers, disturbances and mixed steps included."""

import itertools
from dataclasses import replace

import numpy as np
import pytest

from calibrate.fit_samples import fit_all
from calibrate.samples import DecodeSample, PrefillSample, ReportSample, RideSample, Sample
from calibrate.split import Split, split_samples
from calibrate.verdict import judge
from simcore.errors import UserError

BASE = {1: 0.010, 4: 0.014, 16: 0.024}


def prefill_s(new: float, cached: float = 0.0) -> float:
    return 0.012 + 1e-4 * new + 5e-8 * new * (cached + new / 2) + 1e-5 * cached + 5e-8 * cached**2 / 2


def samples(noise: float = 0.01, *, mixed: bool = False, scheduling_s: float = 0.003) -> list[Sample]:
    rng = np.random.default_rng(1)
    found: list[Sample] = []
    for _ in range(4):
        for batch, context in itertools.product(BASE, (64.0, 512.0, 2048.0)):
            step_s = (BASE[batch] + 1.5e-6 * batch * context) * (1 + noise * rng.standard_normal())
            found.append(DecodeSample(batch, context, 47, step_s, step_s, 0.0, f"d{batch} {context}"))
        for new, cached in itertools.product((1, 32, 128, 512, 1024, 2048), (0, 512, 2048)):
            step_s = prefill_s(new, cached) * (1 + noise * rng.standard_normal())
            ingress = 0.004 + 1e-6 * (new + cached)
            found.append(
                PrefillSample(new, cached, step_s, step_s + ingress + 0.002, ingress, 0.002, 0.0, f"p{new} {cached}")
            )
        for batch, new in itertools.product((4, 15), (64, 512)):
            gap = float(np.interp(batch, list(BASE), list(BASE.values()))) + 1.5e-6 * batch * 100
            extra = prefill_s(new) + scheduling_s
            if mixed:
                extra = 0.012 + 1e-4 * (new + batch) + 5e-8 * new * new / 2 + 2.5 * 1.5e-6 * batch * 100 - gap
            found.append(RideSample(batch, 100.0, new, extra, gap, 0.0, f"r{batch} {new}"))
    return found


def test_the_planted_coefficients_come_back() -> None:
    fitted = fit_all(split_samples(samples()), mixed_chunk=False)
    decode, prefill = fitted.steps.decode, fitted.steps.prefill
    assert decode.base_s == pytest.approx(list(BASE.values()), rel=0.05)
    assert decode.context_s == pytest.approx([1.5e-6] * 3, rel=0.1)
    assert prefill.per_cached_pair_s == pytest.approx(5e-8, rel=0.1)
    assert prefill.base_s - fitted.prefill_scheduling_s == pytest.approx(0.012, rel=0.05)
    assert fitted.prefill_scheduling_s == pytest.approx(0.003, rel=0.2)
    # Scheduling is in the step now, so it is taken off the ingress of 4 ms.
    assert fitted.requests.ingress_s == pytest.approx(0.001, abs=3e-4)
    assert fitted.requests.ingress_per_prompt_token_s == pytest.approx(1e-6, rel=0.05)
    assert fitted.requests.ingress_spacing_s == 0.0, "which no sample told"
    held = fitted.held_back
    assert held.decode is not None
    assert held.decode.samples == 36
    assert held.decode.mape < 0.03
    assert fitted.confidence.decode is not None
    assert 0.0 < fitted.confidence.decode < 0.03


def test_the_spacing_of_requests_is_that_of_most_samples() -> None:
    told = itertools.cycle([None, 0.001, 0.0012, 0.0011, 0.02])
    mixed = [replace(one, ingress_spacing_s=next(told)) if isinstance(one, DecodeSample) else one for one in samples()]
    fitted = fit_all(split_samples(mixed), mixed_chunk=False)
    assert fitted.requests.ingress_spacing_s == pytest.approx(0.00115, abs=6e-5)
    assert judge(split_samples(samples()), fitted, 1.0, {}, busy=False).trust == "good"


@pytest.mark.parametrize(
    ("told", "last_token_s"), [([0.001, None, 0.0012, 0.02, 0.0011], 0.00115), ([-0.001], 0.0), ([None], 0.0)]
)
def test_what_the_last_token_takes_is_that_of_most_samples_and_at_least_nothing(
    told: list[float | None], last_token_s: float
) -> None:
    each = itertools.cycle(told)
    mixed = [replace(one, last_token_s=next(each)) if isinstance(one, DecodeSample) else one for one in samples()]
    fitted = fit_all(split_samples(mixed), mixed_chunk=False)
    assert fitted.requests.last_token_s == pytest.approx(last_token_s, abs=6e-5)


def test_a_mixed_server_gives_the_cost_of_riding_along() -> None:
    fitted = fit_all(split_samples(samples(mixed=True)), mixed_chunk=True)
    assert fitted.steps.mixed.decode_context_ratio == pytest.approx(2.5, rel=0.25)
    assert fitted.prefill_scheduling_s == 0.0


def test_what_a_prompt_costs_others_counts_beside_busy_neighbours_too() -> None:
    """Servers that share a machine are calibrated as they are used: the others never rest."""
    beside = [replace(sample, others_cores=0.8) for sample in samples() if not isinstance(sample, ReportSample)]
    fitted = fit_all(split_samples(beside), mixed_chunk=False)
    assert fitted.prefill_scheduling_s == pytest.approx(0.003, rel=0.2)


def test_long_prompts_say_less_of_what_a_prompt_costs_others_than_short_ones() -> None:
    """Of 200 ms a hundredth is most of it."""
    uneven = [
        replace(sample, extra_s=sample.extra_s + (0.006 if sample.new_tokens > 64 else 0.0))
        if isinstance(sample, RideSample)
        else sample
        for sample in samples()
    ]
    assert fit_all(split_samples(uneven), mixed_chunk=False).prefill_scheduling_s == pytest.approx(0.0038, rel=0.15)


def test_rides_beside_more_work_than_the_prefills_tell_nothing() -> None:
    disturbed = [
        replace(sample, others_cores=0.8, extra_s=sample.extra_s + 0.03) if isinstance(sample, RideSample) else sample
        for sample in samples()
    ]
    assert fit_all(split_samples(disturbed), mixed_chunk=False).prefill_scheduling_s == 0.0


def test_disturbed_samples_are_left_out_where_there_are_others() -> None:
    good = samples()
    bad = [DecodeSample(4, 64.0, 47, 0.5, 0.5, 1.0, "d4 64.0")] * 3
    split = split_samples([*good, *bad])
    assert split.left_out == 3
    assert len(split.samples) == len(good)
    alone = split_samples([*good, DecodeSample(8, 64.0, 47, 0.5, 0.5, 1.0, "only")])
    assert any(sample.point == "only" for sample in alone.decode)


def test_a_bad_fit_is_not_to_be_trusted() -> None:
    split = split_samples(samples(noise=0.25))
    verdict = judge(split, fit_all(split, mixed_chunk=False), 1.0, {}, busy=False)
    assert verdict.trust == "do not trust"
    assert verdict.sentence().startswith("do not trust, because ")
    split = split_samples(samples())
    apart = judge(split, fit_all(split, mixed_chunk=False), 1.2, {}, busy=False)
    assert (apart.trust, apart.reasons) == (
        "usable",
        ("the client saw decode steps 1.20 times as long as the server counted",),
    )


def test_too_few_samples_are_refused() -> None:
    with pytest.raises(
        UserError, match=r"too few samples for a fit: 0 of decode steps, 0 of prefill steps; .*--budget"
    ):
        fit_all(Split((), (), (), 0), mixed_chunk=False)
