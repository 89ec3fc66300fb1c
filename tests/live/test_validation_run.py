"""``simroute validate`` on emulators: what runs, what is kept, what goes on, and what it says.

What the clock decides is asserted with room; what does not depend on it exactly.
"""

import asyncio
import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from click.testing import CliRunner
from support.upstreams import emulated, run_until_servers_vanish

from live.replay.run import LiveOptions
from live.validation.command import End, ValidateCommand, carry_out
from live.validation.grid import Load
from simcore.errors import UserError
from simcore.profile import ServiceProfile
from simcore.run_folder import load_run
from simcore.scenario import load_scenario
from simroute import main as simroute

SCENARIO = """\
name: small
description: For tests.
workload:
  arrivals: {kind: poisson, rate_rps: 20}
  requests: 24
  lengths:
    prompt: {kind: uniform, max_tokens: 200, range_ratio: 0.2}
    output: {kind: uniform, max_tokens: 20, range_ratio: 0.5}
servers: [{profile: llama-3.1-8b-h100, count: 2}]
router: {report_interval_s: 0.2}
"""
SPEED = 4.0


def scenario(folder: Path, text: str = SCENARIO) -> str:
    path = folder / "small.yaml"
    path.write_text(text)
    return str(path)


def validate(folder: Path, **changes: Any) -> End:
    """Against emulators in this process, that are named as real servers are."""
    given: dict[str, Any] = {
        "scenario": scenario(folder),
        "policies": (("random", {}), ("least_request", {})),
        "loads": (Load("rate", 20), Load("rate", 60)),
        "repeats": 1,
        "requests": None,
        "seed": None,
        "overrides": (),
        "emulate": None,
        "options": LiveOptions(speed=SPEED),
        "gates": (),
        "rerun_invalid": False,
        "cell_profiles": None,
        "draws": 1,
        "out": folder / "grid",
        "as_json": True,
        "quiet": True,
        "words": ("simroute", "validate"),
        **changes,
    }

    async def main() -> End:
        async with asyncio.timeout(100), emulated(2, speed=SPEED) as urls:
            return await carry_out(ValidateCommand(**{"servers": tuple(urls), **given}))

    return asyncio.run(main())


def finding(folder: Path) -> Any:
    return json.loads((folder / "grid/validation.json").read_text())


def test_a_grid_end_to_end(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    end = validate(tmp_path, gates=("mean_e2e_s>5",))

    assert end == End(interrupted=False, gates_failed=False)
    document = finding(tmp_path)
    assert json.loads(capsys.readouterr().out) == {**document, "folder": str(tmp_path / "grid"), "gates_failed": []}
    assert document["emulated"] is True
    assert [(group["policy"], group["load"], group["repeats"]) for group in document["groups"]] == [
        ("random", "20 req/s", [0]),
        ("least_request", "20 req/s", [0]),
        ("random", "60 req/s", [0]),
        ("least_request", "60 req/s", [0]),
    ]
    cells = sorted(path.name for path in (tmp_path / "grid/cells").iterdir())
    assert cells == ["least_request-20rps-r0", "least_request-60rps-r0", "random-20rps-r0", "random-60rps-r0"]
    for name in ("report.html", "config.yaml", "plots/worst-over-time.svg", "plots/cdf-mean-e2e.svg"):
        assert (tmp_path / "grid" / name).is_file()
    for cell in cells:
        live, simulated = (load_run(tmp_path / "grid/cells" / cell / world) for world in ("live", "sim"))
        assert (live.result.kind, simulated.result.kind) == ("live", "sim")
        for column in ("prompt_tokens", "output_tokens"):
            assert live.result.requests[column].tolist() == simulated.result.requests[column].tolist()
        # The generator is late by what the machine makes it.
        late_s = live.result.requests["arrived_at"] - simulated.result.requests["arrived_at"]
        assert late_s.min() >= 0
        assert live.result.requests["server_queue_s"].notna().all()
        assert (live.path / "events.jsonl").is_file()
        assert not (live.path / "report.html").exists()
    # Random draws the same servers in both worlds.
    live, simulated = (load_run(tmp_path / "grid/cells/random-20rps-r0" / world).result for world in ("live", "sim"))
    assert live.requests["server_id"].tolist() == simulated.requests["server_id"].tolist()
    for group in document["groups"]:
        error_s = sum(part["error_s"] for part in group["breakdown"])
        e2e = group["errors"]["mean_e2e_s"]
        assert error_s == pytest.approx(e2e["simulated"] - e2e["real"], abs=1e-9)
        assert [part["name"] for part in group["breakdown"]][1] == "server_queue_s"


def test_what_is_there_is_not_run_again_and_what_is_missing_is(tmp_path: Path) -> None:
    one = {"policies": (("random", {}),), "loads": (Load("rate", 60),)}
    validate(tmp_path, **one)
    folder = tmp_path / "grid/cells/random-60rps-r0"
    written = {world: (folder / world / "manifest.json").stat().st_mtime_ns for world in ("live", "sim")}
    # With every cell there no server is asked for: these do not exist.
    validate(tmp_path, **one, servers=("http://127.0.0.1:1", "http://127.0.0.1:2"))
    again = {world: (folder / world / "manifest.json").stat().st_mtime_ns for world in ("live", "sim")}
    assert again["live"] == written["live"]
    assert again["sim"] > written["sim"]

    validate(tmp_path, **one, repeats=2)
    assert (folder / "live/manifest.json").stat().st_mtime_ns == written["live"]
    (group,) = finding(tmp_path)["groups"]
    assert group["repeats"] == [0, 1]
    assert load_run(tmp_path / "grid/cells/random-60rps-r1/live").result.seed == 1


def test_another_scenario_is_not_mixed_in_but_another_profile_may_be(tmp_path: Path) -> None:
    one = {"policies": (("random", {}),), "loads": (Load("rate", 60),)}
    validate(tmp_path, **one)
    with pytest.raises(UserError, match="was run with another scenario or other servers"):
        validate(tmp_path, **one, overrides=("workload.lengths.output.max_tokens=30",))

    (group,) = finding(tmp_path)["groups"]
    before = group["errors"]["mean_e2e_s"]
    # Real servers are what they are: the profile is of the simulation alone.
    validate(tmp_path, **one, overrides=("servers.0.profile=llama-3.1-8b-l40s",))
    simulated = load_run(tmp_path / "grid/cells/random-60rps-r0/sim")
    assert set(simulated.result.servers["profile"]) == {"llama-3.1-8b-l40s"}
    (group,) = finding(tmp_path)["groups"]
    assert group["errors"]["mean_e2e_s"]["real"] == before["real"]
    assert group["errors"]["mean_e2e_s"]["simulated"] > 2 * before["simulated"]


def test_a_cell_is_simulated_with_the_profile_of_its_name(tmp_path: Path) -> None:
    both = {"policies": (("random", {}),), "loads": (Load("rate", 20), Load("rate", 60))}
    validate(tmp_path, **both)
    profiles = tmp_path / "profiles"
    profiles.mkdir()
    for rate, name in ((20, "llama-3.1-8b-h100"), (60, "llama-3.1-8b-l40s")):
        text = ServiceProfile.load(name, tmp_path).to_json()
        (profiles / f"random-{rate}rps-r0.json").write_text(text)
    before = load_run(tmp_path / "grid/cells/random-20rps-r0/sim").result.requests
    _, faster = finding(tmp_path)["groups"]
    validate(tmp_path, **both, cell_profiles=profiles)

    _, slower = finding(tmp_path)["groups"]
    pd.testing.assert_frame_equal(load_run(tmp_path / "grid/cells/random-20rps-r0/sim").result.requests, before)
    assert slower["errors"]["mean_e2e_s"]["simulated"] > 2 * faster["errors"]["mean_e2e_s"]["simulated"]
    manifest = load_run(tmp_path / "grid/cells/random-60rps-r0/sim").manifest
    assert set(manifest["profiles"]) == {"llama-3.1-8b-l40s"}


def test_a_cell_without_a_profile_of_its_own_is_an_error_before_it_runs(tmp_path: Path) -> None:
    one = {"policies": (("random", {}),), "loads": (Load("rate", 60),), "cell_profiles": tmp_path}
    with pytest.raises(UserError, match=r"random-60rps-r0\.json is missing, the profile of random, 60 req/s, repeat 1"):
        validate(tmp_path, **one)
    other = tmp_path / "other"
    other.mkdir()
    kinds = "servers: [{profile: llama-3.1-8b-h100, count: 1}, {profile: llama-3.1-8b-l40s, count: 1}]"
    text = SCENARIO.replace("servers: [{profile: llama-3.1-8b-h100, count: 2}]", kinds)
    with pytest.raises(UserError, match="has several kinds of servers, and a cell one profile"):
        validate(tmp_path, **one, scenario=scenario(other, text))
    assert not (tmp_path / "grid/cells").exists()


def test_an_invalid_run_is_said_to_be_and_run_again_when_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    one = {"policies": (("random", {}),), "loads": (Load("rate", 60),), "gates": ("invalid_runs>0",)}
    monkeypatch.setattr("live.replay.validity.LATE_S", 0.0)
    assert validate(tmp_path, **one).gates_failed
    (said,) = finding(tmp_path)["invalid"]
    assert "the generator was late" in said
    assert "invalid_runs is 1" in capsys.readouterr().err
    monkeypatch.setattr("live.replay.validity.LATE_S", 60.0)
    monkeypatch.setattr("live.replay.validity.EMULATOR_LATE_S", 60.0)
    assert validate(tmp_path, **one).gates_failed
    assert not validate(tmp_path, **one, rerun_invalid=True).gates_failed
    assert finding(tmp_path)["invalid"] == []


def test_a_cell_is_simulated_several_times_where_its_profile_has_noise(tmp_path: Path) -> None:
    """On real servers, which noise in a profile does not change: here they are emulated without."""
    one = {"policies": (("random", {}),), "loads": (Load("rate", 60),), "draws": 3}
    with pytest.raises(UserError, match=r"3 draws of random, 60 req/s, repeat 1 would be the same: no profile"):
        validate(tmp_path, **one)
    profile = load_scenario(scenario(tmp_path), []).servers[0].profile
    noisy = json.loads(ServiceProfile.load(profile, Path()).to_json())
    noisy["steps"]["noise_cv"] = 0.2
    (tmp_path / "noisy.json").write_text(json.dumps(noisy))
    validate(tmp_path, **one, overrides=(f"servers.0.profile={tmp_path / 'noisy.json'}",))
    (group,) = finding(tmp_path)["groups"]
    assert group["draws"] == 3
    # What is kept of the simulation is the first draw.
    kept = load_run(tmp_path / "grid/cells/random-60rps-r0/sim").result.requests
    first_e2e_s = (kept["finished_at"] - kept["arrived_at"]).mean()
    assert group["errors"]["mean_e2e_s"]["simulated"] == pytest.approx(first_e2e_s, rel=0.3)
    assert group["errors"]["mean_e2e_s"]["simulated"] != pytest.approx(first_e2e_s, rel=1e-4)


def test_servers_that_are_gone_end_it_and_the_same_command_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = {"policies": (("random", {}),), "loads": (Load("rate", 2),), "requests": 12}
    with monkeypatch.context() as patched:
        patched.setattr("live.validation.sitting.run_live", run_until_servers_vanish)
        with pytest.raises(UserError, match=r"random.*no server was ready for 1 s"):
            validate(tmp_path, **one, emulate=2, servers=())
    assert not list((tmp_path / "grid/cells").glob("*"))
    validate(tmp_path, **one)
    assert [cell.name for cell in (tmp_path / "grid/cells").iterdir()] == ["random-2rps-r0"]


def test_a_run_in_which_requests_failed_is_run_again_when_asked(tmp_path: Path) -> None:
    one = {"policies": (("random", {}),), "loads": (Load("rate", 60),)}
    validate(tmp_path, **one)
    summary = tmp_path / "grid/cells/random-60rps-r0/live/summary.json"
    document = json.loads(summary.read_text())
    document["counts"] |= {"failed": 1, "finished": 23}
    summary.write_text(json.dumps(document))
    validate(tmp_path, **one)
    assert json.loads(summary.read_text())["counts"]["failed"] == 1
    validate(tmp_path, **one, rerun_invalid=True)
    assert json.loads(summary.read_text())["counts"]["failed"] == 0


def test_an_interrupted_grid_keeps_what_it_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second cell is interrupted."""
    import live.validation.sitting as sitting

    real_run, calls = sitting.run_live, []

    async def interrupted(*arguments: Any) -> Any:
        calls.append(arguments)
        run = await real_run(*arguments)
        if len(calls) == 2:
            object.__setattr__(run.result, "interrupted", True)
        return run

    monkeypatch.setattr(sitting, "run_live", interrupted)
    end = validate(tmp_path, loads=(Load("rate", 60),))

    assert end.interrupted
    assert [path.name for path in (tmp_path / "grid/cells").iterdir()] == ["random-60rps-r0"]
    assert [group["policy"] for group in finding(tmp_path)["groups"]] == ["random"]
    assert not validate(tmp_path, loads=(Load("rate", 60),)).interrupted
    assert [group["policy"] for group in finding(tmp_path)["groups"]] == ["random", "least_request"]
    assert len(calls) == 3


def test_a_closed_loop_on_one_server_and_static_batches_as_a_policy(tmp_path: Path) -> None:
    batches = Path(__file__).parents[2] / "docs/examples/static_batches.py"

    async def main() -> None:
        async with asyncio.timeout(100), emulated(1, speed=SPEED) as urls:
            command = ValidateCommand(
                scenario=scenario(tmp_path),
                policies=(("round_robin", {}), (f"{batches}:StaticBatches", {"size": 4})),
                loads=(Load("concurrency", 4),),
                repeats=1,
                requests=6,
                seed=None,
                overrides=("servers.0.count=1",),
                servers=tuple(urls),
                emulate=None,
                options=LiveOptions(speed=SPEED),
                gates=(),
                rerun_invalid=False,
                cell_profiles=None,
                draws=1,
                out=tmp_path / "grid",
                as_json=True,
                quiet=True,
                words=(),
            )
            await carry_out(command)

    asyncio.run(main())
    for world in ("live", "sim"):
        requests = load_run(tmp_path / "grid/cells" / "StaticBatches-size-4-4clients-r0" / world).result.requests
        assert len(requests) == 12
        # Nothing joins a batch of which one has ended.
        starts = requests["dispatched_at"].to_numpy()
        for start in starts:
            under_way = requests[(requests["dispatched_at"] <= start) & (requests["finished_at"] > start)]
            ended_since = requests["finished_at"].between(under_way["dispatched_at"].min(), start, inclusive="right")
            assert not ended_since.any()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "give exactly one of --servers and --emulate"),
        (["--emulate", "2", "--servers", "http://a"], "give exactly one of"),
        (["--emulate", "2", "--rates", "3", "--concurrency", "4"], "exclude each other"),
        (["--servers", "http://a", "--speed", "2"], "--speed is for emulators"),
        (["--emulate", "2", "--cell-profiles", "."], "--cell-profiles is for real servers"),
        (["--emulate", "2", "--concurrency", "1.5"], "whole numbers"),
        (["--emulate", "2", "--rates", "3,-1"], "must be more than 0"),
        (["--emulate", "2", "--rates", "x"], "give numbers as"),
        (["--emulate", "3"], "the scenario has 2 servers, and 3 are given"),
        (["--emulate", "2", "--policies", "rondom"], "unknown policy 'rondom'"),
        (["--emulate", "2", "--fail-on", "mean_e2e>3"], "did you mean mean_e2e_s"),
        (["--emulate", "2", "--concurrency", "4", "--set", "workload.requests=null"], "give exactly one of 'requests'"),
    ],
)
def test_mistakes_are_told_before_anything_starts(options: list[str], message: str, tmp_path: Path) -> None:
    out = ["--out", str(tmp_path / "grid")]
    done = CliRunner().invoke(simroute, ["validate", "--scenario", scenario(tmp_path), *out, *options])

    assert done.exit_code == 2, done.output
    assert message in done.stderr
    assert not (tmp_path / "grid").exists()


def test_the_command_line_starts_emulators_and_shows_progress(tmp_path: Path) -> None:
    command = ["validate", "--scenario", scenario(tmp_path), "--emulate", "2", "--speed", "4", "--repeats", "1"]
    more = ["--policies", "random", "--rates", "60", "--out", str(tmp_path / "grid"), "--api-key", "hush"]
    done = CliRunner().invoke(simroute, [*command, *more])

    assert done.exit_code == 0, done.output
    assert "[1/1] random, 60 req/s, repeat 1: " in done.stderr
    assert "about 0 s left" in done.stderr
    assert "small on emulated servers" in done.stdout
    assert "hush" not in (tmp_path / "grid/report.html").read_text()
