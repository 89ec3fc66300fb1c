from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from simcore.workload import Workload, prompt_segment
from simcore.workload.prefixes import PrefixSpec, draw_prefixes

Build = Callable[..., Workload]

FIXED = {"kind": "fixed", "tokens": 2048}


def groups(choice: dict[str, Any], n: int = 12_000, count: int = 8) -> list[int]:
    spec = PrefixSpec.model_validate({"groups": count, "system_prompt": FIXED, "choice": choice})
    group, _ = draw_prefixes(spec, np.random.default_rng(1), n, base_dir=Path())
    return [int(g) for g in group]


def test_shuffled_groups_are_equally_frequent_and_in_no_order() -> None:
    drawn = groups({"kind": "shuffled"}, n=1_024, count=64)
    assert set(Counter(drawn).values()) == {16}
    assert drawn[:64] != sorted(drawn[:64])


def test_round_robin_takes_turns() -> None:
    assert groups({"kind": "round_robin"}, n=5, count=3) == [0, 1, 2, 0, 1]


def test_random_groups_are_equally_likely_but_not_equally_frequent() -> None:
    counts = Counter(groups({"kind": "random"}))
    assert len(counts) == 8
    assert len(set(counts.values())) > 1
    assert counts[0] == pytest.approx(1_500, rel=0.1)


def test_zipf_groups_fall_off_with_their_rank() -> None:
    counts = Counter(groups({"kind": "zipf", "exponent": 2}))
    assert counts[0] / counts[1] == pytest.approx(4, rel=0.1)
    assert counts[0] / counts[3] == pytest.approx(16, rel=0.2)


def test_each_prompt_is_its_groups_prefix_and_its_own_question(build: Build) -> None:
    workload = build(
        arrivals={"kind": "poisson", "rate_rps": 5},
        requests=40,
        lengths={"prompt": {"kind": "uniform", "max_tokens": 128}, "output": {"kind": "fixed", "tokens": 256}},
        prefixes={"groups": 4, "system_prompt": {"kind": "uniform", "max_tokens": 500}},
    )
    segments = workload.segments
    assert segments is not None
    prefix_lengths: dict[int, int] = {}
    for request in range(40):
        runs = slice(segments.offsets[request], segments.offsets[request + 1])
        (prefix, own), (prefix_tokens, own_tokens) = segments.ids[runs].tolist(), segments.tokens[runs].tolist()
        assert -4 <= prefix <= -1
        assert own == prompt_segment(request)
        assert prefix_lengths.setdefault(prefix, prefix_tokens) == prefix_tokens
        assert prefix_tokens + own_tokens == workload.prompt_tokens[request]
    assert len(prefix_lengths) == 4


def test_prefixes_leave_questions_answers_and_arrivals_as_they_were(build: Build) -> None:
    section: dict[str, Any] = {
        "arrivals": {"kind": "poisson", "rate_rps": 5},
        "requests": 50,
        "lengths": {"table": "azure-conv"},
    }
    plain, shared = build(**section), build(**section, prefixes={"groups": 3, "system_prompt": FIXED})
    np.testing.assert_array_equal(shared.prompt_tokens, plain.prompt_tokens + 2048)
    np.testing.assert_array_equal(shared.output_tokens, plain.output_tokens)
    np.testing.assert_array_equal(shared.arrival_s, plain.arrival_s)
