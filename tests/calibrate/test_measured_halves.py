"""Values chosen by one half of the measured requests are scored on the other, and what came out is published."""

import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

from calibrate.measured_halves import Choice, held_back, main, splits

PUBLISHED = Path(__file__).parents[2] / "results/measured-rtx4090/README.md"


def rows(count: int) -> pd.DataFrame:
    """Measured requests: one a second, each with 11 tokens in 10 s after a first second."""
    at = np.arange(count, dtype=float)
    times = {"queued_ts": at, "first_token_ts": at + 1, "last_token_ts": at + 11}
    return pd.DataFrame(times | {"output_toks": np.full(count, 11)})


def records(measured: pd.DataFrame, slower: np.ndarray) -> pd.DataFrame:
    """The same ones simulated, each by a share of its own too slow."""
    arrived = measured["queued_ts"]
    times = {"first_token_at": arrived + 1 + slower, "finished_at": arrived + 11 * (1 + slower)}
    return pd.DataFrame({"arrived_at": arrived, **times, "output_tokens": measured["output_toks"]})


def test_halves_are_what_is_left_of_each_other() -> None:
    both_ways = {frozenset((chosen_by, scored_on)) for chosen_by, scored_on, _ in splits(10)}
    assert both_ways == {frozenset(("first half", "second half")), frozenset(("even ones", "odd ones"))}
    masks = {name: mask for name, _, mask in splits(10)}
    assert masks["first half"].tolist() == [True] * 5 + [False] * 5
    for name, opposite in (("first half", "second half"), ("even ones", "odd ones")):
        assert (masks[name] ^ masks[opposite]).all()


@pytest.mark.parametrize("half", ["first half", "second half", "even ones", "odd ones"])
def test_the_half_that_is_scored_has_no_say(half: str) -> None:
    measured = rows(10)
    mask = next(mask for name, _, mask in splits(10) if name == half)
    there = Choice(0.1, 0.0, records(measured, 0.2 * ~mask))
    elsewhere = Choice(0.2, 0.0, records(measured, 0.1 * mask))
    found = next(one for one in held_back(measured, [elsewhere, there]) if one.chosen_by == half)
    # The other choice would be right where it is scored, and is less wrong over both.
    assert found.choice is there
    assert [one.error for one in found.chosen] == pytest.approx([0.0, 0.0, 0.0])
    assert [one.error for one in found.scored] == pytest.approx([0.2, 0.2, 0.2])


@pytest.mark.skipif("SIMROUTE_DATA" not in os.environ, reason="needs the published data (SIMROUTE_DATA)")
def test_what_is_published_is_what_comes_out() -> None:
    done = CliRunner().invoke(main, ["--data", os.environ["SIMROUTE_DATA"]])
    assert done.exit_code == 0, done.output
    assert done.output in PUBLISHED.read_text()


def test_no_data_is_one_message(tmp_path: Path) -> None:
    done = CliRunner().invoke(main, ["--data", str(tmp_path)])
    assert done.exit_code == 2
    assert "requests.jsonl: cannot be read" in done.output
