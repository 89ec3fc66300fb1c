"""What a router can learn of answers' lengths."""

import pytest

from policies.predictors import RunningMean


def test_before_any_answer_it_expects_what_it_was_given() -> None:
    assert RunningMean(256).expected(100, 0) == 256
    assert RunningMean(0.2).expected(100, 0) == 1, "never less than one token"


def test_a_class_has_its_own_mean_and_others_get_that_of_all() -> None:
    predictor = RunningMean(256)
    for tokens in (10, 20, 30):
        predictor.saw(100, 0, tokens)
    predictor.saw(3000, 0, 500)
    assert predictor.expected(127, 0) == 20, "64 to 127 tokens of prompt are one class"
    assert predictor.expected(3500, 0) == 500
    assert predictor.expected(100, 1) == predictor.expected(128, 0) == 140, "another priority, or length, is new"


def test_old_answers_fade() -> None:
    predictor = RunningMean(256, memory=0.02)
    for _ in range(500):
        predictor.saw(100, 0, 10)
    for _ in range(400):
        predictor.saw(100, 0, 40)
    assert predictor.expected(100, 0) == pytest.approx(40, abs=1)
    assert predictor.tokens == pytest.approx(40, abs=1)
