"""What a visit with prompts among decoding requests says of a prompt's cost."""

from collections.abc import Sequence
from itertools import accumulate

import pytest

from calibrate.client import Answer
from calibrate.neighbours import Meanwhile
from calibrate.plan import RidePoint
from calibrate.readings import Rider, ride_sample
from calibrate.samples import RideSample

STEP_S, PREFILL_S, ARRIVAL_S = 0.05, 0.06, 0.004
STEPS = 32
POINT = RidePoint(2, 64, 256, 200)


def decoded(gaps_s: Sequence[float]) -> Answer:
    return Answer(0.0, 0.0, 0.0, tuple(accumulate(gaps_s, initial=1.0)), tuple(range(1, len(gaps_s) + 2)), {})


def rider(gaps_s: Sequence[float], sent_in: int, came_in: int, tokens: int = 220) -> Rider:
    """Sent and answered in the middle of those gaps."""
    sent_at, came_at = (1.0 + sum(gaps_s[:index]) + gaps_s[index] / 2 for index in (sent_in, came_in))
    return Rider(tokens, Answer(sent_at, 0.0, 0.0, (came_at,), (1,), {}))


def among(gaps_s: Sequence[float], riders: list[Rider]) -> RideSample | None:
    return ride_sample(POINT, [decoded(gaps_s)] * 2, riders, Meanwhile(0.1, 0.02))


def test_the_cost_is_of_all_steps_while_a_prompt_is_under_way_and_a_mean_over_prompts() -> None:
    gaps_s = [STEP_S] * STEPS
    for arrived in (8, 14):
        gaps_s[arrived] += ARRIVAL_S
        gaps_s[arrived + 1] += PREFILL_S
    gaps_s[15] += 0.02  # the second costs more
    sample = among(gaps_s, [rider(gaps_s, 8, 9, 200), rider(gaps_s, 14, 15, 240)])
    assert sample is not None
    assert sample.extra_s == pytest.approx(ARRIVAL_S + PREFILL_S + 0.01)
    assert sample.decode_step_s == pytest.approx(STEP_S)
    assert sample.new_tokens == 220


def test_a_step_with_two_prompts_counts_once() -> None:
    gaps_s = [STEP_S] * STEPS
    gaps_s[9] += PREFILL_S
    gaps_s[10] += PREFILL_S
    sample = among(gaps_s, [rider(gaps_s, 8, 9), rider(gaps_s, 9, 10)])
    assert sample is not None
    assert sample.extra_s == pytest.approx(PREFILL_S)


def test_a_prompt_before_or_after_the_others_is_passed_over() -> None:
    gaps_s = [STEP_S] * STEPS
    gaps_s[9] += PREFILL_S
    early = Rider(220, Answer(0.5, 0.0, 0.0, (1.01,), (1,), {}))
    late = Rider(220, Answer(1.0 + sum(gaps_s), 0.0, 0.0, (9.0,), (1,), {}))
    sample = among(gaps_s, [early, rider(gaps_s, 8, 9, 200), late])
    assert sample is not None
    assert (sample.new_tokens, sample.extra_s) == (200, pytest.approx(PREFILL_S))
    assert among(gaps_s, [early, late]) is None


def test_prompts_under_way_all_the_time_leave_nothing_to_compare_with() -> None:
    gaps_s = [STEP_S] * STEPS
    assert among(gaps_s, [rider(gaps_s, 2, STEPS - 2)]) is None
