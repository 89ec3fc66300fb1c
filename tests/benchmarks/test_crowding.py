"""What servers that share processors cost each other, and how it enters the simulation of a live run."""

import json
from pathlib import Path

import paced
import pandas as pd
import pytest
from crowding import Crowding
from experiments import Experiment
from pace import PaceLog, RunPace
from paced import validate_at_pace
from sitting import Given, Sitting
from support.profiles import calibrated_now
from validation_report import PACE

from calibrate.host import Spell
from simcore.profile import ServiceProfile
from simcore.profile_parts import Slowdown

PROFILE = calibrated_now()
CROWDING = Crowding(decode=0.8, prefill=0.9)


def ran(server_id: str, *begun_and_ended: tuple[float, float], status: str = "finished") -> pd.DataFrame:
    """Requests that were prefilled for 0.25 s."""
    begun, ended = map(list, zip(*begun_and_ended, strict=True))
    first = [at + 0.25 for at in begun]
    columns = {"first_token_at": first, "prefill_s": 0.25, "finished_at": ended}
    return pd.DataFrame({"server_id": server_id, "status": status, **columns})


def slowdowns(*decode_and_prefill: tuple[float, float]) -> tuple[Slowdown, ...]:
    pairs = enumerate(decode_and_prefill)
    return tuple(Slowdown(at_s=at_s, decode=decode, prefill=prefill) for at_s, (decode, prefill) in pairs)


def factors(profile: ServiceProfile) -> list[float]:
    return [value for one in profile.slowdowns for value in (one.decode, one.prefill)]


def test_steps_are_as_long_as_the_neighbours_are_busy() -> None:
    measured = PROFILE.model_copy(update={"slowdowns": slowdowns((1.0, 1.0), (2.0, 1.0), (1.0, 3.0))})
    # Two at once are one step, and out of order.
    a, b = ran("a", (1.0, 2.5), (0.0, 2.0), (3.5, 4.0)), ran("b", (0.5, 1.0), (1.0, 1.25))
    requests = pd.concat([a, b, ran("b", (0.0, 9.0), status="failed")])
    found = CROWDING.beside(measured, requests, servers=2)
    assert [one.at_s for one in found.slowdowns] == [0.0, 1.0, 2.0]
    # In a step: one server for all of the first two seconds and half of the next two, the other for half a second and
    # then for a quarter. Requests: 1.5 s of them, 2.25 and 1.
    most = 2 * PROFILE.settings.max_running_requests
    shares = [(0.75 + 1.5 / most) / 2, (0.625 + 2.25 / most) / 2, (0.25 + 0.5 / most) / 2]
    of_decode, of_prefill = ([alone + (1 - alone) * share for share in shares] for alone in (0.8, 0.9))
    assert factors(found) == pytest.approx(
        [of_decode[0], of_prefill[0], 2 * of_decode[1], of_prefill[1], of_decode[2], 3 * of_prefill[2]]
    )


def test_neighbours_that_are_full_cost_all_of_it() -> None:
    measured = PROFILE.model_copy(update={"slowdowns": slowdowns((1.0, 1.0))})
    full = pd.concat([ran(server, (0.0, 4.0)) for server in "ab" for _ in range(PROFILE.settings.max_running_requests)])
    assert factors(CROWDING.beside(measured, full, servers=2)) == pytest.approx([1.0, 1.0])


def test_the_cost_is_what_two_calibrations_differ_by(tmp_path: Path) -> None:
    decode = PROFILE.steps.decode
    faster = decode.model_copy(
        update={name: tuple(0.9 * value for value in getattr(decode, name)) for name in ("base_s", "context_s")}
    )
    steps = PROFILE.steps.model_copy(update={"decode": faster})
    for name, profile in (("alone", PROFILE.model_copy(update={"steps": steps})), ("beside", PROFILE)):
        (tmp_path / f"{name}.json").write_text(profile.to_json())
    assert Crowding.between(str(tmp_path / "alone.json"), str(tmp_path / "beside.json")) == Crowding(0.9, 1.0)


class Unmoved(Sitting):
    """Its experiment is done."""

    def validate(self, experiment: Experiment, *_: object, **__: object) -> None:
        (self.given.out / experiment.name / "validation.json").write_text("{}")


def test_a_live_run_is_simulated_beside_neighbours_as_the_first_simulation_has_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(paced, "_pace_of", lambda *_: RunPace(0.001, (Spell(0.0, 0.0, None),)))
    experiment, profile = Experiment.retraction(), tmp_path / "profile.json"
    cell = tmp_path / experiment.name / "cells/one"
    for world in ("live", "sim"):
        (cell / world).mkdir(parents=True)
    (cell / "live/live.json").write_text('{"valid": true}')
    ran("a", (0.0, 4.0)).to_parquet(cell / "sim/requests.parquet")
    profile.write_text(PROFILE.to_json())
    sitting = Unmoved(Given(speed=None, out=tmp_path, resume=False))
    sitting.validate(experiment)

    found = []
    for crowding in (None, CROWDING):
        log = PaceLog(tmp_path / "pace.csv")
        validate_at_pace(sitting, experiment, ["a", "b"], str(profile), log, crowding)
        found.append(ServiceProfile.load(str(tmp_path / f"profiles-{experiment.name}/one.json"), Path()))
    without, beside = (one.slowdowns[0] for one in found)
    # One of two servers is in a step, with one request.
    share = (1 / 2 + 1 / (2 * PROFILE.settings.max_running_requests)) / 2
    assert beside.decode == pytest.approx(without.decode * (0.8 + 0.2 * share))
    assert beside.prefill == pytest.approx(without.prefill * (0.9 + 0.1 * share))
    assert json.loads((tmp_path / experiment.name / PACE).read_text())["crowding"] == {"decode": 0.8, "prefill": 0.9}
