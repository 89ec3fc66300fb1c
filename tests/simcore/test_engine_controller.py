"""Controllers in simulated runs: what they see, what becomes of their caps, what the records tell of it."""

from pathlib import Path
from typing import Any

import pytest
from support.cli import sim, tiny
from support.engine import fixed_lengths, flat_profile, fleet, replay, run, scenario

from policies import PolicyError
from simcore.errors import UserError
from simcore.experiment.check import check_experiment
from simcore.metrics import latencies, summarise
from simcore.records import RunResult
from simcore.report.plots import timeline
from simcore.run_folder import load_run
from simcore.scenario import Scenario, load_scenario, resolved_yaml


def overload(folder: Path, controller: Any, *, servers: int = 2, **router: Any) -> Scenario:
    """80 requests/s a server, of 0.1 s and 8 at a time: a tenth more than it can serve."""
    profile = flat_profile(max_running_requests=8, max_prefill_tokens=10**6, kv_tokens=2000)
    arrivals = {"kind": "poisson", "rate_rps": 88 * servers}
    workload = {"arrivals": arrivals, "duration_s": 30, "lengths": fixed_lengths(10, 100)}
    given = {} if controller is None else {"controller": controller}
    return scenario(
        fleet(folder, profile, count=servers), workload, router={"report_interval_s": 0.2, **router}, **given
    )


def caps(result: RunResult, server_id: str = "s0") -> list[tuple[float, float]]:
    """(time, cap) on a server."""
    table = result.caps[result.caps["server_id"] == server_id]
    return list(zip(table["t_s"], table["max_running_requests"], strict=True))


def server_ttft_s(result: RunResult) -> float:
    """The 90% one."""
    return float(latencies(result.requests)["server_ttft_s"].quantile(0.9))


def test_control_and_the_schedule_are_one(tmp_path: Path) -> None:
    workload = replay(tmp_path, [(0.0, 1, 1000)] * 40)
    servers = fleet(tmp_path, flat_profile(max_running_requests=64), count=2)
    control = [
        {"at_s": 0.25, "server": "s0", "max_running_requests": 7},
        {"at_s": 0.5, "max_running_requests": None},
    ]
    schedule = {"name": "fixed_schedule", "params": {"caps": [[0.25, "s0", 7], [0.5, "all", None]]}}
    router = {"max_running_requests": 2}
    one = run(scenario(servers, workload, router=router, control=control))
    other = run(scenario(servers, workload, router=router, controller=schedule))
    assert one.requests.equals(other.requests)
    assert one.caps.equals(other.caps)
    assert (one.controller, other.controller[:14]) == ("control", "fixed_schedule")
    assert str(caps(one)) == "[(0.0, 2.0), (0.25, 7.0), (0.5, nan)]"
    assert str(caps(one, "s1")) == "[(0.0, 2.0), (0.5, nan)]"


def test_aimd_holds_the_servers_ttft_and_swings_within_bounds(tmp_path: Path) -> None:
    """Eight run; each one more waits 1/80 s: 0.05 s are kept with 12 in flight. So a cap rises to some 13, falls to
    half of it, and never returns to where it began; the servers, on equal load, do not take turns."""
    controller = {"name": "aimd_ttft", "params": {"target_s": 0.05, "interval_s": 0.5}}
    held = run(overload(tmp_path, controller))
    free = run(overload(tmp_path, None))
    assert server_ttft_s(free) > 1
    assert server_ttft_s(held) < 0.1
    for server_id in ("s0", "s1"):
        settled = [cap for at, cap in caps(held, server_id) if 5 < at < 30]
        assert len(settled) > 10
        assert 5 <= min(settled) <= 8
        assert 11 <= max(settled) <= 20
    busy = held.servers["busy_s"]
    assert busy.max() / busy.min() < 1.1


def test_kv_headroom_keeps_the_use_between_its_marks(tmp_path: Path) -> None:
    """A request holds 60 of 2,000 tokens on average: between 30% and 40% are 10 to 13 requests; 18 would fit."""
    profile = flat_profile(max_running_requests=64, max_prefill_tokens=10**6, kv_tokens=2000)
    workload = {
        "arrivals": {"kind": "poisson", "rate_rps": 220},
        "duration_s": 10,
        "lengths": fixed_lengths(10, 100),
    }
    servers, router = fleet(tmp_path, profile), {"report_interval_s": 0.05}
    params = {"interval_s": 0.05, "high": 0.4, "low": 0.3, "increase": 1, "max_cap": 40}
    held = run(scenario(servers, workload, router=router, controller={"name": "kv_headroom", "params": params}))
    free = run(scenario(servers, workload, router=router))
    settled = [cap for at, cap in caps(held) if 2 < at < 10]
    assert 4 <= min(settled) <= max(settled) <= 20
    held_use, free_use = (
        result.timeline[result.timeline["t_s"].between(2, 10)]["kv_tokens_used"].mean() / 2000
        for result in (held, free)
    )
    assert 0.25 < held_use < 0.42 < free_use


def test_a_controller_that_needs_reports_gets_them_as_stale_as_they_are(tmp_path: Path) -> None:
    controller = {"name": "kv_headroom", "params": {"interval_s": 0.1, "low": 0.1, "high": 0.2}}
    fresh = run(overload(tmp_path, controller))
    stale = run(overload(tmp_path, controller, report_delay_s=3.0))
    assert min(at for at, _ in caps(fresh)[2:]) < 1
    assert min(at for at, _ in caps(stale)[2:]) >= 3


def test_the_same_seed_gives_the_same_caps(tmp_path: Path) -> None:
    given = overload(tmp_path, "aimd_ttft")
    assert run(given).caps.equals(run(given).caps)


def test_without_a_controller_the_records_hold_the_caps_at_the_start(tmp_path: Path) -> None:
    result = run(overload(tmp_path, None, max_running_requests=9))
    assert result.caps.to_numpy().tolist() == [[0.0, "s0", 9.0], [0.0, "s1", 9.0]]
    assert result.controller == ""


def test_the_summary_and_the_plot_show_the_changes(tmp_path: Path) -> None:
    result = run(overload(tmp_path, {"name": "aimd_ttft", "params": {"target_s": 0.05, "interval_s": 0.5}}))
    summary = summarise(result, {}, 0.0)
    assert summary.controller == "aimd_ttft(target_s=0.05, interval_s=0.5)"
    assert [server.cap_changes for server in summary.servers] == [len(caps(result, name)) - 1 for name in ("s0", "s1")]
    drawn = timeline(result.timeline, result.caps, summary.servers, result.duration_s)
    free = run(overload(tmp_path, None))
    plain = timeline(free.timeline, free.caps, summarise(free, {}, 0.0).servers, free.duration_s)
    assert plain.count("axes_4") == 0
    assert drawn.count("axes_4") > 0


def test_one_decides_on_caps(tmp_path: Path) -> None:
    file = tmp_path / "two.yaml"
    file.write_text(
        "name: two\nworkload:\n  arrivals: {kind: poisson, rate_rps: 1}\n  requests: 1\n  lengths: "
        "{prompt: {kind: fixed, tokens: 1}, output: {kind: fixed, tokens: 1}}\n"
        "servers: [{profile: llama-3.1-8b-h100}]\ncontrol:\n  - {at_s: 1, max_running_requests: null}\n"
        "controller: aimd_ttft\n"
    )
    with pytest.raises(UserError, match=r"two.yaml:9: controller: control changes caps, too"):
        load_scenario(str(file))


@pytest.mark.parametrize(
    ("controller", "said"),
    [
        ("aimd", "unknown controller 'aimd'"),
        ({"name": "fixed_schedule", "params": {"caps": [[1, "s7", 2]]}}, "no server 's7'"),
        ({"name": "kv_headroom", "params": {"high": 2.0}}, "low <= high <= 1"),
    ],
)
def test_a_wrong_controller_is_told_before_anything_runs(controller: Any, said: str, tmp_path: Path) -> None:
    with pytest.raises(PolicyError, match=said):
        check_experiment(overload(tmp_path, controller))


def test_a_controllers_file_is_named_relative_to_the_scenario(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "from policies.controllers import Cap, Controller\n\n\nclass Mine(Controller):\n    moments = (0.5,)\n\n"
        "    def decide(self, now, servers):\n        return [Cap(servers[0].server_id, 3)]\n"
    )
    given = overload(tmp_path, None)
    text = resolved_yaml(given).replace("controller: null", "controller: mine.py:Mine")
    (tmp_path / "mine.yaml").write_text(text)
    loaded = load_scenario(str(tmp_path / "mine.yaml"))
    assert caps(run(loaded))[1:] == [(0.5, 3.0)]
    (tmp_path / "again.yaml").write_text(resolved_yaml(loaded))
    again = load_scenario(str(tmp_path / "again.yaml"))
    assert again.controller is not None
    assert Path(again.controller.name.partition(":")[0]).is_absolute()


def test_a_folder_from_before_caps_were_recorded_is_read(tmp_path: Path) -> None:
    assert sim("--scenario", tiny(tmp_path), "--policy", "random", "--out", str(tmp_path / "out")).exit_code == 0
    (folder,) = (tmp_path / "out").iterdir()
    assert len(load_run(folder).result.caps) == 2
    (folder / "caps.parquet").unlink()
    assert load_run(folder).result.caps.empty
