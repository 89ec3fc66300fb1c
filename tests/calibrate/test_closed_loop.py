"""The comparison of a profile with what a closed loop measured."""

import json
from dataclasses import asdict
from pathlib import Path

import pytest
from click.testing import CliRunner
from support.fake_sglang import FakeSglang
from support.fast_forward import run_fast_forward
from support.profiles import calibrated_beside

from calibrate import closed_loop, neighbours
from calibrate.closed_loop import Load, Outcome, closed_loop_scenario, in_turns, main, simulated
from calibrate.pace import WORK
from calibrate.samples import read_samples
from simcore.profile_measurement import Host, Pace, Steal

PROFILE = Path(__file__).parents[2] / "scenarios/profiles/sglang-cpu-tiny.json"


def test_what_was_measured_is_simulated_again(tmp_path: Path) -> None:
    profile = tmp_path / "profile.json"
    profile.write_text(calibrated_beside(None).to_json())
    found = simulated(closed_loop_scenario(profile, 2, 6))
    measured = {"tpot_s": found.tpot_s / 1.1, "ttft_s": found.ttft_s, "throughput_tps": found.throughput_tps}
    table, out = tmp_path / "table.json", tmp_path / "again.json"
    table.write_text(json.dumps([{"concurrency": 2, "requests": 6, "measured": measured}]))
    words = ["--measured", str(table), "--profile", str(profile), "--out", str(out)]
    done = CliRunner().invoke(main, words, catch_exceptions=False)
    assert done.exit_code == 0
    (row,) = json.loads(out.read_text())
    assert row["error"] == pytest.approx({"tpot_s": 0.1, "ttft_s": 0.0, "throughput_tps": 0.0})
    assert not row["within_bars"]


def test_a_loop_is_simulated_on_a_machine_as_it_was_meanwhile(tmp_path: Path) -> None:
    host = Host(steal=Steal(mean=0.02, cost=2.0), pace=Pace(work_s=0.001, work=WORK, decode_cost=0.5, prefill_cost=0.5))
    profile = calibrated_beside(host)
    known, table, out = tmp_path / "known.json", tmp_path / "table.json", tmp_path / "again.json"
    known.write_text(profile.to_json())
    measured = {"tpot_s": 0.01, "ttft_s": 0.1, "throughput_tps": 100.0, "stolen": 0.12, "work_s": 0.00121}
    table.write_text(json.dumps([{"concurrency": 2, "requests": 6, "measured": measured}]))
    words = ["--measured", str(table), "--profile", str(known), "--out", str(out)]
    assert CliRunner().invoke(main, words, catch_exceptions=False).exit_code == 0
    (row,) = json.loads(out.read_text())
    known.write_text(profile.model_copy(update={"slowdowns": (host.slowdown(0.0, 0.12, 0.00121),)}).to_json())
    assert row["simulated"] == asdict(simulated(closed_loop_scenario(known, 2, 6)))
    as_calibrated = simulated(closed_loop_scenario(PROFILE, 2, 6))
    assert row["simulated"]["tpot_s"] == pytest.approx(as_calibrated.tpot_s * 1.1 * 1.24 / 1.04, rel=1e-3)


def test_calibration_and_closed_loop_take_turns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found: list[int] = []

    async def drive(url: str, profile: Path, loads: list[Load]) -> list[Outcome]:
        found.append(len(read_samples(profile.parent / "samples.jsonl")[1]))
        return [Outcome(0.01 * len(found), 0.1, 100.0 / level, 0.0, 0.001 * len(found)) for level, _ in loads]

    async def run() -> list[Outcome]:
        async with FakeSglang().serving() as url:
            return await in_turns(url, tmp_path, 3, 5.0, [(1, 4), (2, 8)])

    monkeypatch.setattr(closed_loop, "_drive_all", drive)
    monkeypatch.setattr(neighbours, "_server_tree", lambda _: [])
    outcomes = run_fast_forward(run())
    assert [outcome.tpot_s for outcome in outcomes] == pytest.approx([0.02, 0.02])
    assert [outcome.throughput_tps for outcome in outcomes] == pytest.approx([100.0, 50.0])
    assert [outcome.work_s for outcome in outcomes] == pytest.approx([0.002, 0.002])
    assert 0 < found[0] < found[1] < found[2]


@pytest.mark.parametrize("words", [[], ["--url", "http://elsewhere:1", "--measured", str(PROFILE)]])
def test_it_wants_a_server_or_a_table(words: list[str]) -> None:
    done = CliRunner().invoke(main, [*words, "--profile", str(PROFILE)])
    assert done.exit_code == 2
    assert "one of --url and --measured is needed" in done.output


@pytest.mark.parametrize(
    "words",
    [
        ["--url", "http://elsewhere:1"],
        ["--url", "http://elsewhere:1", "--profile", str(PROFILE), "--in-turns", "x"],
        ["--measured", str(PROFILE), "--in-turns", "x"],
    ],
)
def test_it_wants_a_profile_or_turns_with_a_server(words: list[str]) -> None:
    done = CliRunner().invoke(main, words)
    assert done.exit_code == 2
    assert "--profile is needed, or --in-turns with --url" in done.output
