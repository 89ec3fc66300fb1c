"""The pace of the machine beside a validation, and what becomes of profile and report with it."""

import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import paced
import pytest
import sitting
from experiments import Experiment
from pace import PaceLog, RunPace
from paced import validate_at_pace
from sitting import Given
from support.profiles import calibrated_now
from validation_report import AS_CALIBRATED, PACE, write_report

from calibrate.host import Spell
from simcore.profile import ServiceProfile


@pytest.fixture
def profile() -> ServiceProfile:
    return calibrated_now()


def log_of(file: Path, rows: list[tuple[float, int, float, float, float]]) -> PaceLog:
    """Of what was measured before: at, core, work_s, stolen_s, cores_s."""
    lines = ["at,core,work_s,stolen_s,cores_s", *(",".join(map(str, row)) for row in rows)]
    file.write_text("\n".join(lines) + "\n")
    return PaceLog(file, resume=True)


def rows_of(file: Path) -> list[list[str]]:
    return [line.split(",") for line in file.read_text().splitlines()[1:]]


def measure(file: Path, count: int) -> None:
    """Let it measure so many more."""
    before, deadline = len(rows_of(file)), time.monotonic() + 30
    while len(rows_of(file)) < before + count:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_what_is_measured_is_found_by_time(tmp_path: Path) -> None:
    file = tmp_path / "pace.csv"
    log = PaceLog(file)
    with log.measuring():
        measure(file, 4)
    rows = rows_of(file)
    assert {row[1] for row in rows} == {str(core) for core in os.sched_getaffinity(0)}
    assert all(float(row[4]) > float(row[3]) >= 0 for row in rows)
    first, last = float(rows[0][0]), float(rows[-1][0])
    assert 0 < log.between(first, last).work_s < 1
    with pytest.raises(ValueError, match="no pace was measured"):
        log.between(last + 10, last + 20)

    with PaceLog(file, resume=True).measuring():
        measure(file, 2)
    assert rows_of(file)[: len(rows)] == rows
    with PaceLog(file).measuring():
        measure(file, 2)
    assert float(rows_of(file)[0][0]) > last


def test_pace_and_what_is_stolen_are_told_second_by_second(tmp_path: Path) -> None:
    stolen_s = [0.0, 0.0, 0.1, 0.3, 0.5, 0.5, 0.5]
    work_s = [0.001, 0.001, 0.001, 0.001, 0.002, 0.002, 0.002]
    before = [(99 + 0.25 * row, 0, 0.004, 0.0, 49 + 0.25 * row) for row in range(4)]
    run = [(100 + 0.5 * row, 0, work_s[row], stolen_s[row], 50 + row) for row in range(7)]
    found = log_of(tmp_path / "pace.csv", [*before, *run]).between(100, 103)
    assert found.work_s == pytest.approx(0.01 / 7)
    assert [(spell.at_s, spell.stolen) for spell in found.spells] == [(0.0, 0.05), (1.0, 0.2), (2.0, 0.0)]
    assert [spell.work_s for spell in found.spells] == pytest.approx([0.001, 0.001, 0.002])


def document(e2e_error: float, chance: float | None = None) -> dict[str, Any]:
    names = ("mean_ttft_s", "p99_ttft_s", "mean_tpot_s", "mean_e2e_s", "p99_e2e_s", "request_throughput_rps")
    low, high = (None, None) if chance is None else (e2e_error - chance, e2e_error + chance)
    error = {"value": e2e_error, "low": low, "high": high}
    errors = {name: {"label": name, "error": error} for name in (*names, "cache_hit_rate")}
    retractions = {"label": "retractions", "error": {**error, "value": 0.1}, "real": 10, "simulated": 11}
    group = {"policy": "random", "load": "its own load", "load_value": 0.0, "repeats": [0]}
    group["draws"] = 1 if chance is None else 8
    return {
        "groups": [{**group, "errors": {**errors, "retractions": retractions}}],
        "orders": [],
        "invalid": [],
        "warnings": [],
    }


def test_the_report_says_what_was_found_as_calibrated_beside_what_was_found_at_pace(tmp_path: Path) -> None:
    experiment = Experiment.retraction()
    folder = tmp_path / experiment.name
    folder.mkdir()
    (folder / "validation.json").write_text(json.dumps(document(0.02)))
    write_report(tmp_path, [experiment], script="x.py", emulated=False)
    row = "| mean E2E within 8% | 2.0% | random, its own load | held |"
    page = (tmp_path / "README.md").read_text()
    assert f"{row}\n" in page
    assert "pace" not in page

    (folder / "validation.json").write_text(json.dumps(document(0.02, chance=0.013)))
    (folder / AS_CALIBRATED).write_text(json.dumps(document(0.09)))
    (folder / PACE).write_text(
        json.dumps({"crowding": None, "work_s": {"a": 0.001, "b": 0.002}, "measured_again": ["b"]})
    )
    write_report(tmp_path, [experiment], script="x.py", emulated=False)
    page = (tmp_path / "README.md").read_text()
    assert " 1 of 2 runs were measured a second time, " in page
    assert "simulated 8 times, at the [pace](retraction/pace.json) that the machine had meanwhile, and beside" in page
    assert "neighbours" not in page
    assert "| wanted | worst | where | | with one profile for all runs | |\n|---|---|---|---|---|---|\n" in page
    row = "| mean E2E within 8% | 2.0% ± 1.3 | random, its own load | held |"
    assert f"{row} 9.0%, random, its own load | **not held** |\n" in page


class FakeSitting:
    """Takes the place of one that runs ``simroute validate``: a cell that is missing is there again after it."""

    def __init__(self, out: Path, minutes: float = 0.0) -> None:
        self._minutes = minutes
        self.given = Given(speed=None, out=out, resume=False)
        self.ran: list[list[str]] = []

    def minutes(self) -> float:
        return self._minutes

    def say(self, text: str) -> None:
        """Nobody listens."""

    def validate(self, experiment: Experiment, *_: object, **__: object) -> None:
        folder = self.given.out / experiment.name
        missing = [name for name in ("calm", "disturbed", "late") if not (folder / "cells" / name).exists()]
        for name in missing:
            cell_of(folder, name, valid=name != "late" or bool(self.ran))
        self.ran.append(missing)
        (folder / "validation.json").write_text("{}")


def cell_of(folder: Path, name: str, *, valid: bool) -> None:
    (folder / "cells" / name / "live").mkdir(parents=True)
    (folder / "cells" / name / "live/live.json").write_text(json.dumps({"valid": valid}))


@pytest.mark.parametrize(
    ("one_in", "minutes", "again"),
    [(24, 0.0, ["late"]), (2, 28.0, ["late"]), (1, 0.0, ["late", "disturbed"]), (1, 30.0, [])],
)
def test_the_worst_runs_that_the_host_disturbed_or_that_prove_nothing_are_measured_again_once(
    tmp_path: Path,
    profile: ServiceProfile,
    monkeypatch: pytest.MonkeyPatch,
    one_in: int,
    minutes: float,
    again: list[str],
) -> None:
    def pace_of(_: PaceLog, cell: Path) -> RunPace:
        share = 0.3 if cell.name == "disturbed" else 0.1
        return RunPace(work_s=0.001, spells=(Spell(0.0, 0.0, 0.001), Spell(1.0, share, 0.002)))

    monkeypatch.setattr(paced, "_pace_of", pace_of)
    monkeypatch.setattr(paced, "_AGAIN", one_in)
    file = tmp_path / "profile.json"
    file.write_text(profile.to_json())
    fake, experiment = FakeSitting(tmp_path, minutes), Experiment.retraction()
    fake.validate(experiment)
    validate_at_pace(fake, experiment, [], str(file), log_of(tmp_path / "pace.csv", []))
    # The last time nothing is missing: each is simulated with a profile of its own.
    assert fake.ran == [["calm", "disturbed", "late"], *([sorted(again)] if again else []), []]
    found = json.loads((tmp_path / experiment.name / PACE).read_text())
    assert found["measured_again"] == again
    assert found["stolen"] == pytest.approx({"calm": 0.05, "disturbed": 0.15, "late": 0.05})
    profiles = list((tmp_path / f"profiles-{experiment.name}").iterdir())
    assert sorted(one.stem for one in profiles) == sorted(found["stolen"])
    assert profile.residuals.decode is not None
    for one in profiles:
        # The mean size of a normal error is 0.8 of its standard deviation.
        noise_cv = ServiceProfile.load(str(one), Path()).steps.noise_cv
        assert profile.residuals.decode.mape / noise_cv == pytest.approx(0.798, rel=1e-3)


def test_the_pace_is_measured_beside_live_runs_and_not_beside_calibrations(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A calibration measures it itself, and what both need of the machine would be in its samples."""
    open_blocks: list[str] = []

    @contextmanager
    def measuring() -> Iterator[None]:
        open_blocks.append("pace")
        yield
        open_blocks.pop()

    beside: dict[str, list[str]] = {}

    def simroute(_: sitting.Sitting, command: str, *__: str, **___: bool) -> None:
        beside[command] = [*open_blocks]

    monkeypatch.setattr(sitting.Sitting, "simroute", simroute)
    monkeypatch.setattr(sitting, "write_report", lambda *_, **__: None)
    real = sitting.Sitting(Given(speed=None, out=tmp_path, resume=False), measuring)
    real.validate(Experiment.retraction(), ["http://127.0.0.1:1"], "a.json")
    real.calibrate("http://127.0.0.1:1", "a", "1s")
    assert beside == {"validate": ["pace"], "calibrate": []}
