"""Controllers in the real world: the same class as in the simulator, with the same caps, down to the servers."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from support.upstreams import emulated, served
from test_live_run import run, scenario

from live.routing.event_log import replay
from policies import PolicyError
from policies.controllers import check_controller_needs, make_controller
from simcore.engine import simulate
from simcore.scenario import PolicySpec

SCHEDULE = {"name": "fixed_schedule", "params": {"caps": [[0.0, "all", 2], [0.4, "s0", 1], [0.7, "all", None]]}}
ADMIN = {"Authorization": "Bearer admin-key"}


def events(folder: Path, name: str) -> list[dict[str, Any]]:
    lines = (folder / "events.jsonl").read_text().splitlines()[1:]
    return [event for event in map(json.loads, lines) if event["e"] == name]


def test_a_schedule_changes_the_same_caps_simulated_and_live(tmp_path: Path) -> None:
    given = scenario(controller=SCHEDULE)
    live, sim = run(given, tmp_path).result, simulate(given, PolicySpec(name="least_request"), given.seed)
    columns = ["server_id", "max_running_requests"]
    assert live.caps[columns].equals(sim.caps[columns])
    assert (live.caps["t_s"] - sim.caps["t_s"]).between(0, 0.2).all()
    assert live.controller == sim.controller
    assert [event["x"] for event in events(tmp_path, "cap")][:2] == [["s0", 2], ["s1", 2]]
    assert events(tmp_path, "tick")[1]["a"] == [["cap", "s0", 1]]


@pytest.mark.parametrize(
    "controller",
    [
        {"name": "aimd_ttft", "params": {"target_s": 0.001, "interval_s": 0.2, "max_cap": 8}},
        {"name": "kv_headroom", "params": {"high": 0.001, "low": 0.0005, "interval_s": 0.2, "max_cap": 8}},
    ],
    ids=lambda controller: str(controller["name"]),
)
def test_what_a_controller_decided_live_a_fresh_one_decides_again(controller: dict[str, Any], tmp_path: Path) -> None:
    """A target that no server meets: the caps fall, in both worlds, and the log proves each fall."""
    given = scenario({"requests": 160}, controller=controller, router={"report_interval_s": 0.2})
    live, sim = run(given, tmp_path).result, simulate(given, PolicySpec(name="least_request"), given.seed)
    for result in (live, sim):
        assert set(result.requests["status"]) == {"finished"}
        for server_id in ("s0", "s1"):
            caps = result.caps[result.caps["server_id"] == server_id]["max_running_requests"].tolist()[1:]
            assert caps[0] == 8
            assert caps[1] <= 6
            assert min(caps) >= 1
    assert sum(len(event["a"]) for event in events(tmp_path, "tick")) == len(live.caps) - 2
    assert replay(tmp_path / "events.jsonl").differences == ()


def test_a_log_whose_tick_was_tampered_with_does_not_repeat(tmp_path: Path) -> None:
    run(scenario(controller=SCHEDULE), tmp_path)
    log = tmp_path / "events.jsonl"
    log.write_text(log.read_text().replace('[["cap","s0",1]]', '[["cap","s0",9]]'))
    assert len(replay(log).differences) == 1


def test_servers_that_report_no_kv_are_refused() -> None:
    with pytest.raises(PolicyError, match="kv_headroom needs"):
        check_controller_needs(make_controller("kv_headroom", {}), {"kv_tokens_used"})


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(10):
        while not await condition():
            await asyncio.sleep(0.02)


def test_the_service_pushes_a_controllers_caps_down_and_lets_nobody_else_change_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TEST_ADMIN", "admin-key")
    schedule = {"name": "fixed_schedule", "params": {"caps": [[0.0, "s0", 5], [0.2, "s0", 3]]}}

    async def main() -> None:
        async with (
            emulated() as (url,),
            aiohttp.ClientSession() as session,
            served([url], controller=schedule, admin_key_env="TEST_ADMIN") as (router, service),
        ):

            async def fallen() -> bool:
                async with session.get(f"{url}/v1/loads") as response:
                    return bool((await response.json())["loads"][0]["max_running_requests"] == 3)

            await until(fallen)
            assert service.fleet.driver.servers["s0"].max_running_requests == 3
            change = {"max_running_requests": 9}
            async with session.patch(f"{router}/admin/servers/s0", json=change, headers=ADMIN) as response:
                assert response.status == 400
                assert "the controller fixed_schedule decides on caps" in await response.text()
            assert service.fleet.driver.servers["s0"].max_running_requests == 3
            drain = {"draining": True}
            async with session.patch(f"{router}/admin/servers/s0", json=drain, headers=ADMIN) as response:
                assert response.status == 200

    asyncio.run(main())


def test_a_breaker_does_not_become_the_controllers_cap() -> None:
    """Half open, a server has a cap of 1 in force; the controller goes on from its own."""

    async def main() -> None:
        controller = {"name": "aimd_ttft", "params": {"interval_s": 0.05, "max_cap": 7}}
        async with emulated() as (url,), served([url], controller=controller, breaker_open_s=0.05) as (_, service):
            fleet = service.fleet

            async def begun() -> bool:
                return fleet.driver.servers["s0"].max_running_requests == 7

            await until(begun)
            for _ in range(5):
                fleet.failed("s0")

            async def half_open() -> bool:
                return fleet.driver.servers["s0"].max_running_requests == 1

            await until(half_open)
            await asyncio.sleep(0.2)
            for _ in range(3):
                fleet.succeeded("s0")
            assert fleet.driver.servers["s0"].max_running_requests == 7

    asyncio.run(main())
