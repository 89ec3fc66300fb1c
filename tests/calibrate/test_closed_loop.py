"""The comparison of a profile with what a closed loop measured."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from calibrate.closed_loop import closed_loop_scenario, main, simulated

PROFILE = Path(__file__).parents[2] / "scenarios/profiles/sglang-cpu-tiny.json"


def test_what_was_measured_is_simulated_again(tmp_path: Path) -> None:
    found = simulated(closed_loop_scenario(PROFILE, 2, 6))
    measured = {"tpot_s": found.tpot_s / 1.1, "ttft_s": found.ttft_s, "throughput_tps": found.throughput_tps}
    table, out = tmp_path / "table.json", tmp_path / "again.json"
    table.write_text(json.dumps([{"concurrency": 2, "requests": 6, "measured": measured}]))
    words = ["--measured", str(table), "--profile", str(PROFILE), "--out", str(out)]
    done = CliRunner().invoke(main, words, catch_exceptions=False)
    assert done.exit_code == 0
    (row,) = json.loads(out.read_text())
    assert row["error"] == pytest.approx({"tpot_s": 0.1, "ttft_s": 0.0, "throughput_tps": 0.0})
    assert not row["within_bars"]


@pytest.mark.parametrize("words", [[], ["--url", "http://elsewhere:1", "--measured", str(PROFILE)]])
def test_it_wants_a_server_or_a_table(words: list[str]) -> None:
    done = CliRunner().invoke(main, [*words, "--profile", str(PROFILE)])
    assert done.exit_code == 2
    assert "one of --url and --measured is needed" in done.output
