"""What a slower machine, and time that its host has for others, cost a step: found in samples, and taken off."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
from support.profiles import calibrated_beside

from calibrate.fit_samples import Fitted, fit_all
from calibrate.host import Spell, beside, find_host
from calibrate.pace import WORK
from calibrate.samples import DecodeSample, PrefillSample, RideSample, Sample
from calibrate.split import Split, split_samples
from simcore.errors import UserError
from simcore.profile import ServiceProfile
from simcore.profile_measurement import Host, Pace, Steal

COST = 2.5
WORK_S = 0.001


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
    assert found.host is not None
    assert found.host.pace is None
    steal = found.host.steal
    split = split_samples(samples(UNEVEN))
    mean = np.mean([one.stolen for one in (*split.decode, *split.prefill)])
    assert steal.mean == pytest.approx(mean, abs=1e-4)
    assert steal.cost == pytest.approx(COST, rel=0.1)
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
    host = fit_all(split_samples(found), mixed_chunk=False).host
    assert host is not None
    assert host.steal.cost == pytest.approx(COST, rel=0.25)


@pytest.mark.parametrize("share", [0.0, 0.04])
def test_what_is_the_same_beside_all_is_left_in_the_steps(share: float) -> None:
    found, before = fitted([share]), fitted([0.0])
    assert found.host == (None if share == 0.0 else Host(steal=Steal(mean=share, cost=1.0), pace=None))
    longer = 1 + COST * share
    assert found.steps.decode.base_s == pytest.approx(
        [longer * base_s for base_s in before.steps.decode.base_s], rel=1e-4
    )


def test_a_step_takes_longer_with_more_and_as_long_as_in_the_profile_with_the_mean() -> None:
    steal = Steal(mean=0.04, cost=2.5)
    assert steal.factor(0.04) == 1.0
    assert steal.factor(0.0) == pytest.approx(1 / 1.1)
    assert steal.factor(0.2) == pytest.approx(1.5 / 1.1)


def test_a_step_is_as_long_as_in_the_profile_at_its_pace_and_rises_with_a_power_of_it() -> None:
    pace = Pace(work_s=0.002, work=WORK, decode_cost=0.5, prefill_cost=0.25)
    assert pace.factors(0.002) == (1.0, 1.0)
    assert pace.factors(0.0025) == pytest.approx((1.25**0.5, 1.25**0.25))
    host = Host(steal=Steal(mean=0.0, cost=2.0), pace=pace)
    assert host.factors(0.1, 0.0025) == pytest.approx((1.2 * 1.25**0.5, 1.2 * 1.25**0.25))
    assert host.factors(0.1, None) == pytest.approx((1.2, 1.2))
    assert Host(steal=host.steal, pace=None).factors(0.1, 0.0025) == pytest.approx((1.2, 1.2))


def test_a_profile_on_a_machine_as_it_was_then_has_as_much_longer_steps_from_the_start() -> None:
    unseen = calibrated_beside(None)
    assert beside(unseen, [Spell(0.0, 0.3, 0.003)]) == unseen
    host = Host(steal=Steal(mean=0.0, cost=3.0), pace=Pace(work_s=0.002, work=WORK, decode_cost=1.0, prefill_cost=0.0))
    known = calibrated_beside(host)
    found = beside(known, [Spell(0.0, 0.1, 0.003)])
    (slowdown,) = found.slowdowns
    assert (slowdown.at_s, slowdown.decode, slowdown.prefill) == pytest.approx((0.0, 1.95, 1.3))
    assert found.model_copy(update={"slowdowns": ()}) == known


def test_a_pace_that_other_work_told_is_refused() -> None:
    pace = Pace(work_s=0.001, work=WORK - 1, decode_cost=0.0, prefill_cost=0.0)
    host = Host(steal=Steal(mean=0.0, cost=1.0), pace=pace)
    known = calibrated_beside(host)
    with pytest.raises(UserError, match="other work told the machine's pace beside it; calibrate anew"):
        beside(known, [Spell(0.0, 0.1, 0.003)])


def test_a_profile_follows_pace_and_what_is_stolen_second_by_second() -> None:
    spells = (Spell(0.0, 0.02, 0.0011), Spell(1.0, 0.12, 0.0012))
    unseen = calibrated_beside(None)
    assert beside(unseen, spells) == unseen
    host = Host(steal=Steal(mean=0.02, cost=0.9), pace=Pace(work_s=0.001, work=WORK, decode_cost=1.0, prefill_cost=1.0))
    found = beside(calibrated_beside(host), spells)
    longer = 1.2 * host.steal.factor(0.12)
    assert [(one.at_s, one.decode, one.prefill) for one in found.slowdowns] == [
        (0.0, pytest.approx(1.1), pytest.approx(1.1)),
        (1.0, pytest.approx(longer), pytest.approx(longer)),
    ]
    assert ServiceProfile.model_validate_json(found.to_json()) == found


def at_paces(found: list[Sample], decode: float, prefill: float) -> list[Sample]:
    """The samples at paces that change from one to the next; steps take as long as those powers of the timed work."""
    rng = np.random.default_rng(4)
    paced: list[Sample] = []
    for one in found:
        assert isinstance(one, DecodeSample | PrefillSample | RideSample)
        work_s = WORK_S * float(rng.uniform(0.8, 1.3))
        of_decode, of_prefill = (work_s / WORK_S) ** decode, (work_s / WORK_S) ** prefill
        match one:
            case RideSample():
                gap_s, extra_s = of_decode * one.decode_step_s, of_prefill * one.extra_s
                paced.append(replace(one, work_s=work_s, decode_step_s=gap_s, extra_s=extra_s))
            case DecodeSample():
                paced.append(replace(one, work_s=work_s, step_s=of_decode * one.step_s))
            case PrefillSample():
                paced.append(replace(one, work_s=work_s, step_s=of_prefill * one.step_s))
    return paced


@pytest.mark.parametrize(("decode", "prefill"), [(0.3, 0.3), (1.0, 1.0), (0.7, 0.1)])
def test_what_the_pace_costs_is_found_beside_what_is_stolen(decode: float, prefill: float) -> None:
    found = fit_all(split_samples(at_paces(samples(UNEVEN), decode, prefill)), mixed_chunk=False)
    assert found.host is not None
    assert found.host.pace is not None
    assert found.host.pace.decode_cost == pytest.approx(decode, abs=0.13)
    assert found.host.pace.prefill_cost == pytest.approx(prefill, abs=0.13)
    assert found.host.steal.cost == pytest.approx(COST, rel=0.2)
    # The profile is of the mean pace, and of the mean share stolen.
    longer = (found.host.pace.work_s / WORK_S) ** decode * (1 + COST * found.host.steal.mean)
    assert found.steps.decode.base_s == pytest.approx(
        [longer * (0.01 + 0.001 * batch) for batch in (1, 4, 16)], rel=0.04
    )
    for scored in (found.residuals, found.held_back):
        assert scored.decode is not None
        assert scored.prefill is not None
        assert scored.decode.mape < 0.025
        assert scored.prefill.mape < 0.025


def test_a_pace_that_steps_do_not_follow_costs_nothing() -> None:
    found = fit_all(split_samples(at_paces(samples(UNEVEN), 0.0, 0.0)), mixed_chunk=False).host
    assert found is not None
    assert found.pace is not None
    assert found.pace.work_s == pytest.approx(1.05 * WORK_S, rel=0.05)
    assert (found.pace.decode_cost, found.pace.prefill_cost) == pytest.approx((0.0, 0.0), abs=0.05)
    assert found.steal.cost == pytest.approx(COST, rel=0.1)


def test_samples_of_before_the_pace_was_measured_count_as_at_the_mean_pace() -> None:
    old, new = samples([0.0]), at_paces(samples([0.0]), 1.0, 1.0)
    found = fit_all(split_samples([*old, *new]), mixed_chunk=False).host
    assert found is not None
    assert found.pace is not None
    assert (found.pace.decode_cost, found.pace.prefill_cost) == pytest.approx((1.0, 1.0), abs=0.1)


def test_samples_beside_far_more_than_the_calmest_of_their_point_are_left_out() -> None:
    good = samples([0.02])
    worse = [replace(one, stolen=0.13) for one in good if isinstance(one, DecodeSample)][:3]
    alone = replace(worse[0], point="only")
    split = split_samples([*good, *worse, alone])
    assert split.left_out == 3
    assert isinstance(split, Split)
    assert alone in split.decode


def test_a_point_keeps_its_calmest_sample_where_each_was_disturbed_by_something_else() -> None:
    good = samples([0.02])
    (one, *_) = (sample for sample in good if isinstance(sample, DecodeSample))
    beside_others = replace(one, point="both", others_cores=0.5, stolen=0.0)
    beside_the_host = replace(one, point="both", others_cores=0.0, stolen=0.3)
    split = split_samples([*good, beside_others, beside_the_host])
    assert [sample for sample in split.decode if sample.point == "both"] == [beside_others]
    assert split.left_out == 1


def test_samples_that_say_nothing_of_a_cost_leave_it_as_expected() -> None:
    """Steps that scatter by a tenth, beside next to nothing stolen, at a steady pace."""
    steady = samples([0.0], noise=0.1)
    uneven = [replace(one, stolen=0.002 * (number % 3), work_s=WORK_S) for number, one in enumerate(steady)]
    found = fit_all(split_samples(uneven), mixed_chunk=False).host
    assert found is not None
    assert found.pace is not None
    assert found.steal.cost == pytest.approx(1.0, abs=0.1)
    assert (found.pace.decode_cost, found.pace.prefill_cost) == pytest.approx((0.5, 0.5), abs=0.01)


def test_the_pace_is_expected_to_cost_a_decode_step_what_the_server_computes_of_it() -> None:
    steady = samples([0.0], noise=0.1)
    for cores, expected in ((0.3, 0.3), (1.4, 1.0)):
        seen = [replace(one, work_s=WORK_S, server_cores=cores) for one in steady]
        found = fit_all(split_samples(seen), mixed_chunk=False).host
        assert found is not None
        assert found.pace is not None
        assert (found.pace.decode_cost, found.pace.prefill_cost) == pytest.approx((expected, 0.5), abs=0.01)


def test_samples_that_tell_what_the_pace_costs_are_believed_whatever_the_server_computes() -> None:
    """As of a server that waits for a GPU on a core."""
    seen = [replace(one, server_cores=1.0) for one in at_paces(samples([0.0]), 0.0, 0.0)]
    found = fit_all(split_samples(seen), mixed_chunk=False).host
    assert found is not None
    assert found.pace is not None
    assert found.pace.decode_cost == pytest.approx(0.0, abs=0.13)


def test_samples_that_say_that_there_is_no_cost_are_believed() -> None:
    steady = samples([0.0])
    uneven = [replace(one, stolen=UNEVEN[number % len(UNEVEN)]) for number, one in enumerate(steady)]
    found = fit_all(split_samples(uneven), mixed_chunk=False).host
    assert found is not None
    assert found.steal.cost == pytest.approx(0.0, abs=0.15)


@pytest.mark.parametrize("seed", range(8))
def test_steps_of_an_emulated_server_have_costs_too(seed: int) -> None:
    """Nothing that the machine does is in some of them, and all of it in others; there is no noise to weigh them by."""
    rng = np.random.default_rng(seed)
    one = next(sample for sample in samples([0.0]) if isinstance(sample, DecodeSample))
    follow = rng.random(int(rng.integers(4, 60))) < rng.random()
    decode = []
    for follows in follow.tolist():
        stolen, longer = float(rng.uniform(0, 0.1)), float(rng.uniform(0.8, 1.4))
        step_s = 0.01 * ((1 + stolen) * longer**0.5 if follows else 1.0)
        decode.append(replace(one, step_s=step_s, stolen=stolen, work_s=WORK_S * longer))
    prefill = tuple(sample for sample in samples([0.0]) if isinstance(sample, PrefillSample))
    split = Split(tuple(decode), prefill, (), left_out=0)
    found = find_host(split, lambda _: (np.full(len(decode), 0.01), np.array([sample.step_s for sample in prefill])))
    assert found is not None
    assert found.pace is not None
    assert 0 <= found.pace.decode_cost < 1
    assert 0 <= found.steal.cost < 2
