from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from scipy import stats

from simcore.workload.columns import IntColumn
from simcore.workload.lengths import (
    EmpiricalLength,
    FixedLength,
    Lengths,
    LengthSpec,
    LengthsSpec,
    LognormalLength,
    UniformLength,
    draw_lengths,
)


def draw(spec: LengthSpec, n: int = 200_000, seed: int = 1) -> IntColumn:
    return draw_lengths(spec, np.random.default_rng(seed), n, side="prompt", base_dir=Path())


def draw_pairs(spec: LengthsSpec, n: int = 100_000, output_limit: int | None = None) -> tuple[IntColumn, IntColumn]:
    prompt, output = (np.random.default_rng(seed) for seed in (1, 2))
    return Lengths(spec, prompt=prompt, output=output, output_limit=output_limit, base_dir=Path()).draw(n)


def test_fixed_is_fixed() -> None:
    assert set(draw(FixedLength(tokens=7), n=5)) == {7}


@pytest.mark.parametrize(("ratio", "shortest"), [(0.0, 1), (0.5, 51), (0.49, 50), (1.0, 103)])
def test_uniform_reaches_both_of_sglangs_bounds(ratio: float, shortest: int) -> None:
    drawn = draw(UniformLength(max_tokens=103, range_ratio=ratio))
    assert (drawn.min(), drawn.max()) == (shortest, 103)
    assert drawn.mean() == pytest.approx((shortest + 103) / 2, rel=0.01)


@given(max_tokens=st.integers(1, 10_000), ratio=st.floats(0, 1), seed=st.integers(0, 2**32))
def test_uniform_never_leaves_sglangs_range(max_tokens: int, ratio: float, seed: int) -> None:
    drawn = draw(UniformLength(max_tokens=max_tokens, range_ratio=ratio), n=50, seed=seed)
    assert drawn.min() >= max(1, int(max_tokens * ratio))
    assert drawn.max() <= max_tokens


def test_lognormal_has_its_moments() -> None:
    drawn = draw(LognormalLength(mean_tokens=500, cv=0.8))
    assert drawn.mean() == pytest.approx(500, rel=0.01)
    assert drawn.std() / drawn.mean() == pytest.approx(0.8, rel=0.02)


def test_lognormal_is_cut_at_its_bound_and_never_empty() -> None:
    drawn = draw(LognormalLength(mean_tokens=5, cv=3, max_tokens=40))
    assert (drawn.min(), drawn.max()) == (1, 40)


def test_empirical_takes_the_column_that_fits_its_place_unless_told() -> None:
    assert draw(EmpiricalLength(table="azure-conv")).mean() == pytest.approx(1154.7, rel=0.02)
    assert draw(EmpiricalLength(table="azure-conv", column="output")).mean() == pytest.approx(211.1, rel=0.02)
    spec = LengthsSpec(prompt=FixedLength(tokens=1), output=EmpiricalLength(table="azure-conv"))
    assert draw_pairs(spec)[1].mean() == pytest.approx(211.1, rel=0.02)
    assert draw(EmpiricalLength(table="azure-conv", max_tokens=100)).max() == 100


def test_a_table_gives_pairs_with_the_traces_rank_correlation() -> None:
    prompt, output = draw_pairs(LengthsSpec(table="mooncake-synthetic"))
    assert stats.spearmanr(prompt, output).statistic == pytest.approx(-0.5166, abs=0.01)
    assert prompt.mean() == pytest.approx(15_325, rel=0.02)
    assert output.mean() == pytest.approx(149.1, rel=0.02)


def test_independent_sides_are_independent() -> None:
    table = EmpiricalLength(table="mooncake-synthetic")
    prompt, output = draw_pairs(LengthsSpec(prompt=table, output=table))
    assert stats.spearmanr(prompt, output).statistic == pytest.approx(0, abs=0.01)


def test_a_tables_pairs_can_be_bounded() -> None:
    prompt, output = draw_pairs(LengthsSpec(table="azure-conv", max_prompt_tokens=2_000, max_output_tokens=300))
    assert (prompt.max(), output.max()) == (2_000, 300)


def test_no_answer_is_longer_than_the_sampling_limit() -> None:
    fixed = FixedLength(tokens=100)
    assert draw_pairs(LengthsSpec(prompt=fixed, output=fixed), n=3, output_limit=64)[1].tolist() == [64] * 3


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"prompt": {"kind": "fixed", "tokens": 1}}, "both 'prompt' and 'output'"),
        ({}, "both 'prompt' and 'output'"),
        ({"table": "azure-conv", "output": {"kind": "fixed", "tokens": 1}}, "leave out 'prompt' and 'output'"),
        (
            {key: {"kind": "fixed", "tokens": 1} for key in ("prompt", "output")} | {"max_prompt_tokens": 5},
            "go with 'table'",
        ),
        ({"prompt": {"kind": "fixed", "tokens": 0}}, "greater than or equal to 1"),
        ({"prompt": {"kind": "uniform", "max_tokens": 9, "range_ratio": 1.5}}, "less than or equal to 1"),
        ({"prompt": {"kind": "lognormal", "mean_tokens": 9, "cv": float("nan")}}, "finite number"),
    ],
)
def test_nonsense_is_refused(section: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        LengthsSpec.model_validate(section)
