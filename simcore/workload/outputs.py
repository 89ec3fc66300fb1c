"""Of an answer: its limit, and what a policy is told to expect of its length."""

from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from .columns import NONE, IntColumn
from .section import Count, Positive, Section

__all__ = [
    "ExactExpectation",
    "ExpectedOutputSpec",
    "LimitExpectation",
    "MeanExpectation",
    "NoExpectation",
    "NoisyExpectation",
    "RunningMeanExpectation",
    "expected_outputs",
]


class NoExpectation(Section):
    """Nothing is expected: policies see none."""

    kind: Literal["none"] = "none"


class MeanExpectation(Section):
    """Every request is expected to be as long as the workload's mean answer."""

    kind: Literal["mean"] = "mean"


class LimitExpectation(Section):
    """Every request is expected to use up its sampling limit, which is all that a request says of itself."""

    kind: Literal["max_tokens"] = "max_tokens"


class RunningMeanExpectation(Section):
    """A predictor that a router can have: the mean of the answers so far, by priority and length of the prompt."""

    kind: Literal["running_mean"] = "running_mean"
    start_tokens: Count = 256
    """What is expected before any answer has been seen."""


class ExactExpectation(Section):
    """An oracle: policies see the true length, which no real router knows. A bound on what a predictor could give."""

    kind: Literal["exact"] = "exact"


class NoisyExpectation(Section):
    """An oracle with an error, as a predictor would have: the true length times a lognormal error of mean 1 and
    coefficient of variation ``cv``."""

    kind: Literal["noisy"] = "noisy"
    cv: Positive


ExpectedOutputSpec = Annotated[
    NoExpectation | MeanExpectation | LimitExpectation | RunningMeanExpectation | ExactExpectation | NoisyExpectation,
    Field(discriminator="kind"),
]


def expected_outputs(
    spec: ExpectedOutputSpec, output_tokens: IntColumn, limit_tokens: int | None, rng: np.random.Generator
) -> IntColumn:
    """What policies may see of each answer's length: tokens >= 1, or NONE where it is not known before the run.

    ``limit_tokens`` is the one sampling limit of all requests, where they have one: every router sees it, so no
    prediction is above it.
    """
    match spec:
        case NoExpectation() | RunningMeanExpectation():
            return np.full_like(output_tokens, NONE)
        case MeanExpectation():
            return np.full_like(output_tokens, max(1, round(float(output_tokens.mean()))))
        case LimitExpectation():
            assert limit_tokens is not None, "WorkloadSpec requires it"
            return np.full_like(output_tokens, limit_tokens)
        case ExactExpectation():
            return output_tokens.copy()
        case NoisyExpectation():
            variance = np.log1p(spec.cv**2)
            error = rng.lognormal(-variance / 2, np.sqrt(variance), len(output_tokens))
            return np.clip(np.rint(output_tokens * error), 1, limit_tokens).astype(np.int64)
