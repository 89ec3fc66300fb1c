"""Of an answer: its limit, and what a policy is told to expect of its length."""

from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from .columns import NONE, IntColumn
from .section import Positive, Section

__all__ = [
    "ExactExpectation",
    "ExpectedOutputSpec",
    "MeanExpectation",
    "NoExpectation",
    "NoisyExpectation",
    "expected_outputs",
]


class NoExpectation(Section):
    """Nothing is expected: policies see none."""

    kind: Literal["none"] = "none"


class MeanExpectation(Section):
    """Every request is expected to be as long as the workload's mean answer."""

    kind: Literal["mean"] = "mean"


class ExactExpectation(Section):
    """An oracle: policies see the true length, which no real router knows. A bound on what a predictor could give."""

    kind: Literal["exact"] = "exact"


class NoisyExpectation(Section):
    """A predictor: the true length times a lognormal error of mean 1 and coefficient of variation ``cv``."""

    kind: Literal["noisy"] = "noisy"
    cv: Positive


ExpectedOutputSpec = Annotated[
    NoExpectation | MeanExpectation | ExactExpectation | NoisyExpectation,
    Field(discriminator="kind"),
]


def expected_outputs(
    spec: ExpectedOutputSpec, output_tokens: IntColumn, limit_tokens: int | None, rng: np.random.Generator
) -> IntColumn:
    """What policies may see of each answer's length: tokens >= 1, or NONE.

    ``limit_tokens`` is the one sampling limit of all requests, where they have one: every router sees it, so no
    prediction is above it.
    """
    match spec:
        case NoExpectation():
            return np.full_like(output_tokens, NONE)
        case MeanExpectation():
            return np.full_like(output_tokens, max(1, round(float(output_tokens.mean()))))
        case ExactExpectation():
            return output_tokens.copy()
        case NoisyExpectation():
            variance = np.log1p(spec.cv**2)
            error = rng.lognormal(-variance / 2, np.sqrt(variance), len(output_tokens))
            return np.clip(np.rint(output_tokens * error), 1, limit_tokens).astype(np.int64)
