"""Samples beside which a virtual machine's host had time for others: what that costs is found and taken off."""

import itertools
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from calibrate.fit_samples import Fitted, fit_all
from calibrate.samples import DecodeSample, PrefillSample, RideSample, Sample
from calibrate.split import Split, split_samples
from calibrate.stolen import where_stolen
from simcore.profile import ServiceProfile
from simcore.profile_measurement import Steal

COST = 2.5


def samples(stolen: list[float], *, noise: float = 0.01) -> list[Sample]:
    """Of a server whose decode steps take ``1 + COST * share`` times as long; ``stolen``: the shares, in turns."""
    rng, shares = np.random.default_rng(2), itertools.cycle(stolen)
    found: list[Sample] = []

    def beside(share: float, step_s: float) -> float:
        return step_s * (1 + COST * share) * (1 + noise * rng.standard_normal())

    for _ in range(3):
        for batch, context in itertools.product((1, 4, 16), (64.0, 512.0, 2048.0)):
            share = next(shares)
            step_s = beside(share, 0.01 + 0.001 * batch + 1e-6 * batch * context)
            found.append(DecodeSample(batch, context, 47, step_s, step_s, 0.0, f"d{batch} {context}", share))
        for new in (1, 32, 128, 512, 1024, 2048):
            share = next(shares)
            step_s = beside(share, 0.012 + 1e-4 * new)
            ingress_s = 0.004 + 1e-6 * new
            found.append(PrefillSample(new, 0, step_s, step_s + ingress_s, ingress_s, 0.0, 0.0, f"p{new}", share))
        for batch in (1, 4):
            share = next(shares)
            gap_s = beside(share, 0.01 + 0.001 * batch)
            extra_s = beside(share, 0.012 + 0.0256 + 0.003)
            found.append(RideSample(batch, 64.0, 256, extra_s, gap_s, 0.0, f"r{batch}", share))
    return found


def fitted(stolen: list[float]) -> Fitted:
    return fit_all(split_samples(samples(stolen)), mixed_chunk=False)


UNEVEN = [0.0, 0.01, 0.08, 0.0, 0.03, 0.0, 0.05]


def test_the_lengthening_is_found_and_the_fit_is_of_what_is_stolen_on_average() -> None:
    found = fitted(UNEVEN)
    assert found.steal is not None
    split = split_samples(samples(UNEVEN))
    mean = np.mean([one.stolen for one in (*split.decode, *split.prefill)])
    assert found.steal.mean == pytest.approx(mean, abs=1e-4)
    assert found.steal.cost == pytest.approx(COST, rel=0.1)
    longer = 1 + COST * mean
    assert found.steps.decode.base_s == pytest.approx(
        [longer * (0.01 + 0.001 * batch) for batch in (1, 4, 16)], rel=0.03
    )
    assert found.steps.prefill.base_s - found.prefill_scheduling_s == pytest.approx(longer * 0.012, rel=0.05)
    assert found.prefill_scheduling_s == pytest.approx(longer * 0.003, rel=0.3)
    # What was stolen is no error of the fit, on samples that it has seen or not.
    for scored in (found.residuals, found.held_back):
        assert scored.decode is not None
        assert scored.prefill is not None
        assert scored.decode.mape < 0.02
        assert scored.prefill.mape < 0.02


def test_one_slow_visit_does_not_decide_what_it_costs() -> None:
    """Hardly anything is stolen beside decode steps, and most where one took longer for another reason."""
    found = [
        replace(one, stolen=0.0, step_s=one.step_s / (1 + COST * one.stolen)) if isinstance(one, DecodeSample) else one
        for one in samples(UNEVEN)
    ]
    slow = found[0]
    assert isinstance(slow, DecodeSample)
    found[0] = replace(slow, stolen=0.01, step_s=1.08 * slow.step_s)
    steal = fit_all(split_samples(found), mixed_chunk=False).steal
    assert steal is not None
    assert steal.cost == pytest.approx(COST, rel=0.25)


@pytest.mark.parametrize("share", [0.0, 0.04])
def test_nothing_is_made_of_what_is_the_same_beside_all(share: float) -> None:
    found, before = fitted([share]), fitted([0.0])
    assert found.steal == (None if share == 0.0 else Steal(mean=share, cost=0.0))
    longer = 1 + COST * share
    assert found.steps.decode.base_s == pytest.approx(
        [longer * base_s for base_s in before.steps.decode.base_s], rel=1e-4
    )


def test_a_step_takes_longer_with_more_and_as_long_as_in_the_profile_with_the_mean() -> None:
    steal = Steal(mean=0.04, cost=2.5)
    assert steal.factor(0.04) == 1.0
    assert steal.factor(0.0) == pytest.approx(1 / 1.1)
    assert steal.factor(0.2) == pytest.approx(1.5 / 1.1)


def test_a_profile_where_more_is_stolen_has_as_much_longer_steps_from_the_start() -> None:
    profile = ServiceProfile.load("sglang-cpu-tiny", Path())
    assert profile.measurement is not None
    assert where_stolen(profile, 0.3) == profile
    steal = Steal(mean=0.0, cost=3.0)
    measurement = profile.measurement.model_copy(update={"steal": steal})
    known = profile.model_copy(update={"measurement": measurement})
    found = where_stolen(known, 0.1)
    (slowdown,) = found.slowdowns
    assert (slowdown.at_s, slowdown.decode, slowdown.prefill) == pytest.approx((0.0, 1.3, 1.3))
    assert found.model_copy(update={"slowdowns": ()}) == known


def test_samples_beside_far_more_than_the_calmest_of_their_point_are_left_out() -> None:
    good = samples([0.02])
    worse = [replace(one, stolen=0.13) for one in good if isinstance(one, DecodeSample)][:3]
    alone = replace(worse[0], point="only")
    split = split_samples([*good, *worse, alone])
    assert split.left_out == 3
    assert isinstance(split, Split)
    assert alone in split.decode


def test_what_may_be_chance_is_not_taken_for_a_lengthening() -> None:
    """Steps that scatter by a tenth, and that steal does nothing to."""
    steady = samples([0.0], noise=0.1)
    beside = [replace(one, stolen=0.01 * (number % 3)) for number, one in enumerate(steady)]
    found = fit_all(split_samples(beside), mixed_chunk=False).steal
    assert found is not None
    assert found.cost == 0.0
