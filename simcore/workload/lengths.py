"""How long prompts and answers are: the distributions, and drawing from them."""

from pathlib import Path
from typing import Annotated, Literal, Self

import numpy as np
from pydantic import Field, model_validator
from scipy.special import ndtr

from .columns import IntColumn
from .length_table import LengthTable
from .section import Count, Positive, Ratio, Section

__all__ = [
    "EmpiricalLength",
    "FixedLength",
    "LengthSpec",
    "Lengths",
    "LengthsSpec",
    "LognormalLength",
    "UniformLength",
    "draw_lengths",
]

Side = Literal["prompt", "output"]


class FixedLength(Section):
    """Always ``tokens``."""

    kind: Literal["fixed"] = "fixed"
    tokens: Count


class UniformLength(Section):
    """A whole number in [max(1, floor(max_tokens * range_ratio)), max_tokens], as sglang.bench_serving's "random"."""

    kind: Literal["uniform"] = "uniform"
    max_tokens: Count
    range_ratio: Ratio = 0.0


class LognormalLength(Section):
    """Lognormal of mean ``mean_tokens`` and coefficient of variation ``cv``; longer than ``max_tokens`` becomes it."""

    kind: Literal["lognormal"] = "lognormal"
    mean_tokens: Annotated[float, Field(ge=1, allow_inf_nan=False)]
    cv: Positive
    max_tokens: Count | None = None


class EmpiricalLength(Section):
    """The lengths of a trace, from a table: a bundled one's name, or the path of a .json file of the same form.

    ``column`` is the one that fits the place unless it is given: "output" for answers, "prompt" elsewhere.
    """

    kind: Literal["empirical"] = "empirical"
    table: str
    column: Side | None = None
    max_tokens: Count | None = None


LengthSpec = Annotated[
    FixedLength | UniformLength | LognormalLength | EmpiricalLength,
    Field(discriminator="kind"),
]


class LengthsSpec(Section):
    """Either ``prompt`` and ``output``, drawn independently, or one ``table`` from which both are drawn together.

    ``prompt`` is what a prompt has of its own: a shared prefix or a conversation's earlier turns come on top of it.
    From a table, the pair has the trace's rank correlation between prompt and output.
    """

    prompt: LengthSpec | None = None
    output: LengthSpec | None = None
    table: str | None = None
    max_prompt_tokens: Count | None = None
    max_output_tokens: Count | None = None

    @model_validator(mode="after")
    def _one_form(self) -> Self:
        if self.table is None and (self.prompt is None or self.output is None):
            raise ValueError("give both 'prompt' and 'output', or one 'table' for the two")
        if self.table is not None and (self.prompt is not None or self.output is not None):
            raise ValueError("'table' gives prompt and output together; leave out 'prompt' and 'output'")
        if self.table is None and (self.max_prompt_tokens or self.max_output_tokens):
            raise ValueError(
                "'max_prompt_tokens' and 'max_output_tokens' go with 'table'; elsewhere it is 'max_tokens'"
            )
        return self


def draw_lengths(spec: LengthSpec, rng: np.random.Generator, n: int, *, side: Side, base_dir: Path) -> IntColumn:
    """``n`` lengths in tokens, each at least 1. Raises UserError where a table cannot be read."""
    match spec:
        case FixedLength():
            return np.full(n, spec.tokens, dtype=np.int64)
        case UniformLength():
            shortest = max(1, int(spec.max_tokens * spec.range_ratio))
            return rng.integers(shortest, spec.max_tokens, size=n, endpoint=True)
        case LognormalLength():
            variance = np.log1p(spec.cv**2)
            drawn = rng.lognormal(np.log(spec.mean_tokens) - variance / 2, np.sqrt(variance), n)
            return _whole(drawn, spec.max_tokens)
        case EmpiricalLength():
            table = LengthTable.load(spec.table, base_dir)
            return _whole(table.quantile(spec.column or side, rng.random(n)), spec.max_tokens)


class Lengths:
    """Draws (prompt, output) pairs block after block, each side from its own stream."""

    def __init__(
        self,
        spec: LengthsSpec,
        *,
        prompt: np.random.Generator,
        output: np.random.Generator,
        output_limit: int | None,
        base_dir: Path,
    ):
        self._spec = spec
        self._streams = prompt, output
        self._output_limit = output_limit
        self._base_dir = base_dir
        self._table = None if spec.table is None else LengthTable.load(spec.table, base_dir)

    def draw(self, n: int) -> tuple[IntColumn, IntColumn]:
        """The next ``n`` prompts' and answers' lengths in tokens; no answer is longer than the sampling limit."""
        prompt, output = self._draw_independent(n) if self._table is None else self._draw_pairs(self._table, n)
        return prompt, output if self._output_limit is None else np.minimum(output, self._output_limit)

    def _draw_independent(self, n: int) -> tuple[IntColumn, IntColumn]:
        spec, (for_prompt, for_output) = self._spec, self._streams
        assert spec.prompt is not None
        assert spec.output is not None
        return (
            draw_lengths(spec.prompt, for_prompt, n, side="prompt", base_dir=self._base_dir),
            draw_lengths(spec.output, for_output, n, side="output", base_dir=self._base_dir),
        )

    def _draw_pairs(self, table: LengthTable, n: int) -> tuple[IntColumn, IntColumn]:
        """Through a Gaussian copula: two normals with the table's correlation, each carried to its own quantiles."""
        of_prompt, own = (rng.standard_normal(n) for rng in self._streams)
        rho = table.copula_correlation
        of_output = rho * of_prompt + np.sqrt(1 - rho**2) * own
        return (
            _whole(table.quantile("prompt", ndtr(of_prompt)), self._spec.max_prompt_tokens),
            _whole(table.quantile("output", ndtr(of_output)), self._spec.max_output_tokens),
        )


def _whole(drawn: np.ndarray[tuple[int, ...], np.dtype[np.float64]], max_tokens: int | None) -> IntColumn:
    return np.clip(np.rint(drawn), 1, max_tokens).astype(np.int64)
