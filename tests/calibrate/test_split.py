"""Samples that are held back: each once, and never all of a point."""

from collections import Counter

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from calibrate.samples import DecodeSample, PrefillSample
from calibrate.split import Split, fifths

visits = st.lists(st.integers(1, 12), min_size=1, max_size=20)


def measured(decodes: list[int], prefills: list[int]) -> Split:
    """So many visits of each point, their step times all different."""
    decode = [
        DecodeSample(1, 64.0, 47, float(100 * point + visit), 1.0, 0.0, f"d{point}")
        for visit in range(max(decodes))
        for point, most in enumerate(decodes)
        if visit < most
    ]
    prefill = [
        PrefillSample(64, 0, float(100 * point + visit), 1.0, 0.0, 0.0, 0.0, f"p{point}")
        for visit in range(max(prefills))
        for point, most in enumerate(prefills)
        if visit < most
    ]
    return Split(tuple(decode), tuple(prefill), (), left_out=0)


@given(visits, visits, st.integers(0, 100))
def test_every_sample_is_held_back_once_but_for_a_points_only_one(
    decodes: list[int], prefills: list[int], seed: int
) -> None:
    split = measured(decodes, prefills)
    held = [rest for _, rest in fifths(split, np.random.default_rng(seed))]
    assert len(held) == 5
    for kind, counts in (("decode", decodes), ("prefill", prefills)):
        samples = getattr(split, kind)
        several = [sample for sample in samples if counts[int(sample.point[1:])] > 1]
        assert Counter(sample for rest in held for sample in getattr(rest, kind)) == Counter(several)


@given(visits, visits, st.integers(0, 100))
def test_what_is_not_held_back_has_every_point(decodes: list[int], prefills: list[int], seed: int) -> None:
    split = measured(decodes, prefills)
    for training, rest in fifths(split, np.random.default_rng(seed)):
        for kind in ("decode", "prefill"):
            kept, held = getattr(training, kind), getattr(rest, kind)
            assert Counter([*kept, *held]) == Counter(getattr(split, kind))
            assert {sample.point for sample in kept} == {sample.point for sample in getattr(split, kind)}


def test_the_fifths_of_points_measured_twice_are_about_equal() -> None:
    split = measured([2] * 20, [3] * 20)
    held = [rest for _, rest in fifths(split, np.random.default_rng(0))]
    assert [len(rest.decode) for rest in held] == [8] * 5
    assert [len(rest.prefill) for rest in held] == [12] * 5
