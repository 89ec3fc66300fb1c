"""The pace of the machine beside a validation, and what becomes of profile and report with it."""

import json
import time
from pathlib import Path
from typing import Any

import pace
import paced
import pytest
from experiments import Experiment
from pace import Pace, PaceMeter, at_pace, beside_stolen
from paced import Calibrated, validate_at_pace
from sitting import Given
from validation_report import AS_CALIBRATED, PACE, write_report

from simcore.profile import ServiceProfile
from simcore.profile_measurement import Steal
from simcore.profile_parts import Slowdown
from simcore.step_time import StepTimes

SLEEP_S = 0.04


@pytest.fixture
def profile() -> ServiceProfile:
    return ServiceProfile.load("sglang-cpu-tiny", Path())


def asleep(profile: ServiceProfile) -> ServiceProfile:
    """The profile of the same server, that sleeps in each step."""
    decode, prefill = profile.steps.decode, profile.steps.prefill
    slower = tuple(base_s + SLEEP_S for base_s in decode.base_s)
    steps = profile.steps.model_copy(
        update={
            "decode": decode.model_copy(update={"base_s": slower}),
            "prefill": prefill.model_copy(update={"base_s": prefill.base_s + SLEEP_S}),
        }
    )
    return profile.model_copy(update={"steps": steps})


@pytest.mark.parametrize("factor", [0.8, 1.0, 1.3])
def test_all_but_the_sleep_takes_as_much_longer(profile: ServiceProfile, factor: float) -> None:
    sleepy = asleep(profile)
    awake, paced = (StepTimes(one.steps, profile.settings) for one in (profile, at_pace(sleepy, factor, SLEEP_S)))
    for batch in (1, 3, 16):
        awake_s = awake.decode_base_s[batch] + 900 * awake.decode_context_s[batch]
        assert paced.decode_base_s[batch] + 900 * paced.decode_context_s[batch] == pytest.approx(
            SLEEP_S + factor * awake_s
        )
    for tokens in (8, 700):
        assert paced.prefill_s(tokens, 1e5) == pytest.approx(SLEEP_S + factor * awake.prefill_s(tokens, 1e5))
    assert paced.cached_s([500]) == pytest.approx(factor * awake.cached_s([500]))
    requests = at_pace(sleepy, factor, SLEEP_S).requests
    assert requests.ingress_s == pytest.approx(factor * profile.requests.ingress_s)
    assert requests.egress_s == pytest.approx(factor * profile.requests.egress_s)


def test_what_is_stolen_makes_steps_as_much_longer_as_the_calibration_found(profile: ServiceProfile) -> None:
    pace = Pace(work_s=0.001, stolen=((0.0, 0.02), (1.0, 0.12)))
    assert beside_stolen(profile, pace) == profile
    measurement = profile.measurement
    assert measurement is not None
    steal = Steal(mean=0.02, cost=0.9)
    known = profile.model_copy(update={"measurement": measurement.model_copy(update={"steal": steal})})
    found = beside_stolen(known, pace)
    assert found.slowdowns == (
        Slowdown(at_s=0.0, decode=1.0, prefill=1.0),
        Slowdown(at_s=1.0, decode=steal.factor(0.12), prefill=steal.factor(0.12)),
    )
    assert ServiceProfile.model_validate_json(found.to_json()) == found


def rows_of(file: Path) -> list[list[str]]:
    return [line.split(",") for line in file.read_text().splitlines()[1:]]


def measure(meter: PaceMeter, file: Path, name: str, count: int) -> None:
    """Let it measure so many more in a block of that name."""
    before = len(rows_of(file))
    with meter.beside(name):
        deadline = time.monotonic() + 30
        while len(rows_of(file)) < before + count:
            assert time.monotonic() < deadline
            time.sleep(0.01)


def test_what_is_measured_is_found_by_name_and_by_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pace, "_INTERVAL_S", 0.005)
    file = tmp_path / "pace.csv"
    with PaceMeter(file) as meter:
        measure(meter, file, "one", 4)
        measure(meter, file, "", 4)
        measure(meter, file, "two", 4)
    rows = rows_of(file)
    assert {row[-1] for row in rows} >= {"one", "", "two"}
    assert {row[1] for row in rows} == {str(core) for core in pace.os.sched_getaffinity(0)}
    assert 0 < meter.work_s_beside("one") < 1
    first, last = float(rows[0][0]), float(rows[-1][0])
    assert meter.between(first, last).work_s > 0
    with pytest.raises(ValueError, match="no pace was measured"):
        meter.between(last + 10, last + 20)
    with pytest.raises(ValueError, match="no pace was measured: three"):
        meter.work_s_beside("three")

    with PaceMeter(file, resume=True) as further:
        measure(further, file, "three", 2)
    assert further.work_s_beside("three") > 0
    assert further.work_s_beside("one") == meter.work_s_beside("one")
    with PaceMeter(file) as anew:
        measure(anew, file, "three", 2)
    assert not [row for row in rows_of(file) if row[-1] == "one"]


def test_a_core_with_a_neighbour_counts_as_much_as_one_without(tmp_path: Path) -> None:
    file = tmp_path / "pace.csv"
    rows = [(at, at % 2, 0.003 if at % 2 else 0.001, at, 100 + 20 * at, "x") for at in range(8)]
    rows += [(8, 0, 0.5, 8, 260, "x"), (100, 0, 9.0, 8, 460, "y")]
    header = "at,core,work_s,stolen_s,cores_s,beside"
    file.write_text("\n".join([header, *(",".join(map(str, row)) for row in rows)]) + "\n")
    meter = PaceMeter(file, resume=True)
    assert meter.work_s_beside("x") == pytest.approx(0.002)
    assert meter.between(0, 1).work_s == pytest.approx(0.002)
    assert meter.between(99, 101).work_s == pytest.approx(9.0)


def test_what_is_stolen_is_told_second_by_second(tmp_path: Path) -> None:
    file = tmp_path / "pace.csv"
    stolen_s = [0.0, 0.0, 0.1, 0.3, 0.5, 0.5, 0.5]
    rows = [(100 + 0.5 * row, 0, 0.001, at, 50 + row, "x") for row, at in enumerate(stolen_s)]
    header = "at,core,work_s,stolen_s,cores_s,beside"
    file.write_text("\n".join([header, *(",".join(map(str, row)) for row in rows)]) + "\n")
    found = PaceMeter(file, resume=True).between(100, 103)
    assert found.stolen == ((0.0, 0.05), (1.0, 0.2), (2.0, 0.0))


def document(e2e_error: float) -> dict[str, Any]:
    names = ("mean_ttft_s", "p99_ttft_s", "mean_tpot_s", "mean_e2e_s", "p99_e2e_s", "request_throughput_rps")
    errors = {name: {"label": name, "error": {"value": e2e_error}} for name in (*names, "cache_hit_rate")}
    retractions = {"label": "retractions", "error": {"value": 0.1}, "real": 10, "simulated": 11}
    group = {"policy": "random", "load": "its own load", "load_value": 0.0, "repeats": [0]}
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

    (folder / AS_CALIBRATED).write_text(json.dumps(document(0.09)))
    (folder / PACE).write_text(json.dumps({"factors": {"a": 1.1, "b": 0.9}, "measured_again": ["b"]}))
    write_report(tmp_path, [experiment], script="x.py", emulated=False)
    page = (tmp_path / "README.md").read_text()
    assert " 1 of 2 runs were measured a second time, " in page
    assert "simulated at the [pace](retraction/pace.json) that the machine had meanwhile" in page
    assert "| wanted | worst | where | | with one profile for all runs | |\n|---|---|---|---|---|---|\n" in page
    assert f"{row} 9.0%, random, its own load | **not held** |\n" in page


class Sitting:
    """Takes the place of one that runs ``simroute validate``: a cell that is missing is there again after it."""

    def __init__(self, out: Path) -> None:
        self.given = Given(speed=None, out=out, resume=False)
        self.ran: list[list[str]] = []

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


def test_runs_that_the_host_disturbed_or_that_prove_nothing_are_measured_again_once(
    tmp_path: Path, profile: ServiceProfile, monkeypatch: pytest.MonkeyPatch
) -> None:
    def beside_run(_: PaceMeter, cell: Path) -> Pace:
        return Pace(work_s=0.001, stolen=((0.0, 0.0), (1.0, 0.3 if cell.name == "disturbed" else 0.1)))

    monkeypatch.setattr(paced, "_beside_run", beside_run)
    file, meter = tmp_path / "profile.json", PaceMeter(tmp_path / "pace.csv", resume=True)
    file.write_text(profile.to_json())
    (tmp_path / "pace.csv").write_text("at,core,work_s,stolen_s,cores_s,beside\n1,0,0.001,0,1,alone\n")
    sitting, experiment = Sitting(tmp_path), Experiment.retraction()
    sitting.validate(experiment)
    validate_at_pace(sitting, experiment, [], Calibrated(str(file), "alone", 0.01), meter)
    # The third time nothing is missing: each is simulated with a profile of its own.
    assert sitting.ran == [["calm", "disturbed", "late"], ["disturbed", "late"], []]
    found = json.loads((tmp_path / experiment.name / PACE).read_text())
    assert found["measured_again"] == ["disturbed", "late"]
    assert found["stolen"] == pytest.approx({"calm": 0.05, "disturbed": 0.15, "late": 0.05})
    assert sorted(one.stem for one in (tmp_path / f"profiles-{experiment.name}").iterdir()) == sorted(found["stolen"])
